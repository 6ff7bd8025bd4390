"""Trials of the .rpm. Its dependencies are not checked, since the system is Debian's; everything else is as elsewhere."""

from .machine import Machine, expect
from .service import (
    BEFORE,
    CONFIG,
    PACKAGES,
    SOCKETS,
    STORE,
    configure,
    expect_answer,
    expect_safe_defaults,
    expect_usable,
    only,
    start_lab,
)

RPM = ["rpm", "--dbpath=/var/lib/rpm", "--nodeps"]


def put(machine):
    machine.copy(only(PACKAGES, "*.rpm"), "root/new.rpm")
    machine.copy(BEFORE / "before.rpm", "root/before.rpm")


def new():
    with Machine("trixie") as machine:
        put(machine)
        machine.run(*RPM, "--install", "/root/new.rpm")
        machine.run("rpm", "--dbpath=/var/lib/rpm", "--verify", "--nodeps", "sternpost")
        # By convention, a preset of the distribution decides whether a service is enabled.
        machine.run("systemctl", "enable", "--now", "sternpost.service")
        expect_safe_defaults(machine)
        expect_usable(machine)
        configure(machine, start_lab(machine))
        expect_answer(machine)
        # Sockets that an operator has enabled end with the package, too.
        machine.run("systemctl", "enable", *(f"sternpost-{role}.socket" for role in SOCKETS))
        machine.run(*RPM, "--erase", "sternpost")
        left = machine.run("find", "/etc/systemd", "/run/systemd/units", "-name", "sternpost*")
        expect(not left, f"units are left:\n{left}")
        expect(not (machine.root / "usr/bin/sternpost").exists(), "the program is still there")
        expect(not machine.run("pgrep", "--uid", "sternpost", check=False), "processes are left")
        kept = (machine.root / f"{CONFIG}.rpmsave").exists() and (machine.root / STORE).exists()
        expect(kept, "the changed configuration or the store is gone")


def upgrade():
    with Machine("trixie") as machine:
        put(machine)
        machine.run(*RPM, "--install", "/root/before.rpm")
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "enable", "--now", "sternpost.service")
        lab = start_lab(machine)
        configure(machine, lab)
        expect_answer(machine)
        machine.run(*RPM, "--upgrade", "/root/new.rpm")
        expect_answer(machine)
        expect((machine.root / CONFIG).read_text() == lab, "the upgrade changed the configuration")
        words = machine.run(*RPM, "--upgrade", "/root/before.rpm", check=False)
        expect("is already installed" in words, f"rpm downgraded: {words}")
        expect_answer(machine)


TRIALS = [("the .rpm: install, use, remove", new), ("the .rpm: upgrade, downgrade", upgrade)]
