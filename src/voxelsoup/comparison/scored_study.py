"""What a study has been scored on, and how: what is needed to set it beside other studies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import read_json
from voxelsoup.common.text import listed
from voxelsoup.comparison.names import in_a_sentence
from voxelsoup.comparison.study_entries import CHOSEN, ComparedModel, StudyEntry
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
from voxelsoup.study.configurations import FOLDER
from voxelsoup.study.study import Study

# What is read of each compared model: without and with post-processing.
TEST, POSTPROCESSED = "test.csv", "postprocessed.csv"
# What origins of a configuration call the results of its study.
STUDY = "<study>"
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
class ScoredModel:
    """A model of every fold, with its per-case scores of all test cases.

    Attributes:
        label: the study, and the configuration if it has any: ``brats (wide)``.
        after: the scores after post-processing.
    """

    model: ComparedModel
    label: str
    rows: pd.DataFrame
    after: pd.DataFrame

    @property
    def called(self) -> str:
        """``greedy soup of brats (wide)``."""
        return f"{in_a_sentence(self.model.title)} of {self.label}"


@dataclass(frozen=True)
class ScoredStudy:
    """A study whose compared models were scored on the test cases of all of its folds.

    Attributes:
        name: what it is called beside others, with the configuration that it stands there by.
        results: that hold its preprocessed cases.
        tested_in: test case -> its fold.
        models: those that are compared with other studies': the one that the study, or the
            configuration, is about (``comparison.primary``), and the best single model.
        cases: name -> the case as it was indexed.
        code: module -> hash of the code that scored; None if it was not written down.
    """

    name: str
    entry: StudyEntry
    tested_in: Mapping[str, int]
    models: tuple[ScoredModel, ScoredModel]
    cases: Mapping[str, IndexedCase]
    code: Mapping[str, str] | None

    @property
    def study(self) -> Study:
        """What it is scored by."""
        return self.entry.study

    @property
    def results(self) -> Path:
        """The folder that has its folds and its preprocessed cases."""
        return self.entry.own_results

    @property
    def protocol(self) -> str:
        """``held-out`` or ``published``."""
        return self.study.evaluation.protocol


def labelled(study: str, configuration: str) -> str:
    """What a study is called beside others: ``brats (wide)``."""
    return f"{study} ({configuration})" if configuration else study


def read_study_scores(name: str, entry: StudyEntry) -> ScoredStudy:
    """Read the scores of a study's compared models from its results folder.

    Args:
        name: of the study, without the configuration.

    Raises:
        InputError: naming what is missing of an unfinished study, or what its scores no longer
            fit; or if a file cannot be read.
    """
    # Cases and folds are the study's, whichever configuration it is.
    results, study = entry.results, entry.study
    _check_complete(entry)
    tested = _test_cases(results, study)
    cases = {case.name: case for case in read_cases(results / "cases.tsv")}
    _check_indexed(results, tested, cases)
    code = _check_current(entry)
    about, best = (
        ScoredModel(
            model,
            labelled(name, model.configuration),
            _rows(model, TEST, tested),
            _rows(model, POSTPROCESSED, tested),
        )
        for model in entry.models
    )
    return ScoredStudy(
        labelled(name, entry.configuration),
        entry,
        {case: fold for fold, cases in tested.items() for case in cases},
        (about, best),
        cases,
        code,
    )


def _check_complete(entry: StudyEntry) -> None:
    """Refuse a study that has not come to its end, with what it lacks."""
    wanted = [entry.results / name for name in ("cases.tsv", "folds.json")]
    wanted += [
        model.file(fold, name)
        for fold in entry.study.folds.numbers
        for model in dict.fromkeys(entry.models)
        for name in (TEST, POSTPROCESSED)
    ]
    missing = [
        str(path.relative_to(entry.results)) for path in dict.fromkeys(wanted) if not path.is_file()
    ]
    if missing:
        shown = listed(
            [*missing[:NAMED], *[f"{len(missing) - NAMED} more"] * (len(missing) > NAMED)]
        )
        raise InputError(
            entry.results,
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


def _rows(model: ComparedModel, name: str, tested: Mapping[int, Sequence[str]]) -> pd.DataFrame:
    """The per-case scores of a model, of the test cases of all folds."""
    parts = []
    for fold, cases in tested.items():
        path = model.file(fold, name)
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


def _check_current(entry: StudyEntry) -> dict[str, str] | None:
    """Refuse scores that are older than what they were made from; returns the code that scored.

    What was written by versions of voxelsoup that kept no origins cannot be checked.
    """
    code: dict[str, str] | None = None
    for results, output in _outputs(entry):
        origin = read_origin(path_of_origin(results, output))
        why = "" if origin is None else _why_outdated(origin, results, entry)
        if why:
            raise InputError(
                results / output,
                f"is no longer what the study is: {why}",
                "results of the study as it is now",
                FINISH_IT,
            )
        if origin is not None and output.endswith(TEST):
            code = origin.code
    return None if code is None else {name: code[name] for name in MEASURING if name in code}


def _outputs(entry: StudyEntry) -> Iterator[tuple[Path, str]]:
    """What the compared scores come from: results folder, and first output of a job in it."""
    about, best = entry.models
    by_choice = entry.chosen or entry.is_ensemble
    if by_choice:
        yield entry.results, CHOSEN
    if entry.names:
        # A copy of the study's, by which the configuration was scored.
        yield best.results, "folds.json"
    for fold in entry.study.folds.numbers:
        if by_choice:
            yield entry.results, f"{FOLDER}/fold{fold}/selection.csv"
        for name in (SCORED_BY, POSTPROCESSING):
            yield best.results, f"fold{fold}/{name}"
        if entry.is_ensemble:
            yield entry.results, f"{FOLDER}/fold{fold}/{TEST}"
        else:
            # An ensemble of one study's trials has a job of its own.
            yield about.results, f"fold{fold}/{about.folder}/recipe.json"


def _why_outdated(origin: Origin, results: Path, entry: StudyEntry) -> str:
    if not origin.finished:
        return "its job was interrupted"
    now = entry.study.model_dump(mode="json", include=set(SECTIONS))
    sections = [name for name in SECTIONS if name in origin.settings]
    changes = list(
        differences({n: origin.settings[n] for n in sections}, {n: now[n] for n in sections})
    )
    if changes:
        return in_words(changes)
    for name, made in origin.inputs.items():
        before = _origin_of_input(name, results, entry)
        if before is not None and before.id != made:
            return f"{name.partition('/')[2]} has changed since"
    return ""


def _origin_of_input(name: str, results: Path, entry: StudyEntry) -> Origin | None:
    """What an input, as origins in ``results`` call it, was made from; None if it is not known."""
    where, _, place = name.partition("/")
    if where not in (RESULTS, STUDY):
        return None
    folder = results if where == RESULTS else entry.results
    first, _, rest = place.partition("/")
    configuration, _, below = rest.partition("/")
    if first == FOLDER and configuration in entry.configurations:
        # Each configuration keeps the origins of its own results.
        folder, place = folder / FOLDER / configuration, below
    return read_origin(path_of_origin(folder, place))
