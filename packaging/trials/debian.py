"""Trials of the .deb on Debian releases."""

from .machine import Machine, expect
from .service import (
    BEFORE,
    CONFIG,
    PACKAGES,
    STORE,
    configure,
    expect_active,
    expect_answer,
    expect_no_refusal_with_socket_units,
    expect_refusal_of_a_newer_store,
    expect_safe_defaults,
    expect_usable,
    leftovers,
    only,
    start_lab,
)

RELEASES = ["bookworm", "trixie"]


def put(machine):
    machine.copy(only(PACKAGES, "*.deb"), "root/new.deb")
    machine.copy(BEFORE / "before.deb", "root/before.deb")


def install(machine, name):
    """Installs or upgrades without questions: a changed configuration is kept."""
    return machine.run("apt-get", "install", "--yes", "--option=Dpkg::Options::=--force-confold", f"/root/{name}.deb")


def is_removed(machine):
    expect(not (machine.root / "usr/bin/sternpost").exists(), "the program is still there")
    processes = machine.run("pgrep", "--uid", "sternpost", check=False)
    expect(not processes, f"processes are left: {processes}")


def new(release):
    """Installs on a clean system, uses, removes and purges."""
    with Machine(release) as machine:
        put(machine)
        install(machine, "new")
        expect_safe_defaults(machine)
        expect(machine.run("systemctl", "is-enabled", "sternpost.service").strip() == "enabled", "the service is not enabled")
        expect_usable(machine)
        lab = start_lab(machine)
        configure(machine, lab)
        expect_answer(machine)
        expect_refusal_of_a_newer_store(machine)
        expect_answer(machine)
        expect_no_refusal_with_socket_units(machine, lab)
        machine.run("apt-get", "remove", "--yes", "sternpost")
        is_removed(machine)
        expect((machine.root / CONFIG).exists() and (machine.root / STORE).exists(), "remove took the configuration or the store")
        install(machine, "new")
        # A socket unit that the operator enabled stays enabled, and is not started by the package.
        machine.run("systemctl", "stop", "sternpost.service")
        machine.run("systemctl", "start", "sternpost-answers.socket", "sternpost.service")
        expect_answer(machine)
        machine.run("apt-get", "purge", "--yes", "sternpost")
        is_removed(machine)
        expect(not leftovers(machine), f"purge left {leftovers(machine)}")


def upgrade(release):
    """Upgrades from the package before, is downgraded and upgraded again; configuration and store are kept."""
    with Machine(release) as machine:
        put(machine)
        install(machine, "before")
        lab = start_lab(machine)
        configure(machine, lab)
        expect_answer(machine)
        install(machine, "new")
        expect_answer(machine)
        expect((machine.root / CONFIG).read_text() == lab, "the upgrade changed the configuration")
        words = machine.run("apt-get", "install", "--yes", "/root/before.deb", check=False)
        expect("--allow-downgrades" in words, f"apt downgraded:\n{words}")
        expect_answer(machine)
        # Whoever forces it gets a service that does not start, with the reason, and an unchanged store.
        machine.run("dpkg", "--install", "--force-confold", "/root/before.deb", check=False)
        state = machine.run("systemctl", "is-active", "sternpost.service", check=False).strip()
        expect(state != "active" and "schema" in machine.journal(), f"the old program is {state}:\n{machine.journal()}")
        install(machine, "new")
        machine.run("systemctl", "reset-failed", "sternpost.service", check=False)
        machine.run("systemctl", "restart", "sternpost.service")
        expect_active(machine)
        expect_answer(machine)
        machine.run("apt-get", "purge", "--yes", "sternpost")
        expect(not leftovers(machine), f"purge left {leftovers(machine)}")


TRIALS = [
    *[(f"the .deb on {release}: install, use, remove, purge", lambda release=release: new(release)) for release in RELEASES],
    *[(f"the .deb on {release}: upgrade, downgrade", lambda release=release: upgrade(release)) for release in RELEASES],
]
