"""The documents for tests: their blocks of code, and a copy of the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from support.forked import SEARCHED, from_one_that_imported_them

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
NAMES = [str(page.relative_to(REPOSITORY)) for page in PAGES]
FENCE = re.compile(
    r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.S | re.M
)
NEEDED = (
    "Snakefile",
    "Makefile",
    "config.yaml",
    "pyproject.toml",
    "build_backend.py",
    "requirements.txt",
    "requirements-test.txt",
)
FOLDERS = ("src", "rules", "workflow", "profiles", "examples", "schema", "docs", "envs")


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        language: as it stands behind the fence.
        title: the file that it is; "" for none.
        text: its lines.
    """

    language: str
    title: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The command lines of a block for a shell, without remarks."""
        if self.language != "sh":
            return []
        joined = self.text.replace("\\\n", " ")
        lines = [re.sub(r"\s+#\s.*", "", line).strip() for line in joined.splitlines()]
        return [" ".join(line.split()) for line in lines if line and not line.startswith("#")]


def blocks_of(name: str) -> list[Block]:
    """The blocks of a page, in order."""
    text = (REPOSITORY / name).read_text()
    assert text.count("\n```") % 2 == 0, f"{name}: a block is not closed"
    return [
        Block(match["language"], match["title"] or "", match["text"])
        for match in FENCE.finditer(text)
    ]


def commands_of(name: str) -> list[str]:
    """The commands of a page, in order."""
    return [command for block in blocks_of(name) for command in block.commands]


class Copy:
    """A copy of the repository that a page can be followed in, with its compiled modules."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.packages = folder, folder / "packages"
        folder.mkdir(exist_ok=True)
        for name in NEEDED:
            shutil.copy(REPOSITORY / name, folder / name)
        for name in FOLDERS:
            left_out = shutil.ignore_patterns("*.egg-info", "images")
            shutil.copytree(REPOSITORY / name, folder / name, ignore=left_out)
        # `. .venv/bin/activate` is the environment that the tests run in.
        (folder / ".venv").symlink_to(sys.prefix)

    def apply(self, block: Block) -> None:
        """Write the file that a block is."""
        path = self.folder / block.title
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)

    def environment(self) -> dict[str, str]:
        """The variables of a shell that has activated the environment."""
        programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        searched = (self.folder / "src", self.packages, SEARCHED)
        return from_one_that_imported_them() | {
            "PATH": programs,
            "PYTHONPATH": os.pathsep.join(map(str, searched)),
            "COLUMNS": "120",
            "HOME": str(self.folder),
            # What is known of networks is known of any copy.
            "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),
        }

    def run(self, *command: str) -> str:
        """Run a program to its good end; returns what it printed."""
        result = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        printed = result.stdout + result.stderr
        assert result.returncode == 0, f"{' '.join(command)}\n{printed[-6000:]}"
        return printed

    def shell(self, line: str) -> str:
        """Run a command line; returns what it printed."""
        return self.run("bash", "-c", line)

    def python(self, text: str) -> str:
        """Run a block of Python; returns what it printed."""
        return self.run(sys.executable, "-c", text)
