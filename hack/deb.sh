#!/bin/bash
# Builds target/brig_VERSION_ARCH.deb from what `make install` puts in place. Needs dpkg-deb and nothing else of Debian's
# packaging tools; prints the package's path.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v dpkg-deb >/dev/null; then
    echo "deb: there is no dpkg-deb here; install the package dpkg" >&2
    exit 1
fi
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
architecture=$(dpkg --print-architecture)
# Of the last commit, so that one commit makes one package.
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH=$epoch
maintainer=${DEB_MAINTAINER:-"brig maintainers <maintainers@brig.invalid>"}

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
chmod 0755 "$stage"
umask 022
${MAKE:-make} --no-print-directory install PREFIX=/usr DESTDIR="$stage" >&2
# Where Debian's zsh looks.
mv "$stage/usr/share/zsh/site-functions" "$stage/usr/share/zsh/vendor-completions"
gzip -9n "$stage"/usr/share/man/man1/*.1

doc=$stage/usr/share/doc/brig
mkdir -p "$doc" "$stage/DEBIAN"
cat >"$doc/copyright" <<EOF
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: brig

Files: *
Copyright: $(date -u -d "@$epoch" +%Y) The brig authors
License: Apache-2.0
 On Debian systems, the full text of the Apache License, Version 2.0, is in
 /usr/share/common-licenses/Apache-2.0.
Comment:
 The program has libseccomp linked in (LGPL-2.1, on Debian systems in
 /usr/share/common-licenses/LGPL-2.1), the C library, and Rust crates under
 the MIT and Apache-2.0 licenses, which Cargo.lock of its source names.
EOF
gzip -9nc >"$doc/changelog.gz" <<EOF
brig ($version) unstable; urgency=medium

  * Version $version; CHANGELOG.md of the source has the changes.

 -- $maintainer  $(date -u -R -d "@$epoch")
EOF

# One static binary is the point: it is also bound into containers, where there is no library.
mkdir -p "$stage/usr/share/lintian/overrides"
echo 'brig: statically-linked-binary [usr/bin/brig]' >"$stage/usr/share/lintian/overrides/brig"

size=$(du -k --apparent-size -s --exclude=DEBIAN "$stage" | cut -f 1)
cat >"$stage/DEBIAN/control" <<EOF
Package: brig
Version: $version
Architecture: $architecture
Maintainer: $maintainer
Installed-Size: $size
Section: admin
Priority: optional
Recommends: uidmap
Suggests: criu, podman
Description: OCI container runtime
 brig creates and runs containers as the runtime specification of the Open
 Container Initiative has it. Engines such as podman and containerd call it in
 the place of runc or crun; it tells what it is going to do, and says in plain
 words what went wrong.
EOF
(cd "$stage" && find usr -type f -printf '%P\0' | LC_ALL=C sort -z | sed -z 's,^,usr/,' | xargs -0 md5sum) >"$stage/DEBIAN/md5sums"
find "$stage" -newermt "@$epoch" -exec touch -h -d "@$epoch" {} +

package=target/brig_${version}_$architecture.deb
dpkg-deb --root-owner-group -Zxz --build "$stage" "$package" >/dev/null
echo "$package"
