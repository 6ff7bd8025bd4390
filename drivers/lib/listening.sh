# until_listening PORT: waits until something accepts connections at 127.0.0.1:PORT, and fails after two minutes.
until_listening() {
  for _ in $(seq 600); do
    ss -Hltn "src 127.0.0.1:$1" | grep -q . && return 0
    sleep 0.2
  done
  echo "nothing listens at 127.0.0.1:$1" >&2
  return 1
}
