# Functions for the driver of Postfix with Sternpost; lib/postfix.sh is loaded already.
. "$(dirname "$0")/../lib/sternpost.sh"
case $(in_root 'postconf -h mail_version') in
  3.[4-9] | 3.[4-9][.-]*) map=postfix ;;
  *) map=QUERYwithTLSRPT ;;
esac
# Postfix exports its sessions from 3.10 on.
has_reports() { [ "$map" != postfix ]; }

sternpost_ready() {
  for _ in $(seq 100); do
    in_root 'postmap -q sternpost.invalid socketmap:inet:127.0.0.1:8461:postfix' >/dev/null 2>&1 && break
    sleep 0.1
  done
}
