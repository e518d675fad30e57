"""The score that is to be expected of the final model, from the folds, and what differs there."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from voxelsoup.common.files import write_text
from voxelsoup.common.text import counted, counted_range
from voxelsoup.comparison.names import OPTIMISTIC
from voxelsoup.comparison.pages import page
from voxelsoup.comparison.score_summary import Means, shown_mean
from voxelsoup.comparison.tables import heading
from voxelsoup.evaluation.case_scores import ALL_REGIONS
from voxelsoup.study.sections.training import StemSource

# What the trials of the final model start from.
STARTS: dict[StemSource, str] = {
    "train": "from a stem of the same cases",
    "checkpoint": "from the checkpoint of the study",
    "none": "from random weights",
}


def in_words(
    plan: Mapping[str, Any],
    cases: int,
    stem: StemSource,
    expected: Means,
    records: Sequence[Mapping[str, Any]],
) -> list[str]:
    """What the final model is, what score is to be expected, and what its folds did differently.

    Args:
        cases: that it was trained on.
        stem: what its trials start from (``stem.source``).
        expected: means of the test scores of the folds' own models of this kind.
        records: recipe.json of the folds' models that were made in the same way.
    """
    models, finished = len(plan["models"]), plan["lr"] is not None
    then = f", averaged and finished with the rate {plan['lr']:g}" if finished else " and averaged"
    folds = counted(plan["folds"], "fold")
    ingredients = [len(record["ingredients"]) for record in records]
    # Of a trial with several checkpoints each is a model.
    names = [one["model"] for one in plan["models"]]
    names += [one["trial"] for record in records for one in record["ingredients"]]
    several = any("/" in name for name in names)
    noun, of = ("model", "the study's trials") if several else ("trial", "the study")
    differs = [
        f"the scores of all folds chose its {noun}s, those of one fold the {noun}s of that fold",
        f"it was trained on all {cases} cases",
    ]
    if finished:
        differs.append(
            "its finish was trained towards the ensemble of its own trials, those of the folds "
            "towards that of theirs"
        )
    return [
        f"The final model is one network: {counted(models, noun)} of {of} "
        f"({plan['because']}), trained on all {cases} labelled cases {STARTS[stem]}{then}.",
        f"A mean Dice of {shown_mean(expected['dice'][ALL_REGIONS], 'dice')} is to be expected: "
        f"what the models made in the same way in {folds}, each of "
        f"{counted_range(ingredients, noun)}, scored on the test cases of their folds.",
        f"The final model differs from these: {'; '.join(differs)}.",
    ]


def write_expected(expected: Means, sentences: Sequence[str], protocol: str, path: Path) -> None:
    """Write the sentences and the expected scores as a page."""
    table = pd.DataFrame(
        {
            heading(metric): {region: shown_mean(value, metric) for region, value in means.items()}
            for metric, means in expected.items()
        }
    )
    table.index.name = "region"
    mark = f"<p><strong>{html.escape(OPTIMISTIC)}</strong></p>" if protocol == "published" else ""
    text = "".join(f"<p>{html.escape(sentence)}</p>\n" for sentence in sentences)
    shown = table.reset_index().to_html(border=0, index=False, justify="unset")
    write_text(path, page("The final model", f"{text}{mark}{shown}"))
