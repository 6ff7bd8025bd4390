# Functions for the drivers of Exim. EXIM_ROOT is the root of the system that has Exim; by default this system.
root=${EXIM_ROOT:-/}
in_root() { chroot "$root" sh -c "$1"; }

# Puts the configuration from standard input in place of the system's own, in this namespace only.
exim_configure() {
  mkdir -p "$LAB_DIR/etc" "$LAB_DIR/spool"
  cat >"$LAB_DIR/etc/exim4.conf"
  cp "$LAB_CA" "$LAB_DIR/spool/ca.pem"
  # In this system's own root it is in place already.
  [ "$root" = / ] || mount --bind "$LAB_RESOLV_CONF" "${root%/}/etc/resolv.conf"
  mount --bind "$LAB_DIR/etc" "${root%/}/etc/exim4"
  mount --bind "$LAB_DIR/spool" "${root%/}/var/spool/exim4"
  in_root 'chown Debian-exim /var/spool/exim4'
}

# The part of the configuration before the ACLs, routers and transports.
exim_main() {
  cat <<MAIN
primary_hostname = mail.sender.test
domainlist local_domains =
host_lookup =
never_users =
dns_dnssec_ok = 1
log_file_path = /var/spool/exim4/log-%s
trusted_users = root
MAIN
}

exim_version() { in_root 'exim4 -bV' | awk 'NR == 1 { print $3 }'; }
