"""Names that become parts of file names and cells of tables."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from voxelsoup.common.errors import InputError
from voxelsoup.common.provenance import FORMER_NAME, NAME
from voxelsoup.data.case import Case

# The folder within a folder of predictions that says what each of them depends on.
RECORDS, FORMER_RECORDS = f".{NAME}", f".{FORMER_NAME}"

# File systems allow 255 bytes; endings and marks of unfinished files take some of them.
LONGEST_NAME = 200
# Control characters, and what breaks the row of a table into lines.
BREAKING = {"Cc", "Zl", "Zp"}


def check_case_names(cases: Sequence[Case], where: Path) -> None:
    """Make sure that files can be named after cases.

    Raises:
        InputError: if a name is empty or too long, leads elsewhere, looks like an option or a
            hidden file, cannot be written down, or is that of several cases.
    """
    for case in cases:
        reason = unsafe_text(case.name) or _unsafe_file_name(case.name)
        if reason is not None:
            raise InputError(
                where,
                f"holds a case named {case.name!r}, which {reason}",
                f"names of 1 to {LONGEST_NAME} bytes that can be used as file names",
                "rename the case, or its files or folder where it is named after them",
            )
    name, count = Counter(case.name for case in cases).most_common(1)[0]
    if count > 1:
        files = [str(next(iter(c.channels.values()))) for c in cases if c.name == name]
        raise InputError(
            where,
            f"holds {'two' if count == 2 else count} cases named {name}: {files[0]} and {files[1]}",
            "a name of its own for every case, as its label map is called so",
            "rename or remove one of them, or give them names in a list (docs/data.md)",
        )


def unsafe_text(text: str) -> str | None:
    """Why a text cannot be a cell of a table, in words; None if it can."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    broken = next((sign for sign in text if unicodedata.category(sign) in BREAKING), None)
    return None if broken is None else f"holds the control character {broken!r}"


def _unsafe_file_name(name: str) -> str | None:
    if not name:
        return "is empty"
    if name != name.strip():
        return "begins or ends with a space"
    if "/" in name or "\\" in name:
        return "holds a slash"
    if name[0] in ".-":
        return f"begins with {name[0]!r}"
    size = len(name.encode())
    return f"is {size} bytes long" if size > LONGEST_NAME else None
