"""A Debian system that is thrown away: a root of debootstrap, booted by systemd-nspawn without a network.

`./test packages` makes the roots (STERNPOST_TEST_ROOTS/package-RELEASE). The changes of a trial go to a folder beside them.
"""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

ROOTS = Path(os.environ.get("STERNPOST_TEST_ROOTS", "/var/tmp/sternpost-test"))
# How long a system may take to boot or to end, in seconds. Nothing is measured by it.
PATIENCE = 120


class Failure(Exception):
    """A trial did not show what it has to show."""


def expect(fact, text):
    if not fact:
        raise Failure(text)


def wait(what, ready):
    """Waits until `ready` returns something true, and returns that."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = ready()
        if found:
            return found
        time.sleep(0.2)
    raise Failure(f"{what}: not within {PATIENCE} seconds")


class Machine:
    """A booted system of a release, as a context manager."""

    def __init__(self, release):
        self.base = ROOTS / f"package-{release}"
        self.place = Path(tempfile.mkdtemp(prefix="package-trial-", dir=ROOTS))
        # The folder that the changes are in, and the root that the system sees.
        self.changes, self.root = self.place / "changes", self.place / release
        self.leader = None

    def __enter__(self):
        for folder in (self.changes, self.place / "work", self.root):
            folder.mkdir()
        layers = f"lowerdir={self.base},upperdir={self.changes},workdir={self.place / 'work'}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, self.root], check=True)
        # It keeps services from starting while the root is made.
        (self.root / "usr/sbin/policy-rc.d").unlink(missing_ok=True)
        (self.root / "etc/resolv.conf").write_text("nameserver 127.0.0.1\n")
        console = open(self.place / "console", "wb")
        options = ["--boot", "--private-network", "--register=no", "--keep-unit", "--link-journal=no", "--resolv-conf=off"]
        self.nspawn = subprocess.Popen(
            ["systemd-nspawn", "--quiet", f"--directory={self.root}", *options],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
        )
        try:
            self.leader = wait("the system has a first process", self._first_process)
            wait("the system has booted", lambda: self.run("systemctl", "is-system-running", check=False).strip() == "running")
        except BaseException as error:
            console.close()
            last = (self.place / "console").read_text(errors="replace").splitlines()[-30:]
            self.__exit__()
            if isinstance(error, Failure):
                raise Failure(f"{error}; the last lines of the console:\n" + "\n".join(last)) from error
            raise
        return self

    def _first_process(self):
        expect(self.nspawn.poll() is None, f"systemd-nspawn ended with {self.nspawn.returncode}")
        children = Path(f"/proc/{self.nspawn.pid}/task/{self.nspawn.pid}/children").read_text().split()
        return next((pid for pid in children if Path(f"/proc/{pid}/comm").read_text().strip() == "systemd"), None)

    def __exit__(self, *_):
        self.nspawn.terminate()
        try:
            self.nspawn.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.nspawn.kill()
            self.nspawn.wait()
        subprocess.run(["umount", self.root], check=True)
        shutil.rmtree(self.place)

    def run(self, *command, check=True, variables=()):
        """Runs a command in the system, and returns what it printed. Unless it may fail, its failure is that of the trial."""
        inside = ["nsenter", f"--target={self.leader}", "--all", "--", "env", "-i"]
        settings = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", *variables]
        done = subprocess.run(
            [*inside, *settings, *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        expect(done.returncode == 0 or not check, f"{' '.join(command)} failed:\n{done.stdout}{self.journal() if check else ''}")
        return done.stdout

    def journal(self):
        """The last log lines of the service."""
        return self.run("journalctl", "--unit=sternpost.service", "--no-pager", "--lines=30", "--output=cat", check=False)

    def copy(self, source, target):
        shutil.copy(source, self.root / target)

    def python(self, code, *arguments):
        """Runs Python code of this machine's Python in the network of the system."""
        command = ["nsenter", f"--target={self.leader}", "--net", "--", "python3", "-c", code, *arguments]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
