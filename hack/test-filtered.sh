#!/bin/bash
# Runs the integration suite once for each family of newer system calls with that family taken away, or for the families
# given; see integration/payload/filter.rs. Goes on to the last one, then prints a line for each and, as the last line, the
# sum; fails if any of them failed. The engines call brig themselves, without the filter. The whole output of each is in
# target/test.FAMILY.log.
set -uo pipefail
cd "$(dirname "$0")/.."

[ $# -gt 0 ] || set -- openat2 mountapi fsopen mount_setattr clone3 pidfd close_range all all:EPERM
status=0
lines=()
passed=0 failed=0 skipped=0
for calls; do
    echo "without $calls:"
    last=
    while IFS= read -r line; do
        echo "$line"
        last=$line
    done < <(BRIG_TEST_FILTER=$calls hack/test.sh --test integration -- --skip engines:: --skip filtered::)
    wait "$!" || status=1
    cp target/test.log "target/test.$calls.log"
    lines+=("without $calls: $last")
    if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
        passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2])) skipped=$((skipped + BASH_REMATCH[3]))
    fi
done
printf '%s\n' "${lines[@]}"
echo "$# filters: $passed passed, $failed failed, $skipped skipped"
exit "$status"
