"""Imports: packages downwards only, and nothing heavy in the plan."""

from __future__ import annotations

import os
import pkgutil
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import voxelsoup.status
from support.documents import REPOSITORY

# They take seconds to import, and a plan, a status or a list of trials needs none of them.
HEAVY = {"torch", "monai", "pandas", "mlflow", "wandb"}
AT_THE_TOP = re.compile(
    r"^(?:from voxelsoup\S* import (?:\([^)]*\)|[^\n]*)|import voxelsoup\S*)", re.M
)


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of a folder that has ``pyproject.toml`` and ``src``."""
    return subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder / "src")},
        capture_output=True,
        text=True,
    )


def test_packages_import_only_from_those_before_them() -> None:
    result = lint_imports(REPOSITORY)
    assert result.returncode == 0, result.stdout
    assert "2 kept, 0 broken" in result.stdout


def test_an_upward_import_is_found(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    shutil.copytree(REPOSITORY / "src/voxelsoup", tmp_path / "src/voxelsoup")
    with (tmp_path / "src/voxelsoup/common/files.py").open("a") as file:
        file.write("\nfrom voxelsoup.study import trials\n")
    result = lint_imports(tmp_path)
    assert result.returncode == 1
    assert "voxelsoup.common.files -> voxelsoup.study.trials" in result.stdout


def of_the_rules() -> list[str]:
    """The imports that the workflow's files make when they are read."""
    files = [REPOSITORY / "Snakefile", *sorted((REPOSITORY / "rules").glob("*.smk"))]
    return [found[0] for file in files for found in AT_THE_TOP.finditer(file.read_text())]


def heavy_after(statements: Iterable[str]) -> set[str]:
    """Those of the heavy packages that a fresh process has after some imports."""
    program = "\n".join([*statements, "import sys", "print(*sys.modules)"])
    loaded = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY / "src")},
        check=True,
        capture_output=True,
        text=True,
    )
    return HEAVY & set(loaded.stdout.split())


def test_the_package_itself_imports_nothing_heavy() -> None:
    assert heavy_after(["import voxelsoup"]) == set()


def test_reading_the_rules_imports_nothing_heavy() -> None:
    statements = of_the_rules()
    assert len(statements) > 10
    # Snakemake, which reads them, has imported pandas before.
    assert heavy_after(statements) == heavy_after(["import snakemake.api"]) == {"pandas"}


def test_the_status_and_the_command_line_import_nothing_heavy() -> None:
    modules = [
        f"voxelsoup.status.{found.name}"
        for found in pkgutil.iter_modules(voxelsoup.status.__path__)
    ]
    assert len(modules) > 5
    assert heavy_after(f"import {name}" for name in [*modules, "voxelsoup.commands.cli"]) == set()


def test_a_heavy_import_is_found() -> None:
    planted = "from voxelsoup.models.networks import build"
    assert heavy_after([*of_the_rules(), planted]) >= {"torch", "monai"}
