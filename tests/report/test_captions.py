"""Captions of the report, rendered as Snakemake renders them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from docutils.core import publish_parts
from jinja2 import Environment, StrictUndefined

from voxelsoup.report.captions import caption_values
from voxelsoup.study.loading import load

REPOSITORY = Path(__file__).parents[2]
CAPTIONS = {path.stem: path for path in (REPOSITORY / "workflow/report").glob("*.rst")}
# They show no scores; the first page says of the protocol in its own words what it means.
WITHOUT_SCORES = {"cases", "methods", "provenance", "rejected", "run_times", "study"}
WITHOUT_SCORES |= {"training_curves", "workflow"}
# No model was chosen by them, whatever the protocol.
NEVER_OPTIMISTIC = WITHOUT_SCORES | {"test_sets"}


def rendered(name: str, **changes: dict[str, Any]) -> str:
    """The caption's reStructuredText for the shipped study with some sections changed."""
    study = load(yaml.safe_load((REPOSITORY / "config.yaml").read_text()) | changes)
    environment = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.globals |= caption_values(study)
    # Captions take everything from the checked study.
    written = SimpleNamespace(config={})
    template = environment.from_string(CAPTIONS[name].read_text(encoding="utf-8"))
    return template.render(snakemake=written)


@pytest.mark.parametrize("name", sorted(CAPTIONS))
def test_captions_are_valid_and_mark_scores_of_the_published_protocol(name: str) -> None:
    scores = {"protocol": "published"}
    # What the first page includes is written by jobs.
    text = rendered(name, evaluation=scores).replace(".. include::", "..")
    publish_parts(text, writer="html", settings_overrides={"halt_level": 2})
    assert ("**Optimistic:**" in text) == (name not in NEVER_OPTIMISTIC)
    assert "**Optimistic:**" not in rendered(name)


def test_captions_show_defaults_that_the_study_does_not_name() -> None:
    assert "Mean dice loss on" in rendered("barriers", evaluation={})
    assert "Mean dice-bce loss on" in rendered("barriers", evaluation={"loss": "dice-bce"})
    assert "in 5 folds," in rendered("workflow", folds={})
    assert "in 1 fold," in rendered("workflow", folds={"count": 3, "run": [2]})


@pytest.mark.parametrize(
    ("stem", "words"),
    [
        ({"source": "none"}, "every trial starts from its own random weights"),
        ({"source": "checkpoint", "checkpoint": "a.safetensors"}, "fine-tune the given weights"),
        ({}, "one shared pre-trained model per fold"),
    ],
)
def test_the_first_page_names_the_initialisation_of_trials(
    stem: dict[str, Any], words: str
) -> None:
    assert words in rendered("workflow", stem=stem)
