"""A study's configurations as studies of their own.

What the study says is its first configuration, which keeps its files; each further one is a study
with a folder of its own below the study's results, whose cases and folds are the study's.
"""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

from voxelsoup.study.merging import merged
from voxelsoup.study.sections.configuration import Configuration
from voxelsoup.study.study import Study

# What the study's own settings are called beside its configurations.
FIRST = "first"
FOLDER = "configurations"
# Between a study and one of its configurations, where a command names both.
SEPARATOR = ":"
SECTIONS = tuple(Configuration.model_fields)
# What belongs to the study as a whole, or to the network of the first configuration.
NOT_INHERITED = ("configurations", "ingredients", "predict", "final", "tracking", "notify")


def folder_of_configuration(results: str, name: str) -> str:
    """The results of a configuration of the study with these results."""
    return results if name == FIRST else f"{results}/{FOLDER}/{name}"


def content_of(config: dict[str, Any], study: Study, name: str) -> dict[str, Any]:
    """The study that a configuration is, as a study file would say it.

    Args:
        config: the study's own content, as it is written.
        study: the same, checked; ``name`` is one of its configurations.
    """
    content = {key: deepcopy(config[key]) for key in config if key not in NOT_INHERITED}
    comparison = dict(content.get("comparison") or {})
    for key in ("test_sets", "test_set_layouts", "other_tools"):
        comparison.pop(key, None)
    if "comparison" in content:
        content["comparison"] = comparison
    for section in SECTIONS:
        changes = getattr(study.configurations[name], section)
        before = content.get(section)
        # Another network has other settings.
        other = section == "network" and "name" in changes
        if changes and isinstance(before, dict) and not other:
            content[section] = merged(before, changes)
        elif changes:
            content[section] = changes
    content["results"] = folder_of_configuration(study.results, name)
    content["part_of"] = {"configuration": name, "results": study.results}
    return content


def preprocessing_of(study: Study) -> str:
    """What the preprocessed arrays of a study depend on: equal for those that can be shared."""
    settings = study.model_dump(mode="json", include={"preprocess": True, "training": {"patch"}})
    return json.dumps(settings, sort_keys=True)


def kind_of_models(study: Study) -> str:
    """What models have to have in common to be averaged: the network and what it is trained on."""
    network = study.model_dump(mode="json", include={"network": True})
    return json.dumps([network, preprocessing_of(study), study.training.mirror_axes])


def handed_over(study: Study) -> str:
    """The model that a configuration hands over of a fold, as a folder below the fold's.

    That which its primary question is about; the best single one if that is several networks.
    """
    model = study.primary.model
    return "best" if model in (None, "best", "ensemble") else f"soups/{model}"
