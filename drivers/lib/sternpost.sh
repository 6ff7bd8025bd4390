# Functions for the drivers with Sternpost, whose configuration is LAB_DIR/sternpost.toml. The driver defines `sternpost_ready`, which
# waits until Sternpost answers.
. "$(dirname "$0")/../lib/clock.sh"
. "$(dirname "$0")/../lib/listening.sh"

# The sections that all configurations begin with.
sternpost_world() {
  cat <<TOML
[dns]
servers = ["127.0.0.1:53"]
trust_anchor = "$LAB_TRUST_ANCHOR"
[trust]
ca_file = "$LAB_CA"
TOML
}

sternpost_start() {
  # A socket of an earlier start would look ready. A driver may set this variable.
  [ -z "${sternpost_socket:-}" ] || rm -f "$sternpost_socket"
  with_clock "$STERNPOST" --config "$LAB_DIR/sternpost.toml" serve >>"$LAB_DIR/sternpost.log" 2>&1 </dev/null &
  echo $! >"$LAB_DIR/sternpost.pid"
  sternpost_ready
}

sternpost_stop() {
  kill "$(cat "$LAB_DIR/sternpost.pid")"
  for _ in $(seq 100); do kill -0 "$(cat "$LAB_DIR/sternpost.pid")" 2>/dev/null || break; sleep 0.1; done
}

# sternpost_later SECONDS: the machine was off for so long.
sternpost_later() {
  [ -n "$faketime" ] || { echo 'libfaketime is not installed, so that the clock of Sternpost stays' >&2; exit 1; }
  sternpost_stop
  move_clock "$1"
  sternpost_start
}

# When Sternpost has last probed the policies in testing, and when it has last sent reports.
last_round() { curl -sS http://127.0.0.1:8463/metrics | awk -v name="sternpost_$1_last_round_timestamp_seconds" '$1 == name { print $2 }'; }

# until_round NAME NUMBER: waits for so many rounds from now on.
until_round() {
  for _ in $(seq "$2"); do
    before=$(last_round "$1")
    for _ in $(seq 300); do [ "$(last_round "$1")" = "$before" ] || break; sleep 0.1; done
  done
}

# Sternpost sends its reports from 00:05 to 04:00 UTC: it goes on at five o'clock of the next day, when all are due.
sternpost_next_day() {
  # A round that has begun may not have the last sessions yet.
  until_round testing 2
  now=$(($(date +%s) + $(offset)))
  sternpost_later $((86400 - now % 86400 + 5 * 3600))
}
