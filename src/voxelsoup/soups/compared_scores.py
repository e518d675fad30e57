"""Scores of a fold's compared models on its test cases: each model predicts them at most once.

The best single model, and a soup of one ingredient, have the weights of a trial, whose own rule has
scored them. Where the fold's post-processing changes nothing, these scores are all there is to say.
Where it does, the trial's cases are predicted a second time: what is changed are probabilities,
which nobody keeps of test cases, and the choice needs the scores of all models first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pandas as pd

from voxelsoup.common.files import sha256
from voxelsoup.evaluation.case_scores import COLUMNS, read_rows
from voxelsoup.runs.origins import code_of_plug_ins, code_of_rule, was_made_by
from voxelsoup.soups.candidates import OWN, read_candidates
from voxelsoup.study.study import Study

SCORED_ON = ("folds.json", "preprocessed.tsv")


class BothScores(NamedTuple):
    """Per-case scores of a model, without and with post-processing."""

    before: pd.DataFrame
    after: pd.DataFrame


class Scorer(Protocol):
    """Predicts all test cases by the model of a file, and scores them by all metrics."""

    def before(self, model: Path) -> pd.DataFrame:
        """Scores without post-processing."""

    def after(self, model: Path) -> pd.DataFrame:
        """Scores with post-processing."""

    def both(self, model: Path) -> BothScores:
        """Both, of the same predictions."""


def compared_scores(
    models: Sequence[Path], known: Mapping[str, Path], scorer: Scorer, changes: bool
) -> list[BothScores]:
    """The scores of models, in their order.

    Args:
        known: SHA-256 of weights -> file of their scores (``known_scores``).
        scorer: asked for what is not known, and once for models of the same weights.
        changes: whether the post-processing may change a prediction.
    """
    found: dict[str, BothScores] = {}
    digests = [sha256(model) for model in models]
    for model, digest in zip(models, digests, strict=True):
        if digest in found:
            continue
        before = read_rows(known[digest]) if digest in known else None
        if not changes:
            before = scorer.before(model) if before is None else before
            found[digest] = BothScores(before, before)
        elif before is None:
            found[digest] = scorer.both(model)
        else:
            found[digest] = BothScores(before, scorer.after(model))
    return [found[digest] for digest in digests]


def known_scores(
    candidates: Path, study: Study, cases: Sequence[str], settings: Mapping[str, Any]
) -> dict[str, Path]:
    """SHA-256 of weights -> per-case scores of a fold's single model on its test cases.

    Of those alone that are what the asking rule would compute: the same cases, by the same code,
    with the same settings, from the same arrays.

    Args:
        candidates: the fold's list; one that is not there lists nothing.
        settings: `evaluation` and `metrics` of the asking rule.
    """
    listed = read_candidates(candidates) if candidates.is_file() else []
    return {
        one.sha256: scores
        for one in listed
        if (scores := candidates.parent / "trials" / one.model / "test.csv").is_file()
        and _is_current(candidates.parent, one.model.partition("/")[0], study, settings)
        and _is_complete(scores, cases, study.metrics.names)
    }


def _is_current(fold: Path, trial: str, study: Study, settings: Mapping[str, Any]) -> bool:
    """Whether the job that scored a trial, or a given model, would write the same today."""
    place = f"{fold.name}/trials/{trial}"
    model = f"{place}/{OWN}"
    return any(
        was_made_by(
            fold.parent,
            output,
            code_of_rule(rule) | code_of_plug_ins(rule, settings, study.network.name, None),
            settings,
            inputs,
        )
        for rule, output, inputs in (
            ("evaluate", f"{place}/selection.csv", (*SCORED_ON, model)),
            ("ingredient", model, SCORED_ON),
        )
    )


def _is_complete(scores: Path, cases: Sequence[str], metrics: Sequence[str]) -> bool:
    rows = read_rows(scores)
    return [*dict.fromkeys(rows["case"])] == [*cases] and {*rows.columns} == {*COLUMNS, *metrics}
