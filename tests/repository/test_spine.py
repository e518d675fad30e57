"""The two paths through the packages, as docs/architecture.md lists them, are short and lead down.

Each is a numbered list below a heading, "A training" or "A soup"; an item begins with its file.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from support.documents import REPOSITORY

MOST_FILES = 14
WAYS = ("A training", "A soup")


def way(heading: str, page: str) -> list[str]:
    """The files of a numbered list below a heading."""
    section = re.search(rf"^#+ {heading}\b.*?$(.*?)(?=^#|\Z)", page, re.M | re.S)
    assert section, f"docs/architecture.md has no heading {heading!r}"
    return re.findall(r"^\d+\. `([^`]+)`", section[1], re.M)


def module_of(file: str) -> str:
    """The name by which a file of the library is imported; empty for other files."""
    if not file.startswith("src/"):
        return ""
    parts = Path(file).relative_to("src").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_by(source: str) -> set[str]:
    """All modules that a source in Python may import, also within functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def climbs(files: list[str]) -> list[tuple[str, str]]:
    """Pairs of a file and an earlier one of the list that it imports."""
    imports = {
        file: imported_by((REPOSITORY / file).read_text()) if file.endswith(".py") else set()
        for file in files
    }
    return [
        (later, earlier)
        for place, later in enumerate(files)
        for earlier in files[:place]
        if module_of(earlier) in imports[later]
    ]


@pytest.mark.parametrize("heading", WAYS)
def test_a_spine_has_few_files_each_once_and_never_climbs_back(heading: str) -> None:
    files = way(heading, (REPOSITORY / "docs/architecture.md").read_text())
    assert 5 <= len(files) <= MOST_FILES
    assert len(set(files)) == len(files)
    assert [file for file in files if not (REPOSITORY / file).is_file()] == []
    assert climbs(files) == []


def test_a_list_in_the_wrong_order_climbs_back() -> None:
    page = "## A soup, from rule to result\n\n1. `src/voxelsoup/common/files.py`: writes\n"
    page += "2. `src/voxelsoup/soups/averaging.py`: averages\n\n## Next\n\n1. `Snakefile`\n"
    files = way("A soup", page)
    assert files == ["src/voxelsoup/common/files.py", "src/voxelsoup/soups/averaging.py"]
    assert climbs(files[::-1]) == []
    source = (REPOSITORY / "src/voxelsoup/models/weight_files.py").read_text()
    assert "voxelsoup.common.files" in imported_by(source)
    assert climbs(["src/voxelsoup/common/files.py", "src/voxelsoup/models/weight_files.py"]) == [
        ("src/voxelsoup/models/weight_files.py", "src/voxelsoup/common/files.py")
    ]
