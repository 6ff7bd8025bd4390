"""The internet of a trial's machine: a signed root zone with example.org, gmail.com and Let's Encrypt in it, served by Knot; the
policy host of gmail.com, its mail server, and a CA (Pebble behind nginx). All of it are programs of this machine in a network
namespace, which a pair of virtual interfaces connects with the trial's machine. Nothing of Sternpost is in it.
"""

import os
import shutil
import ssl
import subprocess
import tempfile
from pathlib import Path

from .machine import ROOTS, expect, wait

# The trial's machine and its router; public addresses, as a mail server has them.
MACHINE, ROUTER = "11.88.0.2", "11.88.0.1"
NAMES, SITE, MX, AUTHORITY = "11.77.0.1", "11.77.0.5", "11.77.0.6", "11.77.0.9"
ACME = "acme-v02.api.letsencrypt.org"

# Both zones are signed. The TTLs are short, and so is the time for which a resolver remembers that a name does not exist.
ROOT_ZONE = f"""$ORIGIN .
$TTL 5
. SOA ns.root. admin.root. 1 60 60 86400 1
. NS ns.root.
ns.root. A {NAMES}
example.org. NS ns1.example.org.
ns1.example.org. A {NAMES}
gmail.com. MX 5 mx.gmail.com.
mx.gmail.com. A {MX}
_mta-sts.gmail.com. TXT "v=STSv1; id=20260101000000;"
mta-sts.gmail.com. A {SITE}
{ACME}. A {AUTHORITY}
"""
OWN_ZONE = f"""$ORIGIN example.org.
$TTL 5
@ SOA ns1.example.org. admin.example.org. 1 60 60 86400 1
@ NS ns1.example.org.
ns1 A {NAMES}
@ MX 10 mail.example.org.
mail A {MACHINE}
"""
POLICY = "version: STSv1\r\nmode: enforce\r\nmx: mx.gmail.com\r\nmax_age: 604800\r\n"

# Takes mail over TLS, and prints to whom it was. Its arguments: address, certificate, key.
MAIL_SERVER = """
import socketserver, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2], sys.argv[3])
class Session(socketserver.BaseRequestHandler):
    def handle(self):
        stream = self.request.makefile("rwb")
        say = lambda text: (stream.write(text + b"\\r\\n"), stream.flush())
        say(b"220 mx.gmail.com")
        encrypted = False
        while line := stream.readline():
            word = line[:4].upper()
            if word == b"EHLO":
                say(b"250 mx.gmail.com" if encrypted else b"250-mx.gmail.com\\r\\n250 STARTTLS")
            elif word == b"STAR":
                say(b"220 go")
                stream = context.wrap_socket(self.request, server_side=True).makefile("rwb")
                encrypted = True
            elif word == b"DATA":
                say(b"354 go")
                while stream.readline() not in (b".\\r\\n", b""): pass
                say(b"250 taken")
            elif word == b"QUIT":
                return say(b"221 bye")
            else:
                if word == b"RCPT": print(encrypted, line.decode().strip(), flush=True)
                say(b"250 ok")
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer((sys.argv[1], 25), Session).serve_forever()
"""


def run(*command, **options):
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    expect(done.returncode == 0, f"{' '.join(map(str, command))} failed:\n{done.stdout}")
    return done.stdout


class Internet:
    """Connects a booted machine with an internet of its own, as a context manager."""

    def __init__(self, machine):
        self.machine = machine
        self.place = Path(tempfile.mkdtemp(prefix="package-internet-", dir=ROOTS))
        self.name = self.place.name[-15:]
        self.running = []

    def __enter__(self):
        try:
            self._connect()
            self._authority_of_certificates()
            self._names()
            self._hosts()
            self._settle()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in self.running:
            process.terminate()
            process.wait()
        subprocess.run(["ip", "netns", "delete", self.name], check=False)
        shutil.rmtree(self.place)

    def start(self, name, *command, **variables):
        """Starts a program in the internet; what it prints goes to a file of that name."""
        log = open(self.place / f"{name}.log", "wb")
        command = ["ip", "netns", "exec", self.name, *map(str, command)]
        self.running.append(subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | variables))

    def log(self, name):
        return (self.place / f"{name}.log").read_text(errors="replace")

    def _connect(self):
        run("ip", "netns", "add", self.name)
        pair = ["type", "veth", "peer", "name", "world0", "netns", self.machine.leader]
        run("ip", "-n", self.name, "link", "add", "world0", *pair)
        run("ip", "-n", self.name, "link", "set", "lo", "up")
        for address in (NAMES, SITE, MX, AUTHORITY):
            run("ip", "-n", self.name, "address", "add", f"{address}/32", "dev", "lo")
        run("ip", "-n", self.name, "address", "add", f"{ROUTER}/24", "dev", "world0")
        run("ip", "-n", self.name, "link", "set", "world0", "up")
        self.machine.run("ip", "address", "add", f"{MACHINE}/24", "dev", "world0")
        self.machine.run("ip", "link", "set", "world0", "up")
        self.machine.run("ip", "route", "add", "default", "via", ROUTER)

    def _authority_of_certificates(self):
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        root = ["-x509", "-days", "30", "-subj", "/CN=Root of the trial", "-keyout", self.place / "root.key"]
        run("openssl", "req", *curve, *root, "-out", self.place / "root.pem", "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    def certificate(self, host):
        """A certificate for the host by the root, with the key: the names of two files."""
        chain, key = self.place / f"{host}.pem", self.place / f"{host}.key"
        request = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={host}", "-days", "20"]
        signed = ["-x509", "-CA", self.place / "root.pem", "-CAkey", self.place / "root.key"]
        names = ["-addext", f"subjectAltName=DNS:{host}", "-addext", "basicConstraints=critical,CA:FALSE"]
        names += ["-addext", "extendedKeyUsage=serverAuth"]
        run("openssl", "req", *request, *signed, *names, "-keyout", key, "-out", chain)
        return chain, key

    def keymgr(self, *words):
        return run("keymgr", "-c", self.place / "knot.conf", *words)

    def _names(self):
        for folder in ("keys", "zones", "run"):
            (self.place / folder).mkdir()
        text = f"""
server:
  listen: {NAMES}@53
  rundir: {self.place}/run
database:
  storage: {self.place}/keys
policy:
  - id: manual
    manual: on
    single-type-signing: on
    algorithm: ecdsap256sha256
template:
  - id: default
    storage: {self.place}/zones
    zonefile-load: difference-no-serial
    zonefile-sync: -1
    journal-content: all
    dnssec-signing: on
    dnssec-policy: manual
zone:
  - domain: .
    file: root
  - domain: example.org.
    file: own
"""
        (self.place / "knot.conf").write_text(text)
        zones = {".": ROOT_ZONE, "example.org.": OWN_ZONE}
        for zone in zones:
            self.keymgr(zone, "generate", "algorithm=ECDSAP256SHA256", "ksk=yes", "zsk=yes")
        ds = [line for line in self.keymgr("example.org.", "ds").splitlines() if " 13 2 " in line]
        (self.place / "zones/root").write_text(ROOT_ZONE + "\n".join(ds) + "\n")
        (self.place / "zones/own").write_text(OWN_ZONE)
        self.start("knot", "knotd", "-c", self.place / "knot.conf")
        wait("Knot answers", lambda: "status: NOERROR" in self.dig("mail.example.org", "A"))

    def dig(self, *question):
        command = ["ip", "netns", "exec", self.name, "dig", f"@{NAMES}", "+time=2", "+tries=1", *question]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout

    def publish(self, record):
        """Publishes a record of example.org as its owner does, such as `NAME IN TXT "…"`; one of the same name and type goes."""
        name, kind, data = record.replace(" IN ", " ", 1).split(" ", 2)
        knotc = ["knotc", "--blocking", "-c", self.place / "knot.conf", "-s", self.place / "run/knot.sock"]
        run(*knotc, "zone-begin", "example.org.")
        subprocess.run(list(map(str, [*knotc, "zone-unset", "example.org.", name, kind])), capture_output=True)
        run(*knotc, "zone-set", "example.org.", name, "5", kind, data)
        run(*knotc, "zone-commit", "example.org.")

    def _hosts(self):
        policy = self.place / "sites/mta-sts.gmail.com/.well-known"
        policy.mkdir(parents=True)
        (policy / "mta-sts.txt").write_text(POLICY, newline="")
        for path in (self.place, self.place / "sites"):
            path.chmod(0o755)
        site, acme = self.certificate("mta-sts.gmail.com"), self.certificate(ACME)
        folders = "".join(f"{kind}_temp_path {self.place}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        text = f"""
user root;
daemon off;
master_process off;
pid {self.place}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off; {folders}
    server {{
        listen {SITE}:443 ssl;
        ssl_certificate {site[0]}; ssl_certificate_key {site[1]};
        root {self.place}/sites/mta-sts.gmail.com;
        default_type text/plain;
    }}
    server {{
        listen {AUTHORITY}:443 ssl;
        ssl_certificate {acme[0]}; ssl_certificate_key {acme[1]};
        proxy_set_header Host $host;
        location = /directory {{ proxy_pass https://127.0.0.1:14000/dir; }}
        location / {{ proxy_pass https://127.0.0.1:14000; }}
    }}
}}
"""
        (self.place / "nginx.conf").write_text(text)
        self.start("nginx", "nginx", "-c", self.place / "nginx.conf")
        mail = self.certificate("mx.gmail.com")
        self.start("mail", shutil.which("python3"), "-c", MAIL_SERVER, MX, *mail)
        own = self.certificate("localhost")
        (self.place / "pebble.json").write_text(
            f'{{"pebble": {{"listenAddress": "127.0.0.1:14000", "managementListenAddress": "127.0.0.1:15000", '
            f'"certificate": "{own[0]}", "privateKey": "{own[1]}", "httpPort": 80, "tlsPort": 443}}}}'
        )
        pebble = [ROOTS / "pebble/usr/bin/pebble", "-config", self.place / "pebble.json", "-dnsserver", f"{NAMES}:53"]
        self.start("pebble", *pebble, PEBBLE_VA_NOSLEEP="1", PEBBLE_WFE_NONCEREJECT="0")
        fetch = ["ip", "netns", "exec", self.name, "curl", "-skf", "https://127.0.0.1:15000/roots/0", "-o"]
        issued = self.place / "issued.pem"
        wait("Pebble answers", lambda: subprocess.run([*fetch, str(issued)]).returncode == 0)
        ssl.create_default_context(cadata=issued.read_text())

    def _settle(self):
        """The machine of an operator: a validating resolver, the roots of this internet, a name, a user who may use sudo."""
        machine = self.machine
        trusted = machine.root / "usr/local/share/ca-certificates"
        for file in ("root", "issued"):
            shutil.copy(self.place / f"{file}.pem", trusted / f"trial-{file}.crt")
        machine.run("update-ca-certificates")
        ds = next(line for line in self.keymgr(".", "ds").splitlines() if " 13 2 " in line)
        (machine.root / "etc/unbound/root.ds").write_text(f"{ds}\n")
        (machine.root / "etc/root.key").write_text(self.keymgr(".", "dnskey").replace(" DNSKEY", " 300 IN DNSKEY", 1))
        for file in (machine.root / "etc/unbound/unbound.conf.d").iterdir():
            file.unlink()
        text = f"""
server:
  trust-anchor-file: "/etc/unbound/root.ds"
  cache-max-negative-ttl: 1
stub-zone:
  name: "."
  stub-addr: {NAMES}
  stub-prime: no
"""
        (machine.root / "etc/unbound/unbound.conf.d/internet.conf").write_text(text)
        machine.run("systemctl", "restart", "unbound.service")
        # The real root zone has another key: everything on this machine is told, services as well as people.
        variable = "STERNPOST_DNS_TRUST_ANCHOR=/etc/root.key"
        settings = machine.root / "etc/systemd/system.conf.d"
        settings.mkdir(parents=True)
        (settings / "internet.conf").write_text(f"[Manager]\nDefaultEnvironment={variable}\n")
        (machine.root / "etc/environment").write_text(f"{variable}\n")
        machine.run("systemctl", "daemon-reexec")
        machine.run("hostname", "mail.example.org")
        (machine.root / "etc/hosts").write_text(f"127.0.0.1 localhost\n{MACHINE} mail.example.org mail\n")
        machine.run("useradd", "--create-home", "admin")
        rules = machine.root / "etc/sudoers.d/admin"
        rules.write_text('Defaults env_keep += "STERNPOST_DNS_TRUST_ANCHOR"\nadmin ALL=(ALL) NOPASSWD: ALL\n')
        rules.chmod(0o440)
