# Functions for the drivers of Sendmail.
. "$(dirname "$0")/../lib/debian.sh"

# Makes sendmail.cf; the lines of sendmail.mc that differ between the drivers come from standard input.
sendmail_configure() {
  {
    cat <<'MC'
include(`/usr/share/sendmail/cf/m4/cf.m4')dnl
OSTYPE(`debian')dnl
define(`confDOMAIN_NAME', `mail.sender.test')dnl
define(`confCACERT', `/mnt/ca.pem')dnl
define(`confCACERT_PATH', `/mnt')dnl
define(`confTLS_SRV_OPTIONS', `V')dnl
define(`confDANE', `true')dnl
define(`confTO_ICONNECT', `5s')dnl
define(`confTO_CONNECT', `5s')dnl
define(`confHOST_STATUS_DIRECTORY', `')dnl
define(`QUEUE_DIR', `/mnt/queue')dnl
define(`STATUS_FILE', `/mnt/statistics')dnl
define(`ALIAS_FILE', `/mnt/aliases')dnl
FEATURE(`accept_unresolvable_domains')dnl
FEATURE(`nocanonify')dnl
MC
    cat
    echo 'MAILER(`smtp'"')dnl"
  } >"$LAB_DIR/sendmail.mc"
  mkdir "$LAB_DIR/queue"
  : >"$LAB_DIR/aliases"
  chroot "$root" sh -c 'cd /mnt && m4 sendmail.mc >sendmail.cf && newaliases -C/mnt/sendmail.cf -oQ/mnt/queue' >&2
}

sendmail_version() { debian_version sendmail sendmail-bin; }
