"""The single models of a fold, in one list: what soups and comparisons choose from.

Everything that follows the trainings reads this list instead of naming thousands of files.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import decoded, read_json, write_text
from voxelsoup.evaluation.case_scores import mean_dice, read_rows
from voxelsoup.runs.divergence import DivergedTrial, divergence_of
from voxelsoup.runs.rungs import DIVERGED, diverged_at_rungs
from voxelsoup.study.halving import kept_of
from voxelsoup.study.sections.sweep import Halving
from voxelsoup.study.study import Study

CANDIDATES = "candidates.tsv"
COLUMNS = ["model", "ingredient", "selection_score", "sha256"]
OWN = "model.safetensors"


@dataclass(frozen=True)
class Candidate:
    """A single model of a fold that has been scored.

    Attributes:
        model: id of its trial, or the id and a folder below it for other weights of its run.
        ingredient: whether it may go into soups.
    """

    model: str
    ingredient: bool
    selection_score: float
    sha256: str


def ranking(scores: Mapping[str, float]) -> list[str]:
    """Models, the best first: the one rule by which they are chosen, dropped and averaged.

    Of equal scores the model whose name sorts first comes first; NaN counts as the lowest score.
    """

    def place(model: str) -> tuple[float, str]:
        score = scores[model]
        return (math.inf if math.isnan(score) else -score), model

    return sorted(scores, key=place)


def best_model(candidates: Path) -> Path:
    """The file of a fold's best single model by its selection score, from the fold's list."""
    scores = {one.model: one.selection_score for one in read_candidates(candidates)}
    return candidates.parent / "trials" / ranking(scores)[0] / OWN


def scores_at_rung(
    fold: int, folders: Sequence[Path]
) -> tuple[dict[str, float], list[DivergedTrial]]:
    """Trial -> mean selection Dice at a rung, and those that have none because they diverged.

    Each trial's selection.csv and history.csv lie in a folder of its name.
    """
    scores, diverged = {}, []
    for folder in folders:
        with (folder / "history.csv").open(encoding="utf-8", newline="") as stream:
            *_, last = csv.DictReader(stream)
        if last["training_loss"] == "nan":
            where = int(last["epoch"]), int(last["step"])
            diverged.append(DivergedTrial(fold, folder.name, *where))
        else:
            scores[folder.name] = mean_dice(read_rows(folder / "selection.csv"))
    return scores, diverged


def rung_record(
    fold: int,
    rung: int,
    epochs: int,
    halving: Halving,
    scores: Mapping[str, float],
    diverged: Sequence[DivergedTrial] = (),
) -> dict[str, Any]:
    """What ``rungs/{rung}.json`` says: which trials were compared, and which continue.

    ``rung`` counts from 1, ``epochs`` are those at its end, and scores are mean selection Dice.
    Those that ``diverged`` count as the worst, and never continue.
    """
    ranked = ranking(scores)
    kept = ranked[: kept_of(halving, len(ranked) + len(diverged))]
    where = {one.trial: {"epoch": one.epoch, "step": one.step} for one in diverged}
    return {
        "fold": fold,
        "rung": rung,
        "epochs": epochs,
        "keep": halving.keep,
        "kept": kept,
        "scores": {trial: None if math.isnan(scores[trial]) else scores[trial] for trial in ranked},
        **({DIVERGED: where} if where else {}),
    }


def list_candidates(
    trials: Path,
    models: Sequence[str],
    ingredients: Collection[str],
    diverged: Collection[str] = (),
) -> list[Candidate]:
    """Read the scores and the hashes of a fold's models, but for trials that ``diverged``.

    Raises:
        InputError: if per-case scores or the record of a run cannot be read.
    """
    models = [model for model in models if model.partition("/")[0] not in diverged]
    hashes = {trial: _hashes(trials / trial / "run.json") for trial in trials_of(models)}
    found = []
    for model in models:
        trial, _, beside = model.partition("/")
        score = mean_dice(read_rows(trials / model / "selection.csv"))
        digest = hashes[trial].get(f"{beside}/{OWN}" if beside else OWN, "")
        found.append(Candidate(model, model in ingredients, score, digest))
    return found


def trials_of(models: Sequence[str]) -> dict[str, None]:
    """The trials that models come from, each once."""
    return dict.fromkeys(model.partition("/")[0] for model in models)


def _hashes(record: Path) -> Mapping[str, str]:
    models: Mapping[str, str] = read_json(record).get("models", {})
    if not models:
        raise InputError(
            record,
            "does not say what its models' SHA-256 are",
            "the record of a run of this version",
            "delete it: the run is written again from its last state",
        )
    return models


def write_candidates(
    path: Path, candidates: Sequence[Candidate], diverged: Collection[str] = ()
) -> None:
    """Write a fold's list, with all digits of the scores, and at its end trials that diverged."""
    stream = io.StringIO()
    lines = csv.writer(stream, delimiter="\t", lineterminator="\n")
    lines.writerow(COLUMNS)
    for candidate in candidates:
        kind = "yes" if candidate.ingredient else "no"
        score = repr(candidate.selection_score)
        lines.writerow([candidate.model, kind, score, candidate.sha256])
    lines.writerows([trial, DIVERGED, "", ""] for trial in diverged)
    write_text(path, stream.getvalue())


def read_candidates(path: Path) -> list[Candidate]:
    """Read a fold's list, without the trials that diverged: these have no models.

    Raises:
        InputError: if it is no such list.
    """
    rows = [row for row in _read_list(path) if row[1] != DIVERGED]
    return [Candidate(row[0], row[1] == "yes", float(row[2]), row[3]) for row in rows]


def read_diverged(path: Path) -> list[str]:
    """The trials of a fold's list that diverged.

    Raises:
        InputError: if it is no such list.
    """
    return [row[0] for row in _read_list(path) if row[1] == DIVERGED]


def _read_list(path: Path) -> list[list[str]]:
    rows = list(csv.reader(io.StringIO(decoded(path)), delimiter="\t"))
    if not rows or rows[0] != COLUMNS:
        raise InputError(
            path,
            f"has the columns {', '.join(rows[0]) if rows else 'of an empty file'}",
            f"the columns {', '.join(COLUMNS)}",
            "delete it, so that the workflow writes it again",
        )
    return rows[1:]


def diverged_trials(study: Study) -> list[DivergedTrial]:
    """All trials of a study that diverged and were left out, by fold: at rungs first."""
    found = diverged_at_rungs(study)
    for fold in study.folds.numbers:
        of_fold = Path(study.results, f"fold{fold}")
        listed = read_diverged(of_fold / CANDIDATES)
        found += filter(None, (divergence_of(fold, of_fold / "trials" / one) for one in listed))
    return sorted(found, key=lambda one: one.fold)


def models_of_folds(results: Path, folds: Sequence[int]) -> dict[int, list[str]]:
    """Fold -> its single models, in the order of its list."""
    lists = {fold: read_candidates(results / f"fold{fold}" / CANDIDATES) for fold in folds}
    return {fold: [candidate.model for candidate in found] for fold, found in lists.items()}


def runs_of_folds(
    results: Path, models: Mapping[int, Sequence[str]], stems: bool
) -> list[tuple[int, Path]]:
    """Fold and folder of the runs that models come from, each once; stems first if there are."""
    runs = []
    for fold, of_fold in models.items():
        names = ["stem"] * stems + [f"trials/{trial}" for trial in trials_of(of_fold)]
        runs += [(fold, results / f"fold{fold}" / name) for name in names]
    return runs
