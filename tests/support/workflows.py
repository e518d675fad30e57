"""Snakemake run for real, for the tests of the workflow."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import yaml

from support.forked import from_one_that_imported_them

REPOSITORY = Path(__file__).parents[2]
COLUMNS = 120
SNAKEMAKE = "from snakemake.cli import main; main()"


def snakemake(folder: Path, *arguments: str, config: Path | None = None, succeeds: bool = True):
    """Run Snakemake in ``folder`` and return what it printed."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    command += ["--configfile", str(config or REPOSITORY / "config.yaml"), *arguments]
    result = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        env=from_one_that_imported_them() | {"COLUMNS": str(COLUMNS)},
    )
    printed = result.stdout + result.stderr
    assert (result.returncode == 0) == succeeds, printed[-6000:]
    return printed


def on_a_terminal(folder: Path, config: Path, *arguments: str) -> tuple[int, str]:
    """Run Snakemake under a pseudo-terminal; returns its exit code and what is to be read."""
    profile = REPOSITORY / "profiles" / "local"
    # Its jobs are forked, itself is not.
    command = [sys.executable, "-c", SNAKEMAKE, *arguments, "--profile", str(profile)]
    command += ["--snakefile", str(REPOSITORY / "Snakefile"), "--configfile", str(config)]
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    environment = from_one_that_imported_them() | {"TERM": "xterm-256color"}
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = subprocess.Popen(command, cwd=folder, env=environment, **streams)
    os.close(theirs)
    printed = b""
    while True:
        try:
            printed += os.read(ours, 65536)
        except OSError:  # the last one has closed it
            break
    os.close(ours)
    text = printed.decode().replace("\r\n", "\n")
    return process.wait(), re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def planned(printed: str) -> dict[str, int]:
    """Jobs per rule that a dry run announces."""
    words = [line.split() for line in printed.splitlines()]
    return {line[0]: int(line[1]) for line in words if len(line) == 2 and line[1].isdigit()}


def write_study(path: Path, **changes: object) -> Path:
    """The shipped study with some sections replaced."""
    study = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    path.write_text(yaml.safe_dump(study | changes, sort_keys=False))
    return path
