"""What the trials of all packages ask of a machine on which Sternpost is installed."""

import contextlib
import sqlite3
from pathlib import Path

from .machine import expect, wait

PACKAGES = Path(__file__).parents[2] / "target/packages"
BEFORE = Path(__file__).parents[2] / "target/packages-before"
SOCKETS = ["answers", "policy", "http", "smtp", "tlsrpt"]
CONFIG = "etc/sternpost/sternpost.toml"
STORE = "var/lib/sternpost/sternpost.db"
# A domain of the lab that enforces, and the answer about it.
DOMAIN, ANSWER = "good-enforce.test", "secure match=mx1.good-enforce.test"

# Asks as Postfix does, by a netstring (socketmap_table(5)).
ASK = """
import socket, sys
with socket.create_connection(("127.0.0.1", 8461), 60) as connection:
    question = ("postfix " + sys.argv[1]).encode()
    connection.sendall(b"%d:%s," % (len(question), question))
    print(connection.recv(4096).decode())
"""


def only(folder, pattern):
    """The only file of that name."""
    found = sorted(folder.glob(pattern))
    expect(len(found) == 1, f"{folder}/{pattern}: {len(found)} files")
    return found[0]


def start_lab(machine):
    """Runs the lab in the machine, with this release's program. Returns the configuration that uses it."""
    machine.run("mkdir", "-p", "/opt/lab")
    machine.copy(PACKAGES / "stage/sternpost", "opt/lab/sternpost")
    machine.run("systemd-run", "--quiet", "--unit=lab", "/opt/lab/sternpost", "lab", "serve", "--dir=/opt/lab/files")
    made = machine.root / "opt/lab/files/sternpost.toml"
    wait("the lab runs", made.exists)
    machine.run("chmod", "-R", "a+rX", "/opt/lab")
    text = made.read_text().replace('"root.key"', '"/opt/lab/files/root.key"').replace('"ca.pem"', '"/opt/lab/files/ca.pem"')
    return f'store = "sqlite:/{STORE}"\n{text}\n[answers]\nlisten = ["127.0.0.1:8461"]\n'


def configure(machine, text):
    (machine.root / CONFIG).write_text(text)
    machine.run("systemctl", "restart", "sternpost.service")


def expect_active(machine):
    state = machine.run("systemctl", "is-active", "sternpost.service", check=False).strip()
    expect(state == "active", f"the service is {state}:\n{machine.journal()}")


def wait_active(machine):
    wait("it is active", lambda: machine.run("systemctl", "is-active", "sternpost.service", check=False).strip() == "active")


def expect_answer(machine):
    expect_active(machine)
    answer = machine.python(ASK, DOMAIN)
    expect(ANSWER in answer, f"the answer is {answer!r}:\n{machine.journal()}")


def expect_safe_defaults(machine):
    """The service as installed: its user, no capabilities, one port on loopback, no store that others can read."""
    expect_active(machine)
    for role in SOCKETS:
        state = machine.run("systemctl", "is-enabled", f"sternpost-{role}.socket", check=False).strip()
        expect(state == "disabled", f"sternpost-{role}.socket is {state}")
    process = machine.run("systemctl", "show", "--property=MainPID", "--value", "sternpost.service").strip()
    status = dict(line.split(":", 1) for line in machine.run("cat", f"/proc/{process}/status").splitlines())
    user = machine.run("id", "-u", "sternpost").strip()
    expect(set(status["Uid"].split()) == {user}, f"the service runs as {status['Uid']}, not as {user}")
    for key, value in [("CapEff", 0), ("CapPrm", 0), ("CapBnd", 0), ("NoNewPrivs", 1)]:
        expect(int(status[key], 16) == value, f"{key} is {status[key]}")
    heard = machine.run("ss", "-Hltn").split("\n")
    heard = [line.split()[3] for line in heard if line]
    expect(heard == ["127.0.0.1:8461"], f"ports: {heard}")
    rights = machine.run("stat", "-c", "%n %U:%G %a", "/etc/sternpost", "/var/lib/sternpost", f"/{STORE}").splitlines()
    wanted = ["/etc/sternpost root:sternpost 750", "/var/lib/sternpost sternpost:sternpost 700", f"/{STORE} sternpost:sternpost 600"]
    expect(rights == wanted, f"{rights}")


def expect_usable(machine):
    """Commands by root leave nothing that the service can't open; it reloads, and comes back after a crash."""
    machine.run("sternpost", "config", "check")
    machine.run("sternpost", "domains", "list")
    owners = set(machine.run("find", "/var/lib/sternpost", "-printf", "%u:%g\n").split())
    expect(owners == {"sternpost:sternpost"}, f"owners: {owners}")
    machine.run("systemctl", "reload", "sternpost.service")
    # `reload` returns when the signal has been sent.
    wait_active(machine)
    machine.run("systemctl", "kill", "--signal=KILL", "sternpost.service")
    restarted = ["systemctl", "show", "--property=NRestarts", "--value", "sternpost.service"]
    wait("the service comes back", lambda: machine.run(*restarted).strip() != "0")
    wait_active(machine)


def expect_no_refusal_with_socket_units(machine, config):
    """With a socket unit, questions that arrive while the service restarts are answered afterwards."""
    machine.run("systemctl", "stop", "sternpost.service")
    (machine.root / CONFIG).write_text(config.replace('"127.0.0.1:8461"', '"systemd:answers"'))
    machine.run("systemctl", "enable", "--now", "sternpost-answers.socket")
    # The first question starts the service.
    expect(ANSWER in machine.python(ASK, DOMAIN), f"no answer:\n{machine.journal()}")
    for _ in range(3):
        machine.run("systemctl", "restart", "--no-block", "sternpost.service")
        expect(ANSWER in machine.python(ASK, DOMAIN), f"no answer:\n{machine.journal()}")


def change(machine, statement):
    """Changes the store, and returns how many rows."""
    with contextlib.closing(sqlite3.connect(machine.root / STORE)) as store, store:
        return store.execute(statement).rowcount


def expect_refusal_of_a_newer_store(machine):
    """A store that a newer release has changed is refused in words, and not touched."""
    machine.run("systemctl", "stop", "sternpost.service")
    later = "(version, description, success, checksum, execution_time) VALUES (9999, 'later', 1, x'00', 0)"
    change(machine, f"INSERT INTO _sqlx_migrations {later}")
    machine.run("systemctl", "start", "sternpost.service", check=False)
    words = machine.journal()
    expect("newer" in words, f"no words about a newer store:\n{words}")
    machine.run("systemctl", "stop", "sternpost.service")
    expect(change(machine, "DELETE FROM _sqlx_migrations WHERE version = 9999") == 1, "the store was changed")
    machine.run("systemctl", "reset-failed", "sternpost.service", check=False)
    machine.run("systemctl", "start", "sternpost.service")


def leftovers(machine):
    """The paths in the machine that have the name of the program, except what the trials put there."""
    names = ["find", "/etc", "/usr", "/var", "/run", "-xdev", "-name", "*sternpost*"]
    # A file of /run may vanish while it looks.
    return sorted(line for line in machine.run(*names, check=False).splitlines() if line.startswith("/"))
