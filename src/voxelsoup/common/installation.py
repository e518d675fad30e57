"""Where the workflow of this library lies, and how its Snakemake is started."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from voxelsoup.common.errors import InputError
from voxelsoup.common.workflow_files import FOLDER

LIBRARY = Path(__file__).resolve().parents[1]
# Of Snakemake: the profile of those who name none.
PROFILE_VARIABLE = "SNAKEMAKE_PROFILE"


def is_checkout() -> bool:
    """Whether the library is that of a checkout, which has the workflow beside it."""
    return not (LIBRARY / FOLDER).is_dir()


def workflow_folder() -> Path:
    """The folder with the Snakefile: the checkout's, or that of the installed library.

    Raises:
        InputError: if the library was installed without it.
    """
    folder = LIBRARY.parents[1] if is_checkout() else LIBRARY / FOLDER
    if not (folder / "Snakefile").is_file():
        raise InputError(
            LIBRARY,
            "this installation of voxelsoup has no workflow",
            "a wheel or a checkout of voxelsoup, which carry it",
            "install voxelsoup again from its wheel",
        )
    return folder


def shipped_profile(name: str) -> Path | None:
    """The folder of a profile that comes with the workflow, such as `slurm`; None for others."""
    if Path(name).name != name:
        return None
    folder = workflow_folder() / "profiles" / name
    return folder if folder.is_dir() else None


def snakemake_command(
    study: Path, profiles: Sequence[str] = (), options: Sequence[str] = ()
) -> list[str]:
    """What starts a study's Snakemake: this Python's, on the workflow of this library.

    Args:
        study: the study file.
        profiles: names or folders of profiles; a name is a shipped profile (`local`, `slurm`)
            where Snakemake knows none of this name. By default $SNAKEMAKE_PROFILE, or `local`.
        options: options and targets of Snakemake, handed on as they are.

    Raises:
        InputError: if there is no workflow.
    """
    command = [sys.executable, "-m", "snakemake"]
    command += ["--snakefile", str(workflow_folder() / "Snakefile"), "--configfile", str(study)]
    if not profiles and PROFILE_VARIABLE not in os.environ:
        profiles = ["local"]
    for name in profiles:
        command += ["--profile", _profile(name)]
    return [*command, *options]


def _profile(name: str) -> str:
    shipped = shipped_profile(name)
    if shipped is None:
        return name
    # Imported late: it takes a second.
    from snakemake.cli import get_profile_dir

    return str(shipped) if get_profile_dir(name) is None else name


@cache
def hash_of_installation() -> str:
    """SHA-256 over all files of the library and of the workflow that it carries."""
    digest = hashlib.sha256()
    for path in sorted(LIBRARY.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(path.relative_to(LIBRARY).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
