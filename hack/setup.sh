#!/bin/bash
# Installs what brig needs on a Debian or Ubuntu machine. Says nothing, and needs no network, when all is there.
#
#   hack/setup.sh build   what compiles brig
#   hack/setup.sh run     and what `make run` needs
#   hack/setup.sh test    and the engines and tools that the tests drive (the default)
#   hack/setup.sh lab     what `make lab` needs to build, and to make and boot its guests
set -euo pipefail

build=(gcc libc6-dev pkg-config libseccomp-dev)
run=(busybox-static)
# The engines, the runtimes that brig is compared with, and what podman calls: conmon, netavark, newuidmap, an init.
test=(podman buildah containerd docker.io conmon netavark uidmap catatonit runc crun strace iproute2 procps python3 bubblewrap)
lab=(qemu-system-x86 qemu-system-common mmdebstrap debian-archive-keyring cpio e2fsprogs kmod zstd xz-utils util-linux binutils)

case "${1:-test}" in
build) wanted=("${build[@]}") ;;
run) wanted=("${build[@]}" "${run[@]}") ;;
test) wanted=("${build[@]}" "${run[@]}" "${test[@]}") ;;
lab) wanted=("${build[@]}" "${run[@]}" "${lab[@]}") ;;
*) echo "usage: hack/setup.sh [build|run|test|lab]" >&2; exit 2 ;;
esac

if ! command -v cargo >/dev/null && [ ! -x "$HOME/.cargo/bin/cargo" ]; then
    echo "setup: no cargo on the PATH: install Rust 1.88 or newer (https://rustup.rs), which this script leaves to you" >&2
fi

if ! command -v dpkg-query >/dev/null; then
    echo "setup: this is no Debian or Ubuntu; install the like of these yourself: ${wanted[*]}" >&2
    exit 0
fi

# "installed" is the last word of a package's state; a package that dpkg never heard of prints nothing.
missing=()
for package in "${wanted[@]}"; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [[ $state == installed* ]] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "setup: not root, so nothing is installed; going on without: ${missing[*]}" >&2
    echo "setup: to have them: sudo apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 0
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
echo "setup: installing ${missing[*]}"
# No daemon starts on account of a package: the tests run an engine of their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$log" "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi
if ! { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "setup: apt-get failed; see above" >&2
    exit 1
fi
