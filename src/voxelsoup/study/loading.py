"""From a study file to a checked study, or to a message about everything that is wrong in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import read_text
from voxelsoup.common.text import did_you_mean
from voxelsoup.study import configurations
from voxelsoup.study.configurations import FIRST
from voxelsoup.study.merging import merged
from voxelsoup.study.sections.removed_recipes import without_removed
from voxelsoup.study.study import Study, check_across_sections


def load(config: dict[str, Any], where: str = "config.yaml") -> Study:
    """Check the content of a study file, as YAML gives it, and fill in its defaults.

    Raises:
        InputError: naming every wrong key with its path, what was found, what is allowed and
            the nearest right name.
    """
    try:
        study = Study.model_validate(config)
    except ValidationError as error:
        raise wrong_settings(error, where) from error
    check_across_sections(study, where)
    contents_of_configurations(config, study, where)
    return study


def load_with_configurations(
    config: dict[str, Any], where: str = "config.yaml"
) -> dict[str, Study]:
    """Name -> each configuration of a study as a study; the study itself is the first.

    Raises:
        InputError: as ``load``.
    """
    study = load(config, where)
    contents = contents_of_configurations(config, study, where)
    return {FIRST: study} | {name: load(content, where) for name, content in contents.items()}


def contents_of_configurations(
    config: dict[str, Any], study: Study, where: str = "config.yaml"
) -> dict[str, dict[str, Any]]:
    """The further configurations of a study: name -> the study that each is, as a file says it.

    Args:
        config: the study's content, as YAML gives it; ``study`` is the same, checked.

    Raises:
        InputError: if one is no study, or if its models could be averaged with another one's.
    """
    contents: dict[str, dict[str, Any]] = {}
    arrays = {configurations.preprocessing_of(study): study.results}
    models = {configurations.kind_of_models(study): FIRST}
    for name in study.configurations:
        content = configurations.content_of(config, study, name)
        its_own = load(content, f"{where}, configuration `{name}`")
        other = models.setdefault(configurations.kind_of_models(its_own), name)
        if other != name:
            raise InputError(
                f"{where}, configuration `{name}`",
                f"has the network, patch and preprocessing of configuration `{other}`",
                "models that cannot be averaged with those of another configuration",
                "sweep what they differ in (`sweep.grid`), or leave the configuration out",
            )
        source = arrays.setdefault(configurations.preprocessing_of(its_own), its_own.results)
        if source != its_own.results:
            content["part_of"]["preprocessed"] = source
        contents[name] = content
    return contents


def read(path: Path, *further: Path) -> Study:
    """Read and check a study file; further ones are merged into it, as Snakemake merges them.

    Raises:
        InputError: if a file is missing, is not YAML or has a wrong setting.
    """
    return load(_read_merged(path, *further), str((path, *further)[-1]))


def read_of_results(path: Path, *further: Path) -> Study:
    """Read the study that results were made from, those of earlier versions too.

    Soups of recipes that were removed since are left out.

    Raises:
        InputError: as ``read``.
    """
    content = without_removed(_read_merged(path, *further))
    return load(content, str((path, *further)[-1]))


def read_of_results_with_configurations(path: Path, *further: Path) -> dict[str, Study]:
    """``read_of_results``: name -> each configuration; the study itself is the first.

    Raises:
        InputError: as ``read``.
    """
    content = without_removed(_read_merged(path, *further))
    return load_with_configurations(content, str((path, *further)[-1]))


def read_with_configurations(path: Path) -> dict[str, Study]:
    """``load_with_configurations`` of a study file.

    Raises:
        InputError: as ``read``.
    """
    return load_with_configurations(_read_merged(path), str(path))


def _read_merged(*paths: Path) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for file in paths:
        config = merged(config, _read_config(file))
    return config


def wrong_settings(error: ValidationError, where: str, *parents: str) -> InputError:
    """One message of all that pydantic found in a study, or in its part below ``parents``."""
    found = error.errors()
    problems = [_explain({**one, "loc": (*parents, *one["loc"])}) for one in found]
    return InputError(
        where,
        f"{len(problems)} setting(s) are wrong\n" + "\n".join(f"  - {p}" for p in problems),
        "the settings described in docs/configuration.md",
        "correct the settings named above",
    )


def _explain(problem: dict[str, Any]) -> str:
    """Say in one line what pydantic found: key path, value, what is allowed, nearest name."""
    path = _dotted(problem["loc"])
    if problem["type"] == "extra_forbidden":
        *parents, key = problem["loc"]
        known = list(_fields_at(tuple(parents)))
        hint = did_you_mean(key, known)
        return f"`{path}`: there is no such key{hint} (allowed: {', '.join(known)})"
    if problem["type"] == "missing":
        return f"`{path}`: is missing"
    # Without the password of an address.
    found = re.sub(r"//[^/@\s]+@", "//...@", repr(problem["input"]))
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "literal_error":
        allowed = re.findall(r"'([^']*)'", problem["ctx"]["expected"])
        message += did_you_mean(problem["input"], allowed)
    if problem["input"] is None:
        message += "; the key is empty: give it a value, or leave it out"
    shown = found if len(found) <= 80 else found[:77] + "..."
    return f"`{path}`: {message} (found: {shown})"


def _dotted(path: tuple[int | str, ...]) -> str:
    """``("sweep", "also", 0, "grid")`` -> ``sweep.also[0].grid``."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(parts).removeprefix(".") or "the study"


def _fields_at(path: tuple[int | str, ...]) -> dict[str, Any]:
    """Names of the keys that the section at ``path`` knows."""
    section: type[BaseModel] = Study
    named = False
    for part in path:
        # Places in a list, and names of a mapping's sections, stand for no key.
        if isinstance(part, int) or named:
            named = False
            continue
        field = section.model_fields.get(str(part))
        candidates = [] if field is None else [field.annotation, *get_args(field.annotation)]
        sections = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not sections:
            return {}
        section = sections[0]
        named = field is not None and get_origin(field.annotation) is dict
    return dict(section.model_fields)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(read_text(path, "a study file", "check the path"))
    except yaml.YAMLError as error:
        raise InputError(path, f"is not YAML: {error}", "a YAML file", "fix its syntax") from error
    if not isinstance(config, dict):
        raise InputError(path, "holds no settings", "a mapping of settings", "see config.yaml")
    return config
