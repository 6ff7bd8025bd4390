# Functions for drivers whose mail server comes from a Debian release other than this system's: debootstrap unpacks it once into
# a folder with a system of its own. STERNPOST_TEST_ROOTS is the folder of these systems.
roots=${STERNPOST_TEST_ROOTS:-/var/tmp/sternpost-test}

# unpack_debian NAME RELEASE PACKAGES PROGRAM: makes $roots/NAME with these packages (separated by commas), unless PROGRAM is there.
# The release itself is unpacked once, into $roots/debian-RELEASE.
unpack_debian() {
  [ ! -x "$roots/$1/$4" ] || return 0
  mkdir -p "$roots"
  {
    [ -d "$roots/debian-$2" ] || unpack_release "$2"
    rm -rf "$roots/$1.new" "$roots/$1"
    cp -a --reflink=auto "$roots/debian-$2" "$roots/$1.new" &&
      # By apt, since debootstrap itself can't order the packages of every release; /proc is mounted for this command only.
      DEBIAN_FRONTEND=noninteractive unshare --mount sh -c 'root=$0; mount -t proc proc "$root/proc" && chroot "$root" apt-get install -q -y --no-install-recommends "$@"' \
        "$roots/$1.new" $(printf %s "$3" | tr , ' ')
  } >"$roots/$1.log" 2>&1 </dev/null || { tail -20 "$roots/$1.log" >&2; exit 1; }
  mv "$roots/$1.new" "$roots/$1"
}

# The archive that DEBIAN_MIRROR names, or the first one that this machine's own packages come from, if it is a Debian system: other
# systems have no Debian releases in their archives.
debian_mirror() {
  [ -z "${DEBIAN_MIRROR:-}" ] || { echo "$DEBIAN_MIRROR"; return; }
  ! grep -qx 'ID=debian' "${OS_RELEASE:-/etc/os-release}" 2>/dev/null ||
    { cat "${APT_SOURCES:-/etc/apt}"/sources.list "${APT_SOURCES:-/etc/apt}"/sources.list.d/* 2>/dev/null || true; } |
    awk '/^(URIs:|deb )/ && !found && match($0, /(https?|file):[^ ]+/) { found = substr($0, RSTART, RLENGTH) } END { print found }'
}

unpack_release() {
  mirror=$(debian_mirror)
  [ -n "$mirror" ] || {
    echo "debootstrap needs a Debian archive, and this system's packages come from none: set DEBIAN_MIRROR to the URL of one," \
      'and install debian-archive-keyring, by whose keys debootstrap verifies it'
    return 1
  }
  base=$roots/debian-$1
  rm -rf "$base.new"
  debootstrap --variant=minbase "$1" "$base.new" "$mirror" || return 1
  # No service is to start.
  printf '#!/bin/sh\nexit 101\n' >"$base.new/usr/sbin/policy-rc.d"
  chmod +x "$base.new/usr/sbin/policy-rc.d"
  mv "$base.new" "$base"
}

# enter_root NAME: sets `root`, and mounts into it what a mail server needs: LAB_DIR at /mnt, the lab's resolver and CA, /run, /proc.
# The mounts exist in the namespace only; a second `start` finds them in place.
enter_root() {
  root=$roots/$1
  [ ! -e "$root/mnt/ca.pem" ] || return 0
  cp "$LAB_CA" "$LAB_DIR/ca.pem"
  mount --bind "$LAB_DIR" "$root/mnt"
  mount --bind "$LAB_RESOLV_CONF" "$root/etc/resolv.conf"
  mkdir -p "$root/etc/ssl/certs"
  [ -e "$root/etc/ssl/certs/ca-certificates.crt" ] || : >"$root/etc/ssl/certs/ca-certificates.crt"
  mount --bind "$LAB_CA" "$root/etc/ssl/certs/ca-certificates.crt"
  mount -t tmpfs tmpfs "$root/run"
  mount -t proc proc "$root/proc"
}

# debian_version NAME PACKAGE: the version without Debian's revision.
debian_version() { chroot "$roots/$1" dpkg-query -f '${Version}' -W "$2" | sed 's/^[0-9]*://; s/-[^-]*$//'; }
