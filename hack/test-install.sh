#!/bin/bash
# Proves that `make install` puts everything in place and `make uninstall` takes all of it away, and the same of the Debian
# package, in directories of their own. Takes the binary that target/brig is, so that a debug build serves as well.
#
#   hack/test-install.sh
set -euo pipefail
cd "$(dirname "$0")/.."

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "test-install: $*" >&2; exit 1; }
[ -x target/brig ] || fail "there is no target/brig; run: make build"
export MAKE="make -o build"

# have ROOT ZSH: everything is there, and is what it should be.
have() {
    local root=$1 zsh=$2 command page
    "$root/bin/brig" --version | grep -q '^brig version' || fail "the binary does not run"
    # Every command has its page; a page with an error in it makes groff talk.
    for command in "" $("$root/bin/brig" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p' | grep -v '^help$'); do
        page=$root/share/man/man1/brig${command:+-$command}.1
        [ -e "$page" ] || page=$page.gz
        [ -e "$page" ] || fail "no page for brig $command"
        if command -v man >/dev/null; then
            said=$(LC_ALL=C.UTF-8 man --warnings -E UTF-8 -l -Tutf8 -Z "$page" 2>&1 >/dev/null) || fail "man: $page"
            [ -z "$said" ] || fail "$page: $said"
        fi
    done
    bash -c 'source "$1" && complete -p brig' - "$root/share/bash-completion/completions/brig" >/dev/null || fail "bash completion"
    # What completes the first word are the commands.
    bash -c 'source "$1"; COMP_WORDS=(brig mo) COMP_CWORD=1; _brig brig mo brig; printf "%s\n" "${COMPREPLY[@]}"' \
        - "$root/share/bash-completion/completions/brig" | grep -qx mounts || fail "bash completion does not know mounts"
    grep -q '^#compdef brig' "$root/share/zsh/$zsh/_brig" || fail "zsh completion"
    grep -q '^complete -c brig' "$root/share/fish/vendor_completions.d/brig.fish" || fail "fish completion"
}

# none ROOT: no file is left of it.
none() {
    local left
    left=$(find "$1" -name '*brig*' ! -type d)
    [ -z "$left" ] || fail "left behind: $left"
}

$MAKE install PREFIX=/opt/tools DESTDIR="$dir/staged" >/dev/null
have "$dir/staged/opt/tools" site-functions
$MAKE uninstall PREFIX=/opt/tools DESTDIR="$dir/staged"
none "$dir/staged"
echo "test-install: install and uninstall are well"

if ! command -v dpkg-deb >/dev/null; then
    echo "test-install: SKIP the Debian package: there is no dpkg-deb" >&2
    exit 0
fi
package=$(hack/deb.sh 2>/dev/null | tail -n 1)
[ -f "$package" ] || fail "no package was built"
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$dir/root/var/lib/dpkg/"{info,updates,triggers}
    touch "$dir/root/var/lib/dpkg/"{status,available}
    dpkg --root="$dir/root" --log=/dev/null -i "$package" >/dev/null
    dpkg --root="$dir/root" -V brig || fail "dpkg finds files changed"
    have "$dir/root/usr" vendor-completions
    dpkg --root="$dir/root" --log=/dev/null -r brig >/dev/null
    none "$dir/root"
else
    echo "test-install: SKIP installing the package: not root" >&2
fi
if command -v lintian >/dev/null; then
    # There is no bug to close by a first upload to Debian, to which this does not go.
    lintian --fail-on error,warning --suppress-tags initial-upload-closes-no-bugs "$package"
else
    echo "test-install: SKIP lintian: it is not installed" >&2
fi
echo "test-install: the Debian package is well"
