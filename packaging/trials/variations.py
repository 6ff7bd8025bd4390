"""What is unusual, and happens: an upgrade and a removal under load, a machine without IPv6, a store on a file system of its own, an
umask that closes files, another language, a package that comes back after it was purged, a system without systemd.
"""

import contextlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .debian import install, is_removed
from .machine import ROOTS, Machine, expect, wait
from .service import (
    ANSWER,
    ASK,
    CONFIG,
    DOMAIN,
    PACKAGES,
    STORE,
    configure,
    expect_active,
    expect_answer,
    leftovers,
    only,
    start_lab,
)

# Asks on and on, each time by a connection of its own, until the file that is its second argument exists. Prints how many
# questions were answered, and each failure.
LOAD = f"""
import os, socket, sys
answered = 0
while not os.path.exists(sys.argv[2]):
    try:
        with socket.create_connection(("127.0.0.1", 8461), 60) as connection:
            question = ("postfix " + sys.argv[1]).encode()
            connection.sendall(b"%d:%s," % (len(question), question))
            answer = connection.recv(4096).decode()
        assert {ANSWER!r} in answer, "the answer is %r" % answer
        answered += 1
    except Exception as error:
        print(repr(error), flush=True)
print(answered)
"""


def later_package():
    """The package again, as of a later version."""
    place = Path(tempfile.mkdtemp(prefix="package-later-", dir=ROOTS))
    unpacked, package = place / "unpacked", place / "later.deb"
    run = lambda *command: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: E731
    run("dpkg-deb", "--raw-extract", only(PACKAGES, "*.deb"), unpacked)
    control = unpacked / "DEBIAN/control"
    text = control.read_text()
    version = next(line for line in text.splitlines() if line.startswith("Version: "))
    control.write_text(text.replace(version, f"{version}.later"))
    run("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", unpacked, package)
    return place, package


@contextlib.contextmanager
def load(machine):
    """Questions without a pause. The list that it returns is filled at the end: failures, then how many were answered."""
    stop = machine.place / "stop"
    stop.unlink(missing_ok=True)
    command = ["nsenter", f"--target={machine.leader}", "--net", "--", "python3", "-c", LOAD, DOMAIN, str(stop)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sys.stderr, text=True)
    said = []
    try:
        yield said
    finally:
        stop.touch()
        said += process.communicate()[0].split("\n")[:-1]


def with_sockets(machine, lab):
    machine.run("systemctl", "stop", "sternpost.service")
    (machine.root / CONFIG).write_text(lab.replace('"127.0.0.1:8461"', '"systemd:answers"'))
    machine.run("systemctl", "enable", "--now", "sternpost-answers.socket")
    machine.run("systemctl", "start", "sternpost.service")
    expect_answer(machine)


def upgrade_and_removal_in_use():
    """With a socket unit, an upgrade refuses and loses no question. A removal under load ends everything."""
    place, package = later_package()
    with Machine("trixie") as machine:
        machine.copy(only(PACKAGES, "*.deb"), "root/new.deb")
        machine.copy(package, "root/later.deb")
        subprocess.run(["rm", "-r", place], check=True)
        install(machine, "new")
        lab = start_lab(machine)
        with_sockets(machine, lab)
        before = machine.run("systemctl", "show", "--property=MainPID", "--value", "sternpost.service")
        with load(machine) as said:
            install(machine, "later")
            wait("it answers after the upgrade", lambda: ANSWER in machine.python(ASK, DOMAIN))
        after = machine.run("systemctl", "show", "--property=MainPID", "--value", "sternpost.service")
        expect(before != after, "the upgrade did not restart the service")
        expect(len(said) == 1 and int(said[0]) > 0, "questions failed:\n" + "\n".join(said[:20]) + machine.journal())
        print(f"     {said[0]} questions answered during the upgrade, none refused")
        with load(machine) as said:
            machine.run("apt-get", "purge", "--yes", "sternpost")
        is_removed(machine)
        expect(not leftovers(machine), f"purge left {leftovers(machine)}")
        expect("refused" in said[-2], f"something still listens: {said[-3:]}")


def unusual_machine():
    """Without IPv6, with the store on a file system of its own, an umask of 077 and another language; purged, and installed again."""
    with Machine("trixie") as machine:
        machine.copy(only(PACKAGES, "*.deb"), "root/new.deb")
        machine.run("sysctl", "-e", "-w", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
        machine.run("mkdir", "-p", "/var/lib/sternpost")
        machine.run("mount", "-t", "tmpfs", "state", "/var/lib/sternpost")
        settings = ["LANG=de_DE.UTF-8", "LC_ALL=de_DE.UTF-8", "LANGUAGE=de"]
        closed = lambda command: machine.run("sh", "-c", f"umask 077 && {command}", variables=settings)  # noqa: E731
        closed("apt-get install --yes /root/new.deb")
        expect_active(machine)
        closed("sternpost config check")
        closed("sternpost domains list")
        lab = start_lab(machine)
        configure(machine, lab)
        expect_answer(machine)
        # A backup to another file system, and back.
        closed("sternpost backup /root/copy.db")
        machine.run("systemctl", "stop", "sternpost.service")
        closed("sternpost restore /root/copy.db")
        machine.run("systemctl", "start", "sternpost.service")
        expect_answer(machine)
        owners = set(machine.run("find", "/var/lib/sternpost", "-mindepth", "1", "-printf", "%u:%g %m\n").split("\n")) - {""}
        expect(all(owner.startswith("sternpost:sternpost") for owner in owners), f"owners: {owners}")
        modes = machine.run("stat", "-c", "%a %n", "/usr/bin/sternpost", "/etc/sternpost/sternpost.toml").split()
        expect(modes[0] == "755" and modes[2] == "644", f"modes: {modes}")
        without_ipv6(machine, lab)
        closed("apt-get purge --yes sternpost")
        is_removed(machine)
        # The mount point stays, empty: it belongs to the operator.
        expect(leftovers(machine) == ["/var/lib/sternpost"], f"purge left {leftovers(machine)}")
        expect(not machine.run("ls", "-A", "/var/lib/sternpost"), "purge left files on the file system")
        install(machine, "new")
        expect_active(machine)
        expect((machine.root / CONFIG).exists(), "there is no configuration after a purge and an installation")
        expect(machine.run("stat", "-c", "%U %a", f"/{STORE}").strip() == "sternpost 600", "the store has another owner")


def without_ipv6(machine, lab):
    """A kernel without IPv6 at all: what the page about the policy host lists as addresses starts, or is refused in words."""
    drop_in = machine.root / "etc/systemd/system/sternpost.service.d"
    drop_in.mkdir(parents=True)
    machine.copy(PACKAGES.parents[1] / "packaging/drop-ins/ports.conf", drop_in / "ports.conf")
    (drop_in / "old.conf").write_text("[Service]\nRestrictAddressFamilies=\nRestrictAddressFamilies=AF_INET AF_UNIX\n")
    machine.run("systemctl", "daemon-reload")
    configure(machine, lab)
    expect_answer(machine)
    pairs = '\n[host]\nlisten = ["[::]:443", "0.0.0.0:443"]\nhttp = ["[::]:80", "0.0.0.0:80"]\nname = "mail.good-enforce.test"\n'
    (machine.root / CONFIG).write_text(lab + pairs)
    machine.run("systemctl", "restart", "sternpost.service", check=False)
    state = machine.run("systemctl", "is-active", "sternpost.service", check=False).strip()
    expect(state == "active" or "IPv6" in machine.journal(), f"the service is {state}:\n{machine.journal()}")
    print(f"     without IPv6, with [::] and 0.0.0.0 the service is {state}")
    for file in drop_in.iterdir():
        file.unlink()
    drop_in.rmdir()
    machine.run("systemctl", "daemon-reload")
    configure(machine, lab)
    expect_answer(machine)


# Installs in a folder where no systemd runs, as the build of a container does, and prints what is there.
CHROOT = """
set -e
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/up,workdir=$2/work" "$2/root"
cp "$3" "$2/root/root/new.deb"
mount -t proc proc "$2/root/proc"
chroot "$2/root" sh -ec '
  export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
  apt-get install --yes /root/new.deb
  stat -c "%n %U:%G %a" /etc/sternpost /var/lib/sternpost
  # Here is no resolver, which is all that may be wrong.
  STERNPOST_DNS_DNSSEC=off sternpost config check || test $? = 1
  STERNPOST_DNS_DNSSEC=off sternpost config check | grep -F "is valid"
  apt-get purge --yes sternpost
  echo "left: $(find /etc /usr /var -xdev -name "*sternpost*")"'
"""


def without_systemd():
    place = Path(tempfile.mkdtemp(prefix="package-chroot-", dir=ROOTS))
    try:
        for folder in ("up", "work", "root"):
            (place / folder).mkdir()
        command = ["unshare", "--mount", "sh", "-c", CHROOT, "sh", ROOTS / "package-trixie", place, only(PACKAGES, "*.deb")]
        done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        expect(done.returncode == 0, f"it failed:\n{done.stdout}")
        for line in ["/etc/sternpost root:sternpost 750", "/var/lib/sternpost sternpost:sternpost 700", "left: "]:
            expect(line in done.stdout.split("\n"), f"no line {line!r}:\n{done.stdout}")
    finally:
        shutil.rmtree(place)


TRIALS = [
    ("an upgrade and a removal in use, with sockets of systemd", upgrade_and_removal_in_use),
    ("no IPv6, /var/lib/sternpost on another file system, umask 077, another language, installed again", unusual_machine),
    ("installed and purged where systemd does not run", without_systemd),
]
