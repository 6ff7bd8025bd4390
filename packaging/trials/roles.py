"""Every role of `serve` at once on a booted system: with the socket units, and with the drop-in for ports. Each role does its work:
policies are answered and served, a report arrives by mail, a session is counted, pages and the API open, and each role is ready.
"""

import json
import socket
import subprocess
from pathlib import Path

from .debian import install
from .machine import Machine, expect, wait
from .service import CONFIG, PACKAGES, configure, expect_active, expect_answer, only, start_lab

REPOSITORY = Path(__file__).parents[2]
REPORT = REPOSITORY / "crates/sternpost/tests/reports/google.eml"
SESSION = REPOSITORY / "fuzz/corpus/datagram/0.5.1-0"
ROLES = ["admin", "answers", "collector", "dashboard", "guard", "host", "inbox", "reporter"]
TOKEN = "0123456789abcdef0123456789abcdef"
HOST = "mta-sts.good-enforce.test"
TLSRPT = "var/spool/postfix/run/tlsrpt"
# The certificate's files, which only root can read, come from the service manager.
CREDENTIALS = {"fullchain.pem": "etc/letsencrypt/chain.pem", "privkey.pem": "etc/letsencrypt/key.pem", "admin.token": "root/admin.token"}

SECTIONS = """
[host]
listen = [{policy}]
http = [{http}]
name = "mail.example.org"

[[host.certificates]]
certificate = "$CREDENTIALS_DIRECTORY/fullchain.pem"
key = "$CREDENTIALS_DIRECTORY/privkey.pem"

[inbox]
addresses = ["tlsrpt@example.org"]
name = "mail.example.org"
smtp = [{smtp}]
certificate = "$CREDENTIALS_DIRECTORY/fullchain.pem"
key = "$CREDENTIALS_DIRECTORY/privkey.pem"

[collector]
socket = {tlsrpt}

[reporter]
organization = "Example"
contact = "mailto:postmaster@example.org"
from = "tlsrpt@example.org"
dkim = {{ selector = "tlsrpt", key_file = "/etc/sternpost/dkim.pem" }}

[dashboard]
listen = ["127.0.0.1:8460"]
url = "http://localhost:8460"

[admin]
listen = "127.0.0.1:8464"
token_file = "$CREDENTIALS_DIRECTORY/admin.token"

[guard]

[metrics]
listen = "127.0.0.1:8463"

[[domain]]
name = "good-enforce.test"
host = "self"
mx = ["mx1.good-enforce.test"]
"""

# Uses each role that has a port, as its clients do, and prints what it got. Arguments: the token of the API, a file with a report.
USE = """
import http.client, json, smtplib, ssl, sys
token, message = sys.argv[1], open(sys.argv[2], "rb").read()
message = b"\\r\\n".join(message.splitlines()) + b"\\r\\n"
any_certificate = ssl.create_default_context()
any_certificate.check_hostname, any_certificate.verify_mode = False, ssl.CERT_NONE

def get(address, port, path, host="localhost", tls=False, **headers):
    connection = http.client.HTTPConnection(address, port, timeout=60)
    if tls:
        connection.connect()
        connection.sock = any_certificate.wrap_socket(connection.sock, server_hostname=host)
    connection.request("GET", path, headers={"Host": host, **headers})
    response = connection.getresponse()
    return [response.status, response.read().decode()]

def report(address):
    with smtplib.SMTP(address, 25, timeout=60) as session:
        session.starttls(context=any_certificate)
        return sorted(session.sendmail("reports@example.net", ["tlsrpt@example.org"], message))

both = ["127.0.0.1", "::1"]
print(json.dumps({
    "policy": [get(one, 443, "/.well-known/mta-sts.txt", "mta-sts.good-enforce.test", True) for one in both],
    "http": [get(one, 80, "/.well-known/acme-challenge/none") for one in both],
    "refused": [report(one) for one in both],
    "dashboard": get("127.0.0.1", 8460, "/sign-in", "localhost:8460"),
    "stranger": get("127.0.0.1", 8464, "/v1/domains"),
    "admin": get("127.0.0.1", 8464, "/v1/domains", Authorization="Bearer " + token),
}))
"""

# Prints what the metrics server says at a path.
METRICS = """
import sys, urllib.request
print(urllib.request.urlopen("http://127.0.0.1:8463" + sys.argv[1], timeout=60).read().decode())
"""


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def prepare(machine):
    """What the machine of an operator has beside Sternpost: Postfix's folder for sessions, certbot's files, a token, a DKIM key."""
    machine.run("groupadd", "postfix")
    machine.run("install", "-d", "-g", "postfix", "-m", "2770", f"/{TLSRPT}")
    machine.run("install", "-d", "-m", "700", "/etc/letsencrypt")
    chain, key = (machine.root / CREDENTIALS[name] for name in ("fullchain.pem", "privkey.pem"))
    names = f"subjectAltName=DNS:{HOST},DNS:mail.example.org"
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]
    run(*new, "-subj", "/CN=trial", "-addext", names, "-keyout", key, "-out", chain)
    (machine.root / CREDENTIALS["admin.token"]).write_text(TOKEN)
    dkim = machine.root / "etc/sternpost/dkim.pem"
    run("openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", dkim)
    for path in CREDENTIALS.values():
        machine.run("chmod", "600", f"/{path}")
    machine.run("chgrp", "sternpost", "/etc/sternpost/dkim.pem")
    machine.run("chmod", "640", "/etc/sternpost/dkim.pem")


def drop_in(machine, name, lines):
    folder = machine.root / "etc/systemd/system/sternpost.service.d"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.conf").write_text("\n".join(["[Service]", *lines, ""]))


def session(machine):
    """A session as Postfix hands it over. The socket is in the machine's file system, which is seen from here."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.connect(str(machine.root / TLSRPT / "tlsrpt.sock"))
        client.send(SESSION.read_bytes())


def metric(machine, name):
    lines = machine.python(METRICS, "/metrics").splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name) and line[len(name)] in " {")


def expect_uses(found):
    """What the clients of the roles got."""
    for status, policy in found["policy"]:
        expect(status == 200 and "mode: " in policy and "mx: mx1.good-enforce.test" in policy, f"the policy host: {status} {policy}")
    expect([status for status, _ in found["http"]] == [404, 404], f"the ACME challenges: {found['http']}")
    expect(found["refused"] == [[], []], f"the report was refused for {found['refused']}")
    expect(found["dashboard"][0] == 200, f"the dashboard: {found['dashboard']}")
    expect(found["stranger"][0] == 401, f"the API without a token: {found['stranger']}")
    status, domains = found["admin"]
    expect(status == 200 and "good-enforce.test" in domains, f"the API: {status} {domains}")


def expect_roles(machine):
    """Each role is ready and does its work; the service has no capability beyond `capabilities`."""
    expect_active(machine)
    expect_answer(machine)
    # The policy is served by a step of the plan, which the name servers of the lab do not go on with.
    machine.run("sternpost", "apply", "--patience", "0", check=False)
    counted = metric(machine, "sternpost_sessions_stored_total")
    session(machine)
    expect_uses(json.loads(machine.python(USE, TOKEN, str(REPORT))))
    wait("the session is counted", lambda: metric(machine, "sternpost_sessions_stored_total") > counted)
    listed = machine.run("sternpost", "reports", "list")
    expect("google.com" in listed, f"the report is not listed:\n{listed}")
    ready = [role for role in ROLES if f'sternpost_role_ready{{role="{role}"}} 1' in machine.python(METRICS, "/metrics")]
    expect(ready == ROLES, f"ready are {ready}:\n{machine.python(METRICS, '/readyz?format=json')}")
    owners = set(machine.run("find", "/var/lib/sternpost", "-printf", "%u:%g\n").split())
    expect(owners == {"sternpost:sternpost"}, f"owners: {owners}")


def sections(lab, sockets):
    def at(port, unit):
        return f'"systemd:{unit}"' if sockets else f'"[::]:{port}", "0.0.0.0:{port}"'

    tlsrpt = '"systemd:tlsrpt"' if sockets else f'"/{TLSRPT}/tlsrpt.sock"'
    lab = lab.replace('"127.0.0.1:8461"', '"systemd:answers"') if sockets else lab
    return lab + SECTIONS.format(policy=at(443, "policy"), http=at(80, "http"), smtp=at(25, "smtp"), tlsrpt=tlsrpt)


def capabilities(machine):
    process = machine.run("systemctl", "show", "--property=MainPID", "--value", "sternpost.service").strip()
    status = dict(line.split(":", 1) for line in machine.run("cat", f"/proc/{process}/status").splitlines())
    return int(status["CapEff"], 16)


def every_role():
    units = [f"sternpost-{role}.socket" for role in ("answers", "policy", "http", "smtp", "tlsrpt")]
    with Machine("trixie") as machine:
        machine.copy(only(PACKAGES, "*.deb"), "root/new.deb")
        install(machine, "new")
        prepare(machine)
        drop_in(machine, "credentials", [f"LoadCredential={name}:/{path}" for name, path in CREDENTIALS.items()])
        lab = start_lab(machine)
        machine.run("systemctl", "daemon-reload")
        # By socket units: the service needs no capability.
        machine.run("systemctl", "stop", "sternpost.service")
        (machine.root / CONFIG).write_text(sections(lab, sockets=True))
        machine.run("systemctl", "enable", "--now", *units)
        machine.run("systemctl", "start", "sternpost.service")
        expect_roles(machine)
        expect(capabilities(machine) == 0, "the service has capabilities")
        # The sockets stay while it restarts, and all roles come back.
        machine.run("systemctl", "restart", "sternpost.service")
        expect_roles(machine)
        # By the drop-in: one capability, and the group of the folder for sessions.
        machine.run("systemctl", "disable", "--now", *units, "sternpost.service")
        machine.run("cp", "/usr/share/doc/sternpost/examples/ports.conf", "/etc/systemd/system/sternpost.service.d/ports.conf")
        drop_in(machine, "reports", ["SupplementaryGroups=postfix"])
        machine.run("systemctl", "enable", "sternpost.service")
        configure(machine, sections(lab, sockets=False))
        expect_roles(machine)
        expect(capabilities(machine) == 1 << 10, "the service has other capabilities than CAP_NET_BIND_SERVICE")


TRIALS = [("every role, with socket units and with the drop-in for ports", every_role)]
