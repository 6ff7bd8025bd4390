# Functions for the drivers of Postfix. POSTFIX_ROOT is the root of the system that has Postfix; by default this system.
root=${POSTFIX_ROOT:-/}
in_root() { chroot "$root" sh -c "$1"; }

# Writes the configuration into LAB_DIR and puts it in place of the system's own, in this namespace only. The lines of main.cf
# that differ between the drivers come from standard input.
postfix_configure() {
  mkdir -p "$LAB_DIR/etc" "$LAB_DIR/spool" "$LAB_DIR/lib"
  cp -a "${root%/}/etc/postfix/." "$LAB_DIR/etc"
  cp "$LAB_CA" "$LAB_DIR/spool/ca.pem"
  {
    cat <<MAIN
compatibility_level = 3.6
myhostname = mail.sender.test
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = all
maillog_file = /var/spool/postfix/mail.log
maillog_file_prefixes = /var
smtp_tls_loglevel = 1
smtp_tls_CAfile = /var/spool/postfix/ca.pem
smtp_connect_timeout = 5s
smtp_helo_timeout = 5s
smtp_starttls_timeout = 10s
default_process_limit = 100
minimal_backoff_time = 1h
queue_run_delay = 1h
MAIN
    cat
  } >"$LAB_DIR/etc/main.cf"
  # No SMTP server, no chroot.
  awk '/^smtp +inet/ { next } /^[a-z]/ && NF >= 8 { $5 = "n" } { print }' "${root%/}/etc/postfix/master.cf" >"$LAB_DIR/etc/master.cf"
  grep -q '^postlog ' "$LAB_DIR/etc/master.cf" || echo 'postlog unix-dgram n - n - 1 postlogd' >>"$LAB_DIR/etc/master.cf"
  # In this system's own root it is in place already.
  [ "$root" = / ] || mount --bind "$LAB_RESOLV_CONF" "${root%/}/etc/resolv.conf"
  mount --bind "$LAB_DIR/etc" "${root%/}/etc/postfix"
  mount --bind "$LAB_DIR/spool" "${root%/}/var/spool/postfix"
  mount --bind "$LAB_DIR/lib" "${root%/}/var/lib/postfix"
  in_root 'chown postfix /var/lib/postfix'
}

postfix_start() { in_root 'postfix start' && printf 'Postfix %s%s\n' "$(in_root 'postconf -h mail_version')" "$1"; }
