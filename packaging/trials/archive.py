"""Trials of the archive: it is installed by the lines of docs/install.md, on a system that has none of the packages."""

import re
from .clock import PAGE
from .machine import Machine, expect
from .service import PACKAGES, configure, expect_answer, expect_usable, only, start_lab


def blocks(title):
    """The shell blocks of a section of the page."""
    section = PAGE.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```", section, re.DOTALL | re.MULTILINE)


def new():
    """Unpacks, installs the program and the units, starts, uses."""
    unpack = next(block for block in blocks("Packages") if "tar -xzf" in block)
    after = blocks("From source")
    install = next(at for at, block in enumerate(after) if "target/dist/sternpost" in block)
    with Machine("mail") as machine:
        archive = only(PACKAGES, "*.tar.gz")
        machine.copy(archive, f"root/{archive.name}")
        machine.run("bash", "-euxc", "\n".join(["cd /root", unpack, *after[install + 1 :]]))
        expect((machine.root / "usr/local/share/man/man5/sternpost.toml.5").exists(), "the page of the configuration is not there")
        expect_usable(machine)
        configure(machine, start_lab(machine))
        expect_answer(machine)


TRIALS = [("the archive: install by the documentation, use", new)]
