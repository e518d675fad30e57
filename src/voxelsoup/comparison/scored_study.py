"""What a study has been scored on, and how: what is needed to set it beside other studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import read_json
from voxelsoup.common.text import listed
from voxelsoup.comparison.names import BEST_MODEL, primary_titles
from voxelsoup.data.case import IndexedCase
from voxelsoup.data.index.index import read_cases
from voxelsoup.evaluation.case_scores import read_rows
from voxelsoup.runs.origins import (
    RESULTS,
    Origin,
    differences,
    in_words,
    path_of_origin,
    read_origin,
)
from voxelsoup.study.study import Study

# What is read of each compared model: without and with post-processing.
TEST, POSTPROCESSED = "test.csv", "postprocessed.csv"
# The scores of all compared models but an ensemble are written by one job.
SCORED_BY, POSTPROCESSING = "best/test.csv", "postprocessing.json"
# Sections of a study that scores depend on beside what they were made from.
SECTIONS = ("evaluation", "metrics", "postprocessing")
# The modules that decide what a score of a given prediction is.
MEASURING = ("data.regions", "evaluation.lesions", "evaluation.metrics", "evaluation.surfaces")
NAMED = 5
FINISH_IT = (
    "run the study to its end (`voxelsoup status` says what is missing), or compare without it"
)


@dataclass(frozen=True)
class ScoredStudy:
    """A study whose compared models were scored on the test cases of all of its folds.

    Attributes:
        name: what it is called beside others.
        tested_in: test case -> its fold.
        titles: the two models that are compared with those of other studies: the one that the
            study is about (``comparison.primary``), and the best single model.
        rows: title -> per-case scores of all test cases.
        postprocessed: the same after post-processing.
        cases: name -> the case as it was indexed.
        code: module -> hash of the code that scored; None if it was not written down.
    """

    name: str
    results: Path
    study: Study
    tested_in: Mapping[str, int]
    titles: tuple[str, str]
    rows: Mapping[str, pd.DataFrame]
    postprocessed: Mapping[str, pd.DataFrame]
    cases: Mapping[str, IndexedCase]
    code: Mapping[str, str] | None

    @property
    def protocol(self) -> str:
        """``held-out`` or ``published``."""
        return self.study.evaluation.protocol


def read_study_scores(name: str, results: Path, study: Study) -> ScoredStudy:
    """Read the scores of a study's compared models from its results folder.

    Raises:
        InputError: naming what is missing of an unfinished study, or what its scores no longer
            fit; or if a file cannot be read.
    """
    primary = str(study.primary.model)
    folders = {primary_titles(study.primary)[0]: f"soups/{primary}", BEST_MODEL: "best"}
    _check_complete(results, study, folders.values())
    tested = _test_cases(results, study)
    cases = {case.name: case for case in read_cases(results / "cases.tsv")}
    _check_indexed(results, tested, cases)
    code = _check_current(results, study)
    titles = list(folders)
    return ScoredStudy(
        name=name,
        results=results,
        study=study,
        tested_in={case: fold for fold, cases in tested.items() for case in cases},
        titles=(titles[0], titles[-1]),
        rows={title: _rows(results, folder, TEST, tested) for title, folder in folders.items()},
        postprocessed={
            title: _rows(results, folder, POSTPROCESSED, tested)
            for title, folder in folders.items()
        },
        cases=cases,
        code=code,
    )


def _check_complete(results: Path, study: Study, folders: Any) -> None:
    """Refuse a study that has not come to its end, with what it lacks."""
    wanted = ["cases.tsv", "folds.json"]
    wanted += [
        f"fold{fold}/{folder}/{name}"
        for fold in study.folds.numbers
        for folder in folders
        for name in (TEST, POSTPROCESSED)
    ]
    missing = [name for name in wanted if not (results / name).is_file()]
    if missing:
        shown = listed(
            [*missing[:NAMED], *[f"{len(missing) - NAMED} more"] * (len(missing) > NAMED)]
        )
        raise InputError(
            results,
            f"is not finished: {shown} {'is' if len(missing) == 1 else 'are'} missing",
            "the scores of the compared models in every fold of the study",
            FINISH_IT,
        )


def _test_cases(results: Path, study: Study) -> dict[int, list[str]]:
    """Fold -> its test cases."""
    content = read_json(results / "folds.json")
    missing = [fold for fold in study.folds.numbers if str(fold) not in content["folds"]]
    if missing or content["protocol"] != study.evaluation.protocol:
        found = f"has no fold {missing[0]}" if missing else f"is of `{content['protocol']}`"
        raise InputError(
            results / "folds.json",
            found,
            f"folds {', '.join(map(str, study.folds.numbers))} by the protocol "
            f"`{study.evaluation.protocol}`, as the study says",
            FINISH_IT,
        )
    return {fold: content["folds"][str(fold)]["test"] for fold in study.folds.numbers}


def _check_indexed(
    results: Path, tested: Mapping[int, Sequence[str]], cases: Mapping[str, IndexedCase]
) -> None:
    gone = [case for names in tested.values() for case in names if case not in cases]
    if gone:
        raise InputError(
            results / "cases.tsv",
            f"does not list {gone[0]}, which folds.json has as a test case",
            "the cases that the folds were made of",
            FINISH_IT,
        )


def _rows(
    results: Path, folder: str, name: str, tested: Mapping[int, Sequence[str]]
) -> pd.DataFrame:
    """The per-case scores of a model, of the test cases of all folds."""
    parts = []
    for fold, cases in tested.items():
        path = results / f"fold{fold}" / folder / name
        rows = read_rows(path)
        if {*rows["case"]} != {*cases}:
            raise InputError(
                path,
                "has scores of other cases than the test cases of its fold in folds.json",
                f"scores of {len(cases)} cases",
                FINISH_IT,
            )
        parts.append(rows)
    return pd.concat(parts, ignore_index=True)


def _check_current(results: Path, study: Study) -> dict[str, str] | None:
    """Refuse scores that are older than what they were made from; returns the code that scored.

    What was written by versions of voxelsoup that kept no origins cannot be checked.
    """
    code: dict[str, str] | None = None
    for fold in study.folds.numbers:
        # An ensemble has a job of its own.
        for name in (SCORED_BY, POSTPROCESSING, f"soups/{study.primary.model}/recipe.json"):
            output = f"fold{fold}/{name}"
            origin = read_origin(path_of_origin(results, output))
            why = "" if origin is None else _why_outdated(origin, results, study)
            if why:
                raise InputError(
                    results / output,
                    f"is no longer what the study is: {why}",
                    "results of the study as it is now",
                    FINISH_IT,
                )
            if origin is not None and name == SCORED_BY:
                code = origin.code
    return None if code is None else {name: code[name] for name in MEASURING if name in code}


def _why_outdated(origin: Origin, results: Path, study: Study) -> str:
    if not origin.finished:
        return "its job was interrupted"
    now = study.model_dump(mode="json", include=set(SECTIONS))
    sections = [name for name in SECTIONS if name in origin.settings]
    changes = list(
        differences({n: origin.settings[n] for n in sections}, {n: now[n] for n in sections})
    )
    if changes:
        return in_words(changes)
    for name, made in origin.inputs.items():
        place = name.removeprefix(f"{RESULTS}/")
        before = read_origin(path_of_origin(results, place)) if place != name else None
        if before is not None and before.id != made:
            return f"{place} has changed since"
    return ""
