"""Trials of the files themselves: lintian, what the packages contain, and whether they are the same from another folder."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import zlib
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


def crates_of(program):
    """The crates that cargo-auditable wrote into a program: name and version. Those that only built it are left out."""
    with tempfile.TemporaryDirectory() as place:
        section = Path(place) / "section"
        run("objcopy", "--dump-section", f".dep-v0={section}", program, Path(place) / "rest")
        listed = json.loads(zlib.decompress(section.read_bytes()))["packages"]
    return {(crate["name"], crate["version"]) for crate in listed if crate.get("kind", "runtime") == "runtime"}


def expect_listed(listed, crates):
    """An SBOM lists these crates, each with a license; those of the registry also with a checksum and an address."""
    expect((listed["bomFormat"], listed["specVersion"]) == ("CycloneDX", "1.5"), "it is not CycloneDX 1.5")
    own = listed["metadata"]["component"]
    components = {(one["name"], one["version"]): one for one in [own, *listed["components"]]}
    missing = sorted(crates - set(components))
    expect(not missing, f"in the program, and not in the SBOM: {missing}")
    for name in sorted(crates):
        component = components[name]
        expect(component.get("licenses"), f"{name} has no license")
        if "registry+" in component["bom-ref"]:
            hashes = [one["content"] for one in component.get("hashes", []) if one["alg"] == "SHA-256"]
            expect(len(hashes) == 1 and component.get("purl", "").startswith("pkg:cargo/"), f"{name} has no checksum or address")
    # A path of the machine that built it would make the file differ elsewhere.
    text = json.dumps(listed)
    expect(str(REPOSITORY) not in text and "/root/" not in text and "/home/" not in text, "it has a path of this machine")


def sbom():
    """The SBOM is about what is in the program, and all places have the same one."""
    file = only(PACKAGES, "*.cdx.json")
    crates = crates_of(PACKAGES / "stage/sternpost")
    expect(len(crates) > 100, f"the program names {len(crates)} crates")
    expect_listed(json.loads(file.read_text()), crates)
    expect((PACKAGES / "stage/sternpost.cdx.json").read_bytes() == file.read_bytes(), "the archive has another SBOM")


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
    ("the SBOM lists every crate of the program", sbom),
    ("made in another folder, the packages are the same", same_bytes),
]
