#!/usr/bin/env python3
"""Makes an OCI image of Sternpost out of files, without a container engine.

    image.py PROGRAM ROOTS VERSION REVISION OUT.tar

PROGRAM is the static program, ROOTS a PEM file with the root certificates to trust, VERSION the release and REVISION the commit.
OUT.tar is an OCI archive: `podman load -i OUT.tar`, `skopeo copy oci-archive:OUT.tar …`. The image contains the two files and
the folders that the program needs, runs as user 65532 and needs no writable root. SOURCE_DATE_EPOCH is the time of everything
in it, so that the same files give the same bytes.
"""

import gzip
import hashlib
import io
import json
import os
import sys
import tarfile
from datetime import datetime, timezone

# The number that images without a user database use for an unprivileged user.
USER = 65532
CONFIG = "/etc/sternpost/sternpost.toml"
# Folders of the image: path, mode, owner. A volume on the state folder starts with its owner and mode.
FOLDERS = [
    ("etc", 0o755, 0),
    ("etc/ssl", 0o755, 0),
    ("etc/ssl/certs", 0o755, 0),
    ("etc/sternpost", 0o755, 0),
    ("run", 0o755, 0),
    ("run/sternpost", 0o755, USER),
    ("tmp", 0o1777, 0),
    ("usr", 0o755, 0),
    ("usr/bin", 0o755, 0),
    ("var", 0o755, 0),
    ("var/lib", 0o755, 0),
    ("var/lib/sternpost", 0o700, USER),
]
OCI = "application/vnd.oci.image"


def member(path, mode, owner, time):
    """A member of a tar file, without anything that depends on this machine."""
    entry = tarfile.TarInfo(path)
    entry.mode, entry.uid, entry.gid, entry.mtime = mode, owner, owner, time
    return entry


def layer(program, roots, time):
    """The tar file of the image's only layer."""
    files = [("usr/bin/sternpost", 0o755, program), ("etc/ssl/certs/ca-certificates.crt", 0o644, roots)]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, mode, owner in FOLDERS:
            entry = member(path, mode, owner, time)
            entry.type = tarfile.DIRTYPE
            tar.addfile(entry)
        for path, mode, source in files:
            with open(source, "rb") as file:
                content = file.read()
            entry = member(path, mode, 0, time)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def config(version, revision, time, diff_id):
    """The image's configuration (OCI image specification, config.md)."""
    created = datetime.fromtimestamp(time, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    source = "https://github.com/sternpost/sternpost"
    labels = {
        "title": "Sternpost",
        "description": "TLS for mail, enforced: MTA-STS, DANE and TLS reports, for receivers and senders",
        "version": version,
        "revision": revision,
        "created": created,
        "licenses": "MIT OR Apache-2.0",
        "url": source,
        "source": source,
        "documentation": f"{source}/tree/main/docs",
        "vendor": "The Sternpost authors",
    }
    return {
        "created": created,
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "User": f"{USER}:{USER}",
            "Env": [
                "PATH=/usr/bin",
                "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
                "MALLOC_MMAP_THRESHOLD_=262144",
                # With a read-only root and without /tmp, only the volume can be written to.
                "SQLITE_TMPDIR=/var/lib/sternpost",
            ],
            "Entrypoint": ["/usr/bin/sternpost"],
            "Cmd": ["--config", CONFIG, "serve"],
            "WorkingDir": "/var/lib/sternpost",
            "Volumes": {"/var/lib/sternpost": {}},
            "StopSignal": "SIGTERM",
            "Labels": {f"org.opencontainers.image.{key}": value for key, value in sorted(labels.items())},
        },
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": created, "created_by": "packaging/image.py", "comment": "program and root certificates"}],
    }


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def encoded(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def image(program, roots, version, revision, time):
    """The files of the image as an OCI layout: path and content."""
    plain = layer(program, roots, time)
    packed = gzip.compress(plain, compresslevel=9, mtime=0)
    settings = encoded(config(version, revision, time, digest(plain)))
    blobs = [settings, packed]

    def descriptor(media_type, content):
        return {"mediaType": media_type, "digest": digest(content), "size": len(content)}

    manifest = encoded(
        {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": descriptor(f"{OCI}.config.v1+json", settings),
            "layers": [descriptor(f"{OCI}.layer.v1.tar+gzip", packed)],
        }
    )
    blobs.append(manifest)
    listed = descriptor(f"{OCI}.manifest.v1+json", manifest)
    listed["platform"] = {"architecture": "amd64", "os": "linux"}
    listed["annotations"] = {"org.opencontainers.image.ref.name": f"localhost/sternpost:{version}"}
    index = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": [listed]}
    files = [("oci-layout", encoded({"imageLayoutVersion": "1.0.0"})), ("index.json", encoded(index))]
    return files + [(f"blobs/sha256/{digest(blob)[7:]}", blob) for blob in blobs]


def main(program, roots, version, revision, out):
    time = int(os.environ["SOURCE_DATE_EPOCH"])
    with tarfile.open(out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, content in image(program, roots, version, revision, time):
            entry = member(path, 0o644, 0, time)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    main(*sys.argv[1:])
