# Functions for the driver of Exim with Sternpost, which answers at a socket in Exim's spool.
. "$(dirname "$0")/../lib/sternpost.sh"
sternpost_socket=$LAB_DIR/spool/lines.sock
sternpost_ready() { for _ in $(seq 100); do [ -S "$sternpost_socket" ] && break; sleep 0.1; done; }
