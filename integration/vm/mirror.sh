# Sourced: Debian's package mirror as this host is set up to use it, without a change to the host's own configuration.

keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# Where the host's own apt finds Debian, else where everybody does.
debian_mirror() {
    local found
    found=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -m 1 -E '/debian/?$' || true)
    echo "${LAB_MIRROR:-${found:-http://deb.debian.org/debian}}"
}

security_mirror() {
    local found
    found=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -m 1 -E '/debian-security/?$' || true)
    echo "${LAB_SECURITY_MIRROR:-${found:-http://deb.debian.org/debian-security}}"
}

# sources SUITE...: apt sources for these suites.
sources() {
    local suite mirror
    for suite; do
        case $suite in *-security) mirror=$(security_mirror) ;; *) mirror=$(debian_mirror) ;; esac
        echo "deb [arch=amd64 signed-by=$keyring] $mirror $suite main"
    done
}
