"""What an operator has in the store survives: an upgrade from the package before, a move to another machine, a restored backup, a
removal without purge. The data are a domain, a report, a user of the dashboard who can sign in, and the policy of another domain.
"""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from .debian import install, is_removed, put
from .machine import ROOTS, Machine, expect, wait
from .service import CONFIG, DOMAIN, configure, expect_answer, leftovers, start_lab

REPOSITORY = Path(__file__).parents[2]
REPORT = REPOSITORY / "crates/sternpost/tests/reports/google.eml"
OWN, USER, PASSWORD = "kept.example", "kim", "correct horse battery staple"
DASHBOARD = '\n[dashboard]\nlisten = ["127.0.0.1:8460"]\nurl = "http://localhost:8460"\n'

# Posts a form to the dashboard, and prints the status. Arguments: path, then names and values.
POST = """
import http.client, sys, urllib.parse
connection = http.client.HTTPConnection("127.0.0.1", 8460, timeout=60)
form = urllib.parse.urlencode(list(zip(sys.argv[2::2], sys.argv[3::2])))
headers = {"Host": "localhost:8460", "Origin": "http://localhost:8460", "Content-Type": "application/x-www-form-urlencoded"}
connection.request("POST", sys.argv[1], form, headers)
print(connection.getresponse().status)
"""


def put_data(machine):
    """Puts one of each kind into the store of a running service. The commands are those of both releases."""
    machine.run("sternpost", "domains", "add", OWN, "--host", "elsewhere", "--mx", f"mx.{OWN}", "--rua", f"mailto:tlsrpt@{OWN}")
    machine.copy(REPORT, "root/report.eml")
    machine.run("sternpost", "reports", "import", "/root/report.eml")
    link = machine.run("sternpost", "dashboard", "invite", USER, "--role", "operator")
    path = next(word for word in link.split() if "/welcome/" in word).split(":8460", 1)[1]
    status = machine.python(POST, path, "password", PASSWORD, "again", PASSWORD)
    expect(status == "303", f"the invitation was answered with {status}")
    # The first answer about the domain stores its policy.
    expect_answer(machine)


def expect_data(machine):
    """The data of `put_data` are there, and in use."""
    shown = json.loads(machine.run("sternpost", "domains", "show", OWN))
    expect(OWN in json.dumps(shown) and f"mx.{OWN}" in json.dumps(shown), f"the domain: {shown}")
    reports = machine.run("sternpost", "reports", "list")
    expect("google.com" in reports, f"the report is missing:\n{reports}")
    people = machine.run("sternpost", "dashboard", "people")
    expect(USER in people and "operator" in people, f"the user is missing:\n{people}")
    right, wrong = (machine.python(POST, "/sign-in", "name", USER, "password", word) for word in (PASSWORD, "wrong"))
    expect((right, wrong) == ("303", "401"), f"the user signs in: {right}; with a wrong password: {wrong}")
    policies = machine.run("sternpost", "cache", "export")
    expect(DOMAIN in policies, f"the policy is missing:\n{policies}")
    expect_answer(machine)


def running(machine, package):
    """Installs a package, with the lab's names and the dashboard."""
    put(machine)
    install(machine, package)
    lab = start_lab(machine) + DASHBOARD
    configure(machine, lab)
    expect_answer(machine)
    return lab


def upgrade():
    with Machine("trixie") as machine:
        lab = running(machine, "before")
        put_data(machine)
        install(machine, "new")
        # The store is changed at the start of the new program.
        wait("the new program serves", lambda: "303" in machine.python(POST, "/sign-in", "name", USER, "password", PASSWORD))
        expect_data(machine)
        expect((machine.root / CONFIG).read_text() == lab, "the upgrade changed the configuration")


def move():
    """As docs/operate.md says it, with the backup and the folder of the configuration in between."""
    luggage = Path(tempfile.mkdtemp(prefix="package-luggage-", dir=ROOTS))
    backup, etc = "/var/backups/sternpost/move.db", "/var/backups/sternpost/etc.tar"
    try:
        with Machine("trixie") as old:
            running(old, "new")
            put_data(old)
            old.run("systemctl", "disable", "--now", "sternpost")
            old.run("install", "-d", "-m", "700", "/var/backups/sternpost")
            old.run("sternpost", "backup", backup)
            old.run("tar", "-C", "/etc", "-cf", etc, "sternpost")
            for path in (backup, etc):
                shutil.copy(f"{old.root}{path}", luggage)
        with Machine("trixie") as new:
            put(new)
            install(new, "new")
            start_lab(new)
            new.run("systemctl", "disable", "--now", "sternpost")
            new.run("install", "-d", "-m", "700", "/var/backups/sternpost")
            for path in (backup, etc):
                shutil.copy(luggage / Path(path).name, f"{new.root}{path}")
            new.run("tar", "-C", "/etc", "-xpf", etc)
            new.run("systemctl", "daemon-reload")
            new.run("sternpost", "restore", "--unchanged", backup)
            new.run("systemctl", "enable", "--now", "sternpost")
            expect_data(new)
            owners = set(new.run("find", "/var/lib/sternpost", "-printf", "%u:%g\n").split())
            expect(owners == {"sternpost:sternpost"}, f"owners: {owners}")
            restored_and_removed(new)
    finally:
        shutil.rmtree(luggage)


def restored_and_removed(machine):
    """A backup of the running server brings back what was deleted; `remove` keeps the data, and `purge` leaves nothing."""
    backup = "/var/backups/sternpost/daily.db"
    machine.run("sternpost", "backup", backup)
    machine.run("sternpost", "domains", "remove", OWN)
    machine.run("sternpost", "dashboard", "remove", USER)
    machine.run("systemctl", "stop", "sternpost")
    machine.run("sternpost", "restore", backup)
    machine.run("systemctl", "start", "sternpost")
    expect_data(machine)
    machine.run("apt-get", "remove", "--yes", "sternpost")
    is_removed(machine)
    install(machine, "new")
    expect_data(machine)
    machine.run("apt-get", "purge", "--yes", "sternpost")
    is_removed(machine)
    # The backups are the operator's.
    left = [path for path in leftovers(machine) if not path.startswith("/var/backups/")]
    expect(not left, f"purge left {left}")
    kept = subprocess.run(["test", "-s", f"{machine.root}{backup}"], check=False).returncode == 0
    expect(kept, "purge deleted the backup")


TRIALS = [
    ("an upgrade with a domain, a report, a user and a policy in the store", upgrade),
    ("the same data moved to another machine, restored from a backup, kept by a removal", move),
]
