"""Trials of the OCI image, always with a read-only root: by podman; and unpacked and run as its configuration says, beside Unbound,
both configured by packaging/compose.yaml.
"""

import contextlib
import gzip
import io
import itertools
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from .machine import ROOTS, Failure, expect, wait
from .service import ANSWER, ASK, CONFIG, DOMAIN, PACKAGES, STORE, only

MAX_BYTES = 20_000_000
# The hosts of this machine may not raise limits or have cgroups of one kind only; neither matters for the trial.
PODMAN = ["--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--runtime=runc"]
LIMITS = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]


def run(*command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    expect(done.returncode == 0, f"{' '.join(map(str, command))} failed:\n{done.stdout}")
    return done.stdout


@contextlib.contextmanager
def lab():
    """A network namespace with a lab in it, and a folder with a configuration that uses the lab."""
    place = Path(tempfile.mkdtemp(prefix="package-image-", dir=ROOTS))
    name = place.name
    inside = ["ip", "netns", "exec", name]
    run("ip", "netns", "add", name)
    process = None
    try:
        run("ip", "-n", name, "link", "set", "lo", "up")
        command = [*inside, PACKAGES / "stage/sternpost", "lab", "serve", "--real-ports", f"--dir={place}/config"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        made = place / "config/sternpost.toml"
        wait("the lab runs", made.exists)
        text = made.read_text().replace('"root.key"', '"/etc/sternpost/root.key"').replace('"ca.pem"', '"/etc/sternpost/ca.pem"')
        made.write_text(f'store = "sqlite:/{STORE}"\n{text}\n[answers]\nlisten = ["127.0.0.1:8461"]\n')
        run("chmod", "-R", "a+rX", place / "config")
        yield place, inside
    finally:
        if process:
            process.terminate()
            process.wait()
        run("ip", "netns", "delete", name)
        run("chmod", "-R", "u+w", place)
        shutil.rmtree(place)


def expect_answer(inside, log):
    def answer():
        done = subprocess.run([*inside, "python3", "-c", ASK, DOMAIN], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return done.stdout if done.returncode == 0 else None

    try:
        found = wait("the container answers", answer)
    except Failure as failure:
        raise Failure(f"{failure}:\n{log()}") from failure
    expect(ANSWER in found, f"the answer is {found!r}:\n{log()}")


def parts():
    """The image's configuration, its layer and the size of its blobs."""
    with tarfile.open(only(PACKAGES, "*-image.tar")) as archive:
        blobs = {entry.name: archive.extractfile(entry).read() for entry in archive}

    def blob(descriptor):
        return blobs[f"blobs/sha256/{descriptor['digest'][7:]}"]

    manifest = json.loads(blob(json.loads(blobs["index.json"])["manifests"][0]))
    return json.loads(blob(manifest["config"])), gzip.decompress(blob(manifest["layers"][0])), sum(map(len, blobs.values()))


def inline(name):
    """The text of an inline file of compose.yaml."""
    text = (PACKAGES.parents[1] / "packaging/compose.yaml").read_text().split(f"\n  {name}:\n    content: |\n")[1]
    lines = itertools.takewhile(lambda line: line.startswith("      "), text.splitlines())
    return "".join(f"{line[6:]}\n" for line in lines)


def compose(place):
    """Configures Sternpost as compose.yaml does, for the lab. Returns the configuration of Unbound."""
    made = place / "config/sternpost.toml"
    trust = made.read_text().split("[trust]")[1].split("[answers]")[0]
    config = inline("sternpost").replace("[answers]", f'trust_anchor = "/etc/sternpost/root.key"\n[trust]{trust}\n[answers]')
    made.write_text(config)
    unbound = inline("unbound").replace("/usr/share/dns/root.key", f"{place}/config/root.ds")
    # The lab has that port of another address.
    unbound = unbound.replace("interface: 0.0.0.0", "interface: 172.30.84.2")
    expect("root.ds" in unbound and "172.30.84.2" in config, "compose.yaml has another trust anchor or resolver")
    stub = 'do-not-query-localhost: no\n  local-zone: "test." nodefault\nstub-zone:\n  name: "."\n  stub-addr: 127.77.0.1\n'
    file = place / "unbound.conf"
    file.write_text(f'{unbound}  pidfile: ""\n  {stub}')
    run("unbound-checkconf", file)
    return file


def unpacked():
    """Without a container engine: the layer, read-only, as the configured user, without capabilities."""
    config, layer, size = parts()
    expect(size < MAX_BYTES, f"the image has {size} bytes")
    settings = config["config"]
    user, group = settings["User"].split(":")
    expect(int(user) > 0 and int(group) > 0, f"the user is {settings['User']}")
    with lab() as (place, inside), tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        files = sorted(entry.name for entry in tar if not entry.isdir())
        expect(files == ["etc/ssl/certs/ca-certificates.crt", "usr/bin/sternpost"], f"files: {files}")
        run(*inside, "ip", "address", "add", "172.30.84.2/24", "dev", "lo")
        # A copy, since AppArmor keeps the program of Debian's package to its own folders.
        resolver = shutil.copy(shutil.which("unbound"), place / "resolver")
        resolver_log = open(place / "resolver.log", "wb")
        unbound = subprocess.Popen([*inside, resolver, "-d", "-c", compose(place)], stderr=resolver_log)
        root = place / "root"
        tar.extractall(root)
        os.chown(root, 0, 0)
        script = f"""
            set -e
            mount --bind {root} {root}
            # What every container engine adds.
            mkdir {root}/dev {root}/proc
            mount --bind /dev {root}/dev
            mount -t proc proc {root}/proc
            mount --bind {place}/config {root}/etc/sternpost
            mount -t tmpfs -o uid={user},gid={group},mode=700 state {root}/var/lib/sternpost
            mount -o remount,bind,ro {root}
            cd {root}
            exec env -i {" ".join(settings["Env"])} setpriv --bounding-set=-all,+sys_chroot,+setuid,+setgid --no-new-privs \
                /usr/sbin/chroot --userspec={user}:{group} --groups= {root} "$@"
        """
        command = [*inside, "unshare", "--mount", "bash", "-c", script, "sh", *settings["Entrypoint"], *settings["Cmd"]]
        log = open(place / "log", "w+")
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            expect_answer(inside, lambda: (place / "log").read_text() + (place / "resolver.log").read_text())
            status = Path(f"/proc/{process.pid}/status").read_text().split("\n")
            expect(f"Uid:\t{user}\t{user}\t{user}\t{user}" in status, "it does not run as the image's user")
        finally:
            process.terminate()
            unbound.terminate()
            code = process.wait()
            unbound.wait()
        expect(code == 0, f"it ended with {code}:\n{(place / 'log').read_text()}")


def by_podman():
    with lab() as (place, inside):
        podman = ["podman", "--root", place / "storage", "--runroot", place / "run", "--tmpdir", place / "tmp", *PODMAN]
        name = run(*podman, "load", "--input", only(PACKAGES, "*-image.tar")).split()[-1]
        labels = json.loads(run(*podman, "image", "inspect", name))[0]["Labels"]
        for label in ["title", "version", "revision", "licenses", "source", "created"]:
            expect(labels.get(f"org.opencontainers.image.{label}"), f"no label {label}")
        options = ["--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", *LIMITS]
        options += [f"--network=ns:/run/netns/{place.name}", f"--volume={place}/config:/{Path(CONFIG).parent}:ro"]
        run(*podman, "run", "--detach", "--name=trial", *options, name)
        try:
            expect_answer(inside, lambda: run(*podman, "logs", "trial"))
        finally:
            run(*podman, "stop", "--time=20", "trial")
        code = run(*podman, "inspect", "--format={{.State.ExitCode}}", "trial").strip()
        expect(code == "0", f"it ended with {code}:\n{run(*podman, 'logs', 'trial')}")
        run(*podman, "rm", "--volumes", "trial")


TRIALS = [("the image: unpacked, beside Unbound, as by compose.yaml", unpacked), ("the image: by podman", by_podman)]
