"""TensorBoard events of an evaluation, beside those of the training of the same run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from voxelsoup.evaluation.case_scores import mean_dice, region_means, summary
from voxelsoup.training.tensorboard import PREFIX, EventFile, without_stopping_the_run

ENDING = ".evaluation"
SELECTION_SCORE = "selection/dice"


def write_evaluation(
    folder: Path, rows: pd.DataFrame, step: int, parameters: Mapping[str, Any]
) -> None:
    """Write what a run's own model scores on the selection cases, and its hyperparameters.

    Args:
        rows: per-case scores of the selection set. Those of test cases have no place here: people
            would choose by them.
        step: optimizer steps of the whole run.
    """
    score = mean_dice(rows)
    values = {SELECTION_SCORE: score, "selection/loss": summary(rows)["test_loss"]}
    values |= {f"{SELECTION_SCORE} {region}": dice for region, dice in region_means(rows).items()}
    with without_stopping_the_run(folder):
        earlier = list(folder.glob(f"{PREFIX}*{ENDING}"))
        file = EventFile(folder, ENDING)
        file.scalars(values, step)
        if parameters:
            file.hyperparameters(parameters, {SELECTION_SCORE: score})
        for path in earlier:
            path.unlink(missing_ok=True)
