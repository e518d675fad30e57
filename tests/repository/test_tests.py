"""The tests themselves: they mirror the packages, and each of them can fail."""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).parents[1]
PACKAGES = TESTS.parent / "src/voxelsoup"
# Beside the packages: end to end, on a cluster, of the repository, and what tests share.
OTHERS = {"on_slurm", "references", "repository", "support", "workflow"}
# They feed a whole package: files that are damaged, of many formats, or real.
OF_A_WHOLE_PACKAGE = {
    "bad_inputs",
    "formats",
    "fuzz",
    "real_case",
    "figures_of_cases",
    "figure_data",
}
FILES = sorted(TESTS.rglob("test_*.py"))
CHECKS = ("raises", "warns", "fail", "expect")


def modules_of(package: str) -> set[str]:
    """The names that a test file of a package may have: its own and those of its modules."""
    inside = (PACKAGES / package).rglob("*")
    return {package} | {path.stem for path in inside if path.suffix == ".py" or path.is_dir()}


def test_folders_are_those_of_the_packages() -> None:
    packages = {path.parent.name for path in PACKAGES.glob("*/__init__.py")}
    folders = {path.name for path in TESTS.iterdir() if path.is_dir() and path.name[0] not in "._"}
    assert folders == packages | OTHERS


def test_a_file_of_tests_is_named_after_the_module_that_it_tests() -> None:
    places = {file.relative_to(TESTS): file.stem.removeprefix("test_") for file in FILES}
    named = {path: name for path, name in places.items() if path.parts[0] not in OTHERS}
    assert len(named) > 60
    assert [
        str(path)
        for path, name in named.items()
        if name not in modules_of(path.parts[0]) | OF_A_WHOLE_PACKAGE
    ] == []


def checks(function: ast.FunctionDef) -> bool:
    """Whether a test has an assertion of its own, or a call that is one."""
    called = [
        node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        for node in ast.walk(function)
        if isinstance(node, ast.Call)
    ]
    asserts = any(isinstance(node, ast.Assert) for node in ast.walk(function))
    return asserts or any(name in CHECKS or name.startswith("assert_") for name in called)


def unchecked(source: str) -> list[str]:
    """The tests of a file that check nothing."""
    return [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not checks(node)
    ]


def test_every_test_checks_something() -> None:
    found = {str(file.relative_to(TESTS)): unchecked(file.read_text()) for file in FILES}
    assert len(found) > 80
    assert {file: names for file, names in found.items() if names} == {}


def test_a_test_that_checks_nothing_is_found() -> None:
    source = "def test_it_runs():\n    run()\n\ndef test_it_counts():\n    assert count() == 3\n"
    assert unchecked(source) == ["test_it_runs"]
