"""The container recipes agree with each other and with the pinned environment.

No image is built here: there is no container tool, and its registry cannot be reached.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

REPOSITORY = Path(__file__).parents[2]
RECIPES = ("Dockerfile", "envs/voxelsoup.def")


def commands(recipe: str) -> list[list[str]]:
    """The shell commands of a recipe, as words."""
    text = (REPOSITORY / recipe).read_text().replace("\\\n", " ")
    if recipe == "Dockerfile":
        lines = [line.removeprefix("RUN ") for line in text.splitlines() if line.startswith("RUN ")]
    else:
        lines = text.partition("%post")[2].partition("%runscript")[0].splitlines()
    steps = [step for line in lines for step in line.split("&&")]
    return [shlex.split(step) for step in steps if step.strip()]


def installed(recipe: str, tool: str) -> list[list[str]]:
    """What a recipe's commands of a tool install, without their options."""
    found = [words[2:] for words in commands(recipe) if words[:2] == [tool, "install"]]
    return [[word for word in words if not word.startswith("--")] for words in found]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_installs_the_pinned_packages_and_nothing_else(recipe: str) -> None:
    # The package itself last, whose dependencies are all pinned.
    assert installed(recipe, "pip") == [["-r", "requirements.txt"], ["."]]
    (own,) = [words for words in commands(recipe) if words[-2:] == ["--editable", "."]]
    assert "--no-deps" in own


def test_the_recipes_are_of_one_system(tmp_path: Path) -> None:
    images = {
        re.search(r"^F(?:ROM|rom:) (\S+)$", (REPOSITORY / recipe).read_text(), re.M)[1]
        for recipe in RECIPES
    }
    assert len(images) == 1
    (packages,) = {str(installed(recipe, "apt-get")) for recipe in RECIPES}
    # Of the packages that CI adds for tests, only what a study itself needs.
    assert packages == "[['git']]"
    (version,) = re.findall(r"python:([0-9.]+)-", images.pop())
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert version in SpecifierSet(project["project"]["requires-python"])
    environment = yaml.safe_load((REPOSITORY / "envs" / "voxelsoup.yaml").read_text())
    (python,) = [d for d in environment["dependencies"] if str(d).startswith("python ")]
    assert version in SpecifierSet(python.removeprefix("python "))


def test_files_ignored_by_git_stay_out_of_images() -> None:
    ignored = (REPOSITORY / ".dockerignore").read_text().split()
    removed = [words for words in commands("envs/voxelsoup.def") if words[:2] == ["rm", "-rf"]]
    for folder in (".venv", ".snakemake", "results"):
        assert folder in ignored
        assert folder in removed[1]
