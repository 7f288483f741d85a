#!/bin/bash
# Checks that a module of src/ uses only the floors below it, and a few rules that no lint knows. docs/architecture.md
# has the floors. Prints nothing but long files when all is well.
#
#   hack/floors.sh               check src/ and integration/, after a self-test
#   hack/floors.sh --self-test   only prove that planted violations are found and an innocent tree passes
set -euo pipefail
cd "$(dirname "$0")/.."

# check DIR: one line for each violation under DIR/src; fails if there is one.
check() {
    perl - "$1" <<'PERL'
use strict;
use warnings;

# A top-level module and its floor. A module uses its own floor only where %level says so.
my %floor = (sys => 0, spec => 1, error => 1, features => 1, clock => 1, prim => 2, engine => 3, sandbox => 4,
    commands => 5);
my %level = (sys => 1, spec => 1, error => 1, engine => 1, sandbox => 1, commands => 1);
# What every primitive may use of another one.
my %shared_prim = (mounts => 1, rootfs => 1);
my ($long, $too_long) = (500, 600);

chdir $ARGV[0] or die "$ARGV[0]: $!";
my $bad = 0;
my @files = split /\n/, qx(find src integration -name '*.rs' -type f 2>/dev/null);

for my $file (sort @files) {
    open(my $in, '<', $file) or die "$file: $!";
    my $text = do { local $/; <$in> };
    my $lines = ($text =~ tr/\n//);
    complain($file, 0, "$lines lines; split it (the limit is $too_long)") if $lines > $too_long;
    print "floors: note: $file has $lines lines (aim: $long)\n" if $lines > $long && $lines <= $too_long;
    next unless $file =~ m{^src/};

    my $code = strip($text);
    $code =~ s/\n[ \t]*#\[cfg\(test\)\]\s*mod \w+ \{.*//s;
    my @module = split m{/}, $file =~ s{^src/(.*?)(/mod)?\.rs$}{$1}r;
    words($file, \@module, $code);
    uses($file, \@module, $code);
}
exit($bad ? 1 : 0);

sub complain {
    my ($file, $line, $what) = @_;
    print "floors: $file" . ($line ? ":$line" : '') . ": $what\n";
    $bad = 1;
}

# The text with comments and literals blanked, its lines kept.
sub strip {
    my ($text) = @_;
    $text =~ s{
        ( //[^\n]* | /\*.*?\*/                                 # comments
        | b?c?r(\#*)".*?"\2                                    # raw strings
        | [bc]?"(?:[^"\\]|\\.)*"                               # strings
        | b?'(?:[^'\\\n]|\\[^\n][^'\n]*)' )                    # characters, not lifetimes
    }{ my $blank = $1; $blank =~ tr/\n//cd; " $blank" }gsex;
    return $text;
}

sub words {
    my ($file, $module, $code) = @_;
    my $top = $module->[0];
    my %never = (
        qr/\b(todo|unimplemented)!/ => 'unfinished code',
        qr/\bthread::sleep\b|\bsleep_ms\b|\bnanosleep\b/ => 'a sleep; wait for the event itself',
    );
    $never{qr/\bunsafe\b(?!_)/} = '`unsafe` outside src/sys' unless $top eq 'sys';
    $never{qr/\b(libc|nix)::/} = 'a kernel call of its own; commands use the engine' if $top eq 'commands' || $top eq 'main';
    for my $pattern (keys %never) {
        while ($code =~ /$pattern/g) {
            complain($file, 1 + (substr($code, 0, $-[0]) =~ tr/\n//), $never{$pattern});
        }
    }
}

# Every path that starts at the crate or climbs with super::, resolved to modules and judged.
sub uses {
    my ($file, $module, $code) = @_;
    my $name = $module->[0] eq 'main' ? 'brig' : 'crate';
    while ($code =~ /(?<![\w:])(?:pub\()?\b($name|(?:super::)*super)::/g) {
        my ($start, $from) = ($1, $+[0]);
        my $line = 1 + (substr($code, 0, $-[0]) =~ tr/\n//);
        my @base;
        if ($start ne $name) {
            my $ups = () = $start =~ /super/g;
            @base = @$module;
            next if $ups > @base;
            splice(@base, @base - $ups);
        }
        judge($file, $line, $module, [@base, @$_]) for heads(substr($code, $from), 2);
    }
}

# The first segments (at most $depth) of each path in "a::b::c" or "a::{b, c::d}" or "{a, b::{c}}".
sub heads {
    my ($rest, $depth) = @_;
    return ([]) if $depth == 0 || $rest =~ m{^\s*\w+!};
    if ($rest =~ /^\s*\{/) {
        my ($level, @parts, $part) = (0);
        for my $char (split //, $rest) {
            if ($char eq '{' && $level++ == 0) { $part = ''; next }
            if ($char eq '}' && --$level == 0) { push @parts, $part; last }
            if ($char eq ',' && $level == 1) { push @parts, $part; $part = ''; next }
            $part .= $char;
        }
        return map { heads($_, $depth) } grep { /\S/ } @parts;
    }
    return ([]) unless $rest =~ /^\s*(\w+)\s*(::)?(.*)/s;
    my ($head, $more, $tail) = ($1, $2, $3);
    return ([$head]) unless $more;
    return map { [$head, @$_] } heads($tail, $depth - 1);
}

sub judge {
    my ($file, $line, $module, $path) = @_;
    my ($from, $to) = ($module->[0], $path->[0] // '');
    return if $to eq '' || $to eq $from && $from ne 'prim' || $from eq 'lib' || $to !~ /^[a-z]/;
    if ($from eq 'main') {
        complain($file, $line, "main uses $to; it uses commands only") if $to ne 'commands';
        return;
    }
    for ($from, $to) {
        next if exists $floor{$_};
        complain($file, $line, "module $_ has no floor; give it one in hack/floors.sh");
        return;
    }
    if ($from eq 'prim' && $to eq 'prim') {
        my ($mine, $other) = ($module->[1] // '', $path->[1] // '');
        return if $mine eq '' || $other eq $mine || $shared_prim{$other} || $other !~ /^[a-z]/;
        complain($file, $line, "prim::$mine uses prim::$other; primitives do not use each other");
    } elsif ($floor{$to} > $floor{$from} || $floor{$to} == $floor{$from} && !$level{$to}) {
        complain($file, $line, "$from (floor $floor{$from}) uses $to (floor $floor{$to})");
    }
}
PERL
}

self_test() {
    local tree
    tree=$(mktemp -d)
    trap 'rm -rf "$tree"' RETURN
    # plant FILE TEXT WANTED: with TEXT as FILE, the check must say WANTED, or pass if WANTED is empty.
    plant() {
        local said
        rm -rf "$tree/src"
        mkdir -p "$tree/$(dirname "$1")"
        printf '%b\n' "$2" >"$tree/$1"
        if said=$(check "$tree"); then
            [ -z "$3" ] || { echo "floors: self-test: not found in $1: $2" >&2; return 1; }
        else
            [ -n "$3" ] && [[ $said == *"$3"* ]] || { echo "floors: self-test: $1: $2: said: $said" >&2; return 1; }
        fi
    }
    plant src/sys/mount.rs 'use crate::spec::Spec;' 'sys (floor 0) uses spec (floor 1)'
    plant src/spec/load.rs 'use crate::{error::Error,\n    prim::hooks};' ':1: spec (floor 1) uses prim (floor 2)'
    plant src/clock.rs 'fn a() { super::engine::run() }' 'clock (floor 1) uses engine (floor 3)'
    plant src/prim/hooks.rs 'use super::cgroup::Cgroup;' 'prim::hooks uses prim::cgroup'
    plant src/prim/seccomp/cache.rs 'use super::super::hooks;' 'prim::seccomp uses prim::hooks'
    plant src/prim/hooks.rs 'use crate::prim::{rootfs, terminal::Pty};' 'prim::hooks uses prim::terminal'
    plant src/engine/plan/mod.rs 'use crate::commands;' 'engine (floor 3) uses commands (floor 5)'
    plant src/engine/plan/mod.rs 'use crate::sandbox;' 'engine (floor 3) uses sandbox (floor 4)'
    plant src/commands/run.rs '\nfn a() { nix::unistd::getpid(); }' 'run.rs:2: a kernel call of its own'
    plant src/main.rs 'fn main() { brig::engine::run() }' 'main uses engine'
    plant src/new.rs 'use crate::sys;' 'module new has no floor'
    plant src/engine/run.rs 'fn a() { unsafe { b() } }' '`unsafe` outside src/sys'
    plant src/engine/run.rs 'fn a() { todo!() }' 'unfinished code'
    plant src/engine/run.rs 'use std::{thread};\nfn a() { thread::sleep(b) }' 'run.rs:2: a sleep'
    plant src/engine/run.rs "$(printf '\\n%.0s' $(seq 601))" '602 lines'
    plant src/sys/mount.rs 'use super::check;\nfn a() { unsafe { super::path::b() } }' ''
    plant src/prim/hooks.rs '// unsafe, crate::engine\nuse crate::{prim::rootfs::open, sys::mount, spec::{Hook, Hooks}};' ''
    plant src/prim/hooks.rs 'const A: (char, &str) = ('"'\"'"', "unsafe crate::engine");\nuse super::hooks::b;' ''
    plant src/spec/load.rs 'use crate::error;\n#[cfg(test)]\nmod tests {\n    use crate::engine::plan;\n}' ''
    plant src/main.rs 'fn main() -> E { brig::commands::main() }' ''
}

self_test
[ "${1:-}" = --self-test ] || check .
