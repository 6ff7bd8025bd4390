# Functions for the drivers with postfix-mta-sts-resolver. MTA_STS_RESOLVER is the folder of its Python environment.
. "$(dirname "$0")/../lib/debian.sh"
. "$(dirname "$0")/../lib/listening.sh"
. "$(dirname "$0")/../lib/clock.sh"
resolver=${MTA_STS_RESOLVER:-$roots/mta-sts-resolver}

resolver_install() {
  [ ! -x "$resolver/bin/mta-sts-daemon" ] || return 0
  python3 -m venv "$resolver"
  "$resolver/bin/pip" install --quiet --disable-pip-version-check 'postfix-mta-sts-resolver[sqlite]==1.5.1' aiodns==4.0.4 \
    aiohttp==3.14.5 aiosqlite==0.22.1 pycares==5.2.1 PyYAML==6.0.4
}

# resolver_start PORT: starts mta-sts-daemon with a cache in a file.
resolver_start() {
  cat >"$LAB_DIR/resolver.yml" <<YML
host: 127.0.0.1
port: $1
cache_grace: 0
cache:
  type: sqlite
  options:
    filename: "$LAB_DIR/policies.db"
default_zone:
  strict_testing: false
  timeout: 4
YML
  # Its HTTPS client takes the CA from this variable.
  SSL_CERT_FILE=$LAB_CA with_clock "$resolver/bin/mta-sts-daemon" -c "$LAB_DIR/resolver.yml" >>"$LAB_DIR/resolver.log" 2>&1 </dev/null &
  echo $! >"$LAB_DIR/resolver.pid"
  until_listening "$1"
}

resolver_stop() {
  kill "$(cat "$LAB_DIR/resolver.pid")"
  for _ in $(seq 100); do kill -0 "$(cat "$LAB_DIR/resolver.pid")" 2>/dev/null || break; sleep 0.1; done
}

# resolver_later SECONDS PORT: the machine was off for so long.
resolver_later() {
  resolver_stop
  move_clock "$1"
  resolver_start "$2"
}

resolver_version() { "$resolver/bin/pip" show postfix-mta-sts-resolver | awk '$1 == "Version:" { print $2 }'; }
