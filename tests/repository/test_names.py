"""The project's former name occurs only where results written under it are still read."""

from __future__ import annotations

import subprocess

from support.documents import REPOSITORY

# Split, so that this file needs no place in the list.
FORMER_NAME = "seg" + "soup"
MAY_NAME_IT = {
    "CHANGELOG.md",
    "docs/renamed.md",
    "src/voxelsoup/common/provenance.py",
}


def test_the_former_name_stands_only_where_old_results_are_read() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    files = [name for name in listed.stdout.splitlines() if (REPOSITORY / name).is_file()]
    assert set(files) >= MAY_NAME_IT, "the list names a file that does not exist"
    naming = {
        name
        for name in files
        if FORMER_NAME in name.lower()
        or FORMER_NAME.encode() in (REPOSITORY / name).read_bytes().lower()
    }
    assert naming == MAY_NAME_IT
