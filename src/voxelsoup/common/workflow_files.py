"""Which files of a checkout are the workflow, for the wheel that carries them and for `eject`.

The build reads this module too (``build_backend.py``), where nothing but Python is installed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

# Files and folders of the checkout that a study needs beside the library.
PARTS = (
    "Snakefile",
    "config.yaml",
    "envs/voxelsoup.yaml",
    "examples",
    "profiles",
    "rules",
    "schema",
    "workflow",
)
# The folder of an installed library that holds them.
FOLDER = "project"


def workflow_files(source: Path) -> Iterator[Path]:
    """The workflow's files, relative to the folder ``source`` that has them."""
    for part in PARTS:
        for path in sorted((source / part).rglob("*")) or [source / part]:
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(source)


def copy_workflow(source: Path, target: Path) -> None:
    """Copy the workflow into a folder; files become the user's, also those of a read-only one."""
    for file in workflow_files(source):
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / file, target / file)
