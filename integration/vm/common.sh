# Sourced by the lab's scripts: where things are, what is made once, and whether this host can run a guest at all.

vm=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
checkout=$(realpath "$vm/../..")
# Outside the checkout: an image is the same for every checkout with the same recipe, and takes minutes to make.
cache=${BRIG_LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/brig-lab}
export PATH="$PATH:/usr/sbin:/sbin:$HOME/.cargo/bin"

say() {
    echo "lab: $*" >&2
}

# Ends the caller: what can't be had here is no failure, but nobody may miss it. The last line is the lab's sum.
skip() {
    echo "SKIPPED lab: $*"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
}

# Why no guest can run here; nothing if one can.
obstacle() {
    local tool
    [ "$(uname -s) $(uname -m)" = "Linux x86_64" ] || { echo "the guest is made for Linux on x86_64, this is $(uname -sm)"; return; }
    for tool in qemu-system-x86_64 mmdebstrap mke2fs depmod cpio zstd xz flock apt-get busybox; do
        command -v "$tool" >/dev/null || { echo "$tool is not installed, and hack/setup.sh lab could not install it"; return; }
    done
}

# Runs a command as root, or as what looks like root: enough to write files that are root's into an image.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else unshare --map-users=auto --map-groups=auto --map-root-user "$@"; fi
}

# cached NAME RECIPE... -- COMMAND...: prints a directory of the cache. If it is not there, COMMAND makes it: it is called
# with one argument more, a directory to fill. RECIPE are the files that decide on the contents. Makers wait for each
# other, and a directory has its name only when it is whole.
cached() {
    local name=$1 recipe=() path
    shift
    while [ "$1" != -- ]; do recipe+=("$1"); shift; done
    shift
    path=$cache/$name-$(cat "${recipe[@]}" | sha256sum | cut -c 1-12)
    mkdir -p "$cache"
    if [ ! -d "$path" ]; then
        (
            flock 9
            [ ! -d "$path" ] || exit 0
            # Not in mktemp's mode 0700: the maker may be root of a user namespace, with files of several users.
            made=$(mktemp -d "$cache/making.XXXXXX")
            trap 'as_root rm -rf "$made"' EXIT
            chmod 755 "$made"
            say "making $name (once; into $cache)"
            if ! "$@" "$made" >"$cache/$name.log" 2>&1; then
                tail -n 15 "$cache/$name.log" >&2
                say "$name could not be made; see $cache/$name.log"
                exit 1
            fi
            mv -T "$made" "$path"
            rm -f "$cache/$name.log"
        ) 9>"$cache/$name.lock" || return
    fi
    touch "$path"
    # What other recipes left, unless another checkout still uses it.
    find "$cache" -maxdepth 1 -type d -name "$name-*" -mtime +14 -exec rm -rf {} +
    echo "$path"
}

image() {
    cached image "$vm/image" -- "$vm/image"
}

# kernel VERSION, as in `5.10`.
kernel() {
    cached "kernel-$1" "$vm/kernel" "$vm/init" "$vm/mirror.sh" -- "$vm/kernel" "$1"
}

# The disk with what is tested and what tests it, from this checkout. The tests find bundles by the path that they were
# compiled with, so the guest mounts the checkout's part at the same path.
data_disk() {
    local disk=$checkout/target/lab/data.img stage=$checkout/target/lab/stage brig suite
    brig=${LAB_BRIG:-$(built brig build --release --bin brig)} || return
    suite=$(built integration test --no-run --test integration) || return
    rm -rf "$stage" "$disk"
    mkdir -p "$stage/bin" "$stage/checkout"
    cp -a "$checkout/bundles" "$checkout/hack" "$checkout/integration" "$stage/checkout/"
    cp "$brig" "$stage/bin/brig"
    # Its debug information is most of it, and every container gets a copy.
    strip -o "$stage/bin/integration" "$suite"
    cp -r "$vm/guest" "$stage/"
    echo "$checkout" >"$stage/path"
    chmod -R u=rwX,go=rX "$stage"
    truncate -s "$(($(du -sm "$stage" | cut -f 1) * 5 / 4 + 16))M" "$disk"
    mke2fs -q -t ext4 -O ^has_journal -E root_owner=0:0 -d "$stage" "$disk" || return
    rm -rf "$stage"
    echo "$disk"
}

# built NAME ARGUMENTS...: the program of this name that a cargo command builds, maybe beside others.
built() {
    local name=$1
    shift
    (cd "$checkout" && cargo "$@" --locked --quiet --message-format=json-render-diagnostics) |
        sed -n '/"name":"'"$name"'"/s/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1
}

# qemu's accelerator. KVM can be there and be of no use (nested, it may hang or give up on an instruction), so it has
# to boot a kernel first; what came of that is remembered until the host boots again.
accelerator() {
    local kernel=$1 verdict
    if [ -n "${LAB_ACCEL:-}" ]; then echo "$LAB_ACCEL"; return; fi
    if [ ! -w /dev/kvm ]; then echo tcg; return; fi
    verdict=$cache/accelerator-$(cat /proc/sys/kernel/random/boot_id)
    (
        flock 9
        [ ! -s "$verdict" ] || exit 0
        find "$cache" -maxdepth 1 -name 'accelerator-*' -delete
        said=$(timeout -k 2 10 qemu-system-x86_64 -accel kvm -machine q35 -cpu max -m 512 -nodefaults -no-user-config \
            -display none -no-reboot -kernel "$kernel/vmlinux" -initrd "$kernel/initrd" \
            -append "console=ttyS0 quiet panic=-1 lab.probe" -serial stdio </dev/null 2>/dev/null || true)
        if [[ $said == *"lab: it boots"* ]]; then
            echo kvm >"$verdict"
        else
            say "/dev/kvm is there but boots no kernel; going on with emulation"
            echo tcg >"$verdict"
        fi
    ) 9>"$cache/accelerator.lock"
    cat "$verdict"
}
