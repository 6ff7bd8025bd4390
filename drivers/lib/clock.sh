# Functions that move the clock of one program by libfaketime, whose clock is LAB_DIR/offset seconds ahead of the machine's. For a
# program with its own check of the clock, the machine has been off meanwhile: it finds another boot ID.
faketime=$(ls /usr/lib/*/faketime/libfaketime.so.1 2>/dev/null | head -n 1)
offset() { cat "$LAB_DIR/offset" 2>/dev/null || echo 0; }

# with_clock PROGRAM ARGUMENT…: becomes this program; run it in the background.
with_clock() {
  [ "$(offset)" = 0 ] || set -- env LD_PRELOAD="$faketime" FAKETIME="+$(offset)" FAKETIME_DONT_FAKE_MONOTONIC=1 "$@"
  exec "$@"
}

# move_clock SECONDS: for programs that start from now on.
move_clock() {
  [ -n "$faketime" ] || { echo 'libfaketime is not installed' >&2; exit 1; }
  # Each process that is killed leaves something there.
  [ -e "$LAB_DIR/offset" ] || mount -t tmpfs none /dev/shm
  echo $(($(offset) + $1)) >"$LAB_DIR/offset"
  cat /proc/sys/kernel/random/uuid >"$LAB_DIR/boot-$(offset)"
  mount --bind "$LAB_DIR/boot-$(offset)" /proc/sys/kernel/random/boot_id
}
