"""The lists of packages agree, and generated files are current."""

from __future__ import annotations

from pathlib import Path

import yaml

from voxelsoup.study.reference import configuration_reference, schema_text

REPOSITORY = Path(__file__).parents[2]


def pins(file: str) -> set[str]:
    lines = (REPOSITORY / file).read_text().splitlines()
    return {line for line in lines if "==" in line}


def test_the_conda_environment_has_the_pinned_versions() -> None:
    environment = yaml.safe_load((REPOSITORY / "envs" / "voxelsoup.yaml").read_text())
    (pip,) = [part["pip"] for part in environment["dependencies"] if isinstance(part, dict)]
    assert set(pip) == pins("requirements.txt")


def test_torch_is_pinned_to_the_version_that_has_a_cpu_wheel_here() -> None:
    assert "torch==2.13.0" in pins("requirements.txt")


def test_the_reference_and_the_schema_are_current() -> None:
    assert (REPOSITORY / "docs/configuration.md").read_text() == configuration_reference()
    assert (REPOSITORY / "schema/study.schema.json").read_text() == schema_text()


def test_the_first_line_of_studies_names_the_schema() -> None:
    for file in (REPOSITORY / "config.yaml", *(REPOSITORY / "examples").glob("*.yaml")):
        first = file.read_text().splitlines()[0]
        schema = file.parent / first.removeprefix("# yaml-language-server: $schema=")
        assert schema.resolve() == REPOSITORY / "schema/study.schema.json"
