"""The best single model of each fold beside its soups: what tables, figures and statistics read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import read_json, read_tsv
from voxelsoup.comparison.names import BEST_MODEL, FINISHED, FINISHED_BEST, soup_title
from voxelsoup.evaluation.case_scores import by_case, mean_dice, read_rows, summary
from voxelsoup.soups.candidates import ranking


@dataclass(frozen=True)
class FoldComparison:
    """The best single model of a fold and its soups.

    Attributes:
        protocol: ``held-out`` or ``published``.
        best_trial: id of the trial with the highest selection score.
        rows: title (``Best Model``, ``Greedy Soup``, ...) -> per-case scores on the test cases.
        postprocessed: title -> those after post-processing; empty if they were not given.
        ingredients: title -> number of trials in the model.
        models_per_prediction: title -> networks that run for one prediction: the inference cost.
        selection_scores: trial id or title of a soup -> mean Dice on the selection cases.
        test_scores: trial id or title of a soup -> mean Dice on the test cases.
        case_scores: trial id or title of a soup -> test case -> mean Dice over its regions.
        patients: case -> patient; a case that is not named is its patient's only one.
        one_finish: whether the finished soup and the finished best single model are one model,
            since the soup had but one ingredient.
    """

    fold: int
    protocol: str
    best_trial: str
    rows: dict[str, pd.DataFrame]
    postprocessed: dict[str, pd.DataFrame]
    ingredients: dict[str, int]
    models_per_prediction: dict[str, int]
    selection_scores: dict[str, float]
    test_scores: dict[str, float]
    case_scores: dict[str, pd.Series]
    patients: Mapping[str, str] = field(default_factory=dict)
    one_finish: bool = False

    @property
    def columns(self) -> dict[str, dict[str, float]]:
        """Title -> summary on the test cases, as in the published tables."""
        return {title: summary(rows) for title, rows in self.rows.items()}

    @property
    def trials(self) -> list[str]:
        """Ids of the single models, those of checkpoints among them."""
        return [name for name in self.selection_scores if name not in self.rows]

    def patients_of(self, cases: Iterable[str]) -> list[str]:
        """The patient of each of some cases."""
        return [self.patients.get(case, case) for case in cases]


@dataclass(frozen=True)
class ModelFiles:
    """What is read of one model of a fold.

    Attributes:
        chosen_by: selection.csv of a single model, recipe.json of a soup.
        test: its per-case scores on the test cases.
        postprocessed: those after post-processing, of the models that are compared.
    """

    chosen_by: Path
    test: Path
    postprocessed: Path | None = None


def compare_fold(
    fold: int,
    trials: Mapping[str, ModelFiles],
    soups: Mapping[str, ModelFiles],
    protocol: str,
    best_postprocessed: Path | None = None,
    patients: Mapping[str, str] | None = None,
) -> FoldComparison:
    """Choose the best single model of a fold by its selection score and set it beside the soups.

    ``patients``: case -> patient.

    Raises:
        InputError: if per-case scores cannot be read, or two models were scored on different cases.
    """
    selections = {trial: read_rows(files.chosen_by) for trial, files in trials.items()}
    titled = {soup_title(recipe): files for recipe, files in soups.items()}
    records = {title: read_json(files.chosen_by) for title, files in titled.items()}
    tests = {name: read_rows(files.test) for name, files in {**trials, **titled}.items()}
    _check_same_cases(selections, {trial: files.chosen_by for trial, files in trials.items()})
    _check_same_cases(tests, {name: files.test for name, files in {**trials, **titled}.items()})
    selection_scores = {trial: mean_dice(rows) for trial, rows in selections.items()}
    best = ranking(selection_scores)[0]
    after = {BEST_MODEL: best_postprocessed}
    after |= {title: files.postprocessed for title, files in titled.items()}
    one = {BEST_MODEL: 1}
    return FoldComparison(
        fold=int(fold),
        protocol=protocol,
        best_trial=best,
        rows={BEST_MODEL: tests[best]} | {title: tests[title] for title in records},
        postprocessed={title: read_rows(path) for title, path in after.items() if path},
        ingredients=one | {title: len(record["ingredients"]) for title, record in records.items()},
        models_per_prediction=one
        | {title: int(record.get("models_per_prediction", 1)) for title, record in records.items()},
        selection_scores=selection_scores
        | {title: float(record["score"]) for title, record in records.items()},
        test_scores={name: mean_dice(rows) for name, rows in tests.items()},
        case_scores={name: by_case(rows) for name, rows in tests.items()},
        patients=patients or {},
        one_finish=_one_finish(records),
    )


def _one_finish(records: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether both finished models are one file; records of before do not say."""
    finishes = [records.get(title, {}).get("finish", {}) for title in (FINISHED, FINISHED_BEST)]
    hashes = {finish.get("sha256") for finish in finishes}
    return len(hashes) == 1 and hashes != {None}


def patients_of_cases(results: Path) -> dict[str, str]:
    """Case -> patient, of all usable cases of a study."""
    return {row["case"]: row["patient"] for row in read_tsv(results / "cases.tsv")}


def compare_study(
    results: Path,
    models: Mapping[int, Sequence[str]],
    recipes: Sequence[str],
    protocol: str,
    postprocessed: bool = True,
) -> list[FoldComparison]:
    """Compare the models of every fold, from the files of a results folder.

    Args:
        models: fold -> its single models.
    """
    patients = patients_of_cases(results)

    def files(fold: int, model: str, first: str, compared: bool) -> ModelFiles:
        folder = results / f"fold{fold}" / model
        after = folder / "postprocessed.csv" if compared and postprocessed else None
        return ModelFiles(folder / first, folder / "test.csv", after)

    return [
        compare_fold(
            fold,
            {trial: files(fold, f"trials/{trial}", "selection.csv", False) for trial in trials},
            {recipe: files(fold, f"soups/{recipe}", "recipe.json", True) for recipe in recipes},
            protocol,
            results / f"fold{fold}" / "best" / "postprocessed.csv" if postprocessed else None,
            patients,
        )
        for fold, trials in models.items()
    ]


def _check_same_cases(models: Mapping[str, pd.DataFrame], paths: Mapping[str, Path]) -> None:
    reference: tuple[str, list[tuple[str, str]]] | None = None
    for name, rows in models.items():
        scored = sorted(zip(rows["case"], rows["region"], strict=True))
        if reference is None:
            reference = name, scored
        elif scored != reference[1]:
            raise InputError(
                paths[name],
                f"has other cases or regions than {paths[reference[0]]}",
                "models of one fold that were scored on the same cases and regions",
                "delete the older of the two files, so that the workflow evaluates it again",
            )


def points(comparisons: Iterable[FoldComparison]) -> pd.DataFrame:
    """Every trial and soup of every fold as one point.

    Returns:
        ``fold``, ``name`` (trial id or title of the soup), ``kind`` (``Trial``, ``Best Model`` or
        the title of the soup), ``selection`` and ``test`` (mean Dice).
    """
    rows = []
    for c in comparisons:
        kinds = {c.best_trial: BEST_MODEL} | {title: title for title in c.rows}
        rows += [
            (c.fold, name, kinds.get(name, "Trial"), selection, c.test_scores[name])
            for name, selection in c.selection_scores.items()
        ]
    return pd.DataFrame(rows, columns=["fold", "name", "kind", "selection", "test"])
