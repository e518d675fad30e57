"""What a run records of itself, so that it can be reproduced."""

from __future__ import annotations

import hashlib
import platform
import socket
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import voxelsoup
from voxelsoup.common.installation import LIBRARY, hash_of_installation, is_checkout

# What stands before a hash in place of a commit.
HASHED = "sha256:"
# The project, in the files that it writes; what it wrote under its former name is still read.
NAME, FORMER_NAME = "voxelsoup", "segsoup"

PACKAGES = (
    "torch",
    "monai",
    "schedulefree",
    "safetensors",
    "numpy",
    "scipy",
    "pandas",
    "nibabel",
    "pydantic",
    "snakemake",
)


def versions() -> dict[str, str]:
    """Versions of voxelsoup, Python and the packages that results depend on."""
    found = {NAME: voxelsoup.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def source() -> str:
    """Which voxelsoup this is: the checkout's commit, or the hash of an installation's files.

    A commit has `-dirty` behind it if files differ from it. What is installed has none, even where
    it lies within another project's checkout: it is `sha256:` and the hash over all of its files.
    """
    return _commit(LIBRARY) if is_checkout() else f"{HASHED}{hash_of_installation()}"


def in_words(source: str) -> str:
    """A ``source`` for readers, shortened: `commit 0123456789ab`."""
    if source.startswith(HASHED):
        return f"installed files with SHA-256 {source.removeprefix(HASHED)[:12]}"
    return f"commit {source[:12]}"


def _commit(folder: Path) -> str:
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        # A tag would hide the commit itself.
        result = subprocess.run([*command, "--exclude=*"], capture_output=True, text=True)
    except OSError:
        return "unknown"
    return result.stdout.strip() if result.returncode == 0 else "unknown"


def data_fingerprint(fingerprints: dict[str, str], cases: Iterable[str]) -> str:
    """One hash over the preprocessed cases that a run sees."""
    lines = "".join(f"{case} {fingerprints[case]}\n" for case in sorted(cases))
    return hashlib.sha256(lines.encode()).hexdigest()


def hash_of_weights(path: Path) -> str:
    """The hash by which the states of a run know the model file that it began with.

    The project's name stands in the header of each model file that it writes, so that renaming the
    project changed the bytes of stems that are written again. This is the SHA-256 that the file has
    under the former name, so that trials of before resume from their states; for a file of another
    program it is the file's own.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        length = stream.read(8)
        # safetensors allows headers of 100 MB: what claims more is no such file.
        header = stream.read(min(int.from_bytes(length, "little"), 100_000_000))
        written, former = (f'{{"__metadata__":{{"{name}":'.encode() for name in (NAME, FORMER_NAME))
        if header.startswith(written):
            header = (former + header.removeprefix(written)).rstrip(b" ")
            # The format pads its header, so that what follows is aligned.
            header += b" " * (-len(header) % 8)
            length = len(header).to_bytes(8, "little")
        digest.update(length + header)
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def now() -> str:
    """The time in UTC, to the millisecond, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def machine() -> dict[str, Any]:
    """Host and processor."""
    return {"host": socket.gethostname(), "processor": platform.machine()}
