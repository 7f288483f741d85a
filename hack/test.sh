#!/bin/bash
# Runs every test and keeps the output short: failures and skips in full, one line for what passed, and as the last line
# the sum over all test programs. The whole output is in target/test.log. Arguments go to cargo test.
set -uo pipefail
cd "$(dirname "$0")/.."
mkdir -p target
log=target/test.log

cargo test --locked --quiet --no-fail-fast "$@" 2>&1 | tee "$log" |
    sed -uE 's/^[.i]{8,}( [0-9]+\/[0-9]+)?//' |
    grep --line-buffered -vE '^(test .* \.\.\. (ok|ignored.*)|running [0-9]+ tests?|)$'
status=${PIPESTATUS[0]}

awk -v status="$status" '
    /^test result:/ {
        programs++
        for (i = 1; i < NF; i++) {
            if ($(i + 1) == "passed;") passed += $i
            if ($(i + 1) == "failed;") failed += $i
            if ($(i + 1) == "ignored;") skipped += $i
        }
    }
    END {
        if (status && !failed) print "cargo test failed with status " status " before it could count a failure"
        printf "%d passed, %d failed, %d skipped\n", passed, failed + (status && !failed), skipped
    }' "$log"
exit "$status"
