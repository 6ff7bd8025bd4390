"""Trials of the files themselves: lintian, what the packages contain, and whether they are the same from another folder."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from .machine import ROOTS, expect
from .service import PACKAGES, only

REPOSITORY = PACKAGES.parents[1]


def run(*command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    expect(done.returncode == 0, f"{' '.join(map(str, command))} failed:\n{done.stdout}")
    return done.stdout


def lintian():
    """No tag that is not overridden, and a reason above each override."""
    words = run("lintian", "--fail-on=error,warning,info", "--info", "--display-info", "--allow-root", only(PACKAGES, "*.deb"))
    expect(not words.strip(), f"lintian:\n{words}")
    before = ""
    for line in (REPOSITORY / "packaging/debian/lintian-overrides").read_text().splitlines():
        expect(line.startswith("#") or before, f"the override {line!r} has no reason above it")
        before = line


def contents():
    """Both packages have the same files, but for those whose place or name a distribution decides."""
    deb = run("dpkg-deb", "--contents", only(PACKAGES, "*.deb")).splitlines()
    deb = {line.split()[5].lstrip(".").removesuffix(".gz") for line in deb if not line.startswith("d")}
    rpm = {path.removesuffix(".gz") for path in run("rpm", "--query", "--list", "--package", only(PACKAGES, "*.rpm")).split()}
    own = re.compile("/usr/share/(doc|licenses|lintian)/|/_sternpost$")
    differ = {path for path in deb ^ rpm if not own.search(path)}
    expect(not differ, f"in one package only: {sorted(differ)}")
    for path in ["/usr/bin/sternpost", "/usr/share/man/man1/sternpost.1", "/usr/share/man/man5/sternpost.toml.5"]:
        expect(path in deb, f"{path} is not in the packages")


# The lookups of names, users and services that load modules of the system's C library (NSS).
SYSTEM_LOOKUPS = re.compile(
    rb" (_*(?:getaddrinfo|getnameinfo|gethost(?:by(?:name2?|addr)|ent)(?:_r)?|getserv(?:by(?:name|port)|ent)(?:_r)?"
    rb"|getpw(?:nam|uid|ent)(?:_r)?|getgr(?:nam|gid|ent)(?:_r)?|getgrouplist|initgroups))$",
    re.MULTILINE,
)
# What the driver of PostgreSQL brings, and what these two use. RELEASING.md says why none of it loads a module.
OF_POSTGRES = {b"getaddrinfo", b"getpwuid_r", b"gethostbyname2_r", b"getservbyname_r"}


def static():
    """The program needs no library and no loader, and of the system's lookups, which would load modules, only those of a driver."""
    program = PACKAGES / "stage/sternpost"
    headers = run("readelf", "--program-headers", "--dynamic", program)
    expect("INTERP" not in headers and "NEEDED" not in headers, f"it is not static:\n{headers}")
    symbols = (PACKAGES / "stage/sternpost.map").read_bytes()
    # The map of LLD lists what is in the program; that of GNU ld also lists what is not.
    expect(symbols.split(b"\n", 1)[0].split() == b"VMA LMA Size Align Out In Symbol".split(), "the map is not LLD's")
    expect(b" main\n" in symbols and b" malloc\n" in symbols, "the map has no symbols")
    found = sorted(name for name in set(SYSTEM_LOOKUPS.findall(symbols)) if name.lstrip(b"_") not in OF_POSTGRES)
    expect(not found, f"the program has {found}")


def same_bytes():
    """The packages of the same program, made in another folder, are the same."""
    place = Path(tempfile.mkdtemp(prefix="package-again-", dir=ROOTS))
    try:
        other = place / "another-folder"
        run("git", "clone", "--quiet", "--no-hardlinks", REPOSITORY, other)
        program = {"STERNPOST_PROGRAM": str(PACKAGES / "stage/sternpost")}
        run("packaging/build", cwd=other, env=os.environ | program)
        one, two = ((folder / "target/packages/SHA256SUMS").read_text() for folder in (REPOSITORY, other))
        expect(one == two, f"they differ:\n{one}\n{two}")
    finally:
        shutil.rmtree(place)


TRIALS = [
    ("lintian", lintian),
    ("the packages have the same files", contents),
    ("the program is static", static),
    ("made in another folder, the packages are the same", same_bytes),
]
