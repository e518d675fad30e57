"""The command `voxelsoup evaluate`: scores of a model, or of label maps, on a labelled data set."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from voxelsoup.commands.predict import add_model_options, check_numbers, print_remark
from voxelsoup.common.errors import PARTS, InputError
from voxelsoup.common.text import counted, listed

if TYPE_CHECKING:
    from voxelsoup.comparison.score_summary import Means
    from voxelsoup.evaluation.label_maps import RegionValues, ScoredPair
    from voxelsoup.prediction.ground_truth import GroundTruth
    from voxelsoup.prediction.model_files import ModelFile
    from voxelsoup.study.sections.evaluation import Metrics

SCORES, SUMMARY, LEFT_OUT, PREDICTIONS = "scores.csv", "summary", "left_out.tsv", "predictions"
NAMED = 5

Problems = dict[str, InputError]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The arguments and options of the command."""
    parser.add_argument(
        "targets",
        nargs="+",
        metavar="MODEL ... SCANS",
        help="one or more models, as for `voxelsoup predict`, then a labelled data set in any "
        "layout; with --predictions no model is needed, and a folder of label maps will do",
    )
    parser.add_argument(
        "--predictions",
        type=Path,
        metavar="FOLDER",
        help="score the label maps in this folder (CASE.nii.gz, CASE-seg.nii.gz, "
        "CASE_0000.nii.gz, or the one in a folder CASE), whoever made them; a file is scored as "
        "that of its case alone",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("evaluation"),
        metavar="FOLDER",
        help="where scores and predictions go; nothing in it is replaced (default: %(default)s)",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FOLDER",
        help="the label maps of SCANS, named after the cases, where it has none of its own",
    )
    parser.add_argument(
        "--study",
        type=Path,
        metavar="FILE",
        help="the study whose metrics, regions, background, ignored label value and regions that "
        "are not annotated in some cases count (default: the metrics, and these regions, of the "
        "one that made the model)",
    )
    parser.add_argument(
        "--regions",
        metavar="REGIONS",
        help="which label values of the ground truth each region has: WT=1+2+3,TC=1+3,ET=3 "
        "(default: the model's or study's, or what the data set describes)",
    )
    parser.add_argument(
        "--background",
        metavar="VALUES",
        help="label values that count as background: 4,5 (default: none but 0)",
    )
    add_model_options(parser)


def evaluate_command(asked: argparse.Namespace) -> int:
    """Run the command; returns the exit code, 1 if a case could not be scored.

    Raises:
        InputError: if an argument, an option or the data set as a whole is wrong, or there are
            scores in the output folder already.
    """
    *models, given = asked.targets
    _check_arguments(asked, models, given)
    from voxelsoup.common.machine import usable_cores
    from voxelsoup.evaluation.label_maps import score_pairs
    from voxelsoup.evaluation.metrics import scoring_of
    from voxelsoup.prediction.ground_truth import label_maps, labelled_scans

    files: list[ModelFile] = []
    if models:
        from voxelsoup.prediction.model_files import open_models

        files = open_models([Path(model) for model in models])
    judged_by = _judgement(asked, files)
    if asked.predictions is not None:
        truth = label_maps(given)
    else:
        called = asked.channels.split(",") if asked.channels else None
        channels = files[0].description.channels
        truth = labelled_scans(given, channels, called, asked.labels, print_remark, asked.layout)
    values = _values(asked, judged_by, truth, given)
    if asked.predictions is not None:
        pairs, problems = _existing(asked.predictions, truth)
    else:
        pairs, problems = _predicted(files, truth, asked)
    rows, unusable = score_pairs(
        pairs,
        values,
        scoring_of(judged_by.metrics),
        asked.threads or usable_cores(),
        by_voxels=asked.placement is not None,
    )
    problems |= unusable
    _write_problems(asked.output, problems)
    if rows.empty:
        _print_problems(problems)
        return 1
    from voxelsoup.comparison.score_summary import means_of, note_on_regions, write_means
    from voxelsoup.data.index.patients import patients_of
    from voxelsoup.evaluation.case_scores import write_rows

    write_rows(asked.output / SCORES, rows)
    means = means_of([rows], patients_of(truth.cases))
    caption = _caption(given, rows["case"].nunique(), len(problems), judged_by)
    caption += note_on_regions(means)
    write_means(means, asked.output / SUMMARY, caption)
    _print(caption, means, asked.output, truth)
    _print_problems(problems)
    return 1 if problems else 0


@dataclass(frozen=True)
class _Judgement:
    """By what label maps are scored, as a model or study says if one is named.

    Attributes:
        source: where the metrics' settings come from, in words.
        background: label values that the study counts as background.
        ignored: its label value of voxels that nobody has annotated.
        not_annotated: its regions that nobody has annotated in some cases, which it names.
    """

    metrics: Metrics
    regions: dict[str, list[int]] | None
    source: str
    background: frozenset[int] = frozenset()
    ignored: int | None = None
    not_annotated: Mapping[str, Sequence[str]] = field(default_factory=dict)


def _check_arguments(asked: argparse.Namespace, models: Sequence[str], given: str) -> None:
    check_numbers(asked)
    if not given or not all(models) or not (models or asked.predictions):
        raise InputError(
            "voxelsoup evaluate",
            "names no model" if not models else "has an empty argument",
            "MODEL [MODEL ...] SCANS, or SCANS --predictions FOLDER",
            "name at least one model and then the labelled scans, or the label maps to score",
        )
    if asked.layout is not None and asked.predictions is not None:
        raise InputError(
            "--layout",
            "is given with --predictions, which reads no channels",
            "label maps alone",
            "name the folder of the label maps in place of the data set, and leave --layout out",
        )
    there = [asked.output / name for name in (SCORES, f"{SUMMARY}.csv", LEFT_OUT)]
    found = next((path for path in there if path.exists()), None)
    if found is not None:
        raise InputError(
            found,
            "already exists",
            "a folder without scores: nothing is written over",
            "name another folder (--output FOLDER), or move this one away",
        )


def _judgement(asked: argparse.Namespace, files: Sequence[ModelFile]) -> _Judgement:
    from voxelsoup.prediction.study_of_model import study_of
    from voxelsoup.study.loading import read
    from voxelsoup.study.sections.evaluation import Metrics

    regions = dict(files[0].description.regions) if files else None
    if asked.study is not None:
        study = read(asked.study)
        if regions is not None and list(regions) != list(study.regions):
            raise InputError(
                asked.study,
                f"has the regions {listed(study.regions)}",
                f"those of {files[0].path}: {listed(regions)}",
                "name the study that the model was made by, or leave --study out",
            )
        regions = regions or study.regions
        return _Judgement(
            study.scored_metrics,
            regions,
            str(asked.study),
            frozenset(study.dataset.background),
            study.dataset.ignore_label,
            study.dataset.not_annotated,
        )
    for file in files[:1]:
        found = study_of(file.path)
        if found is not None:
            # Its label values may mean other things here, which the names of cases do not.
            hidden = found.not_annotated
            return _Judgement(found.metrics, regions, str(found.source), not_annotated=hidden)
    return _Judgement(Metrics(), regions, "the defaults; --study FILE takes those of a study")


def _values(
    asked: argparse.Namespace, judged_by: _Judgement, truth: GroundTruth, given: str
) -> RegionValues:
    """What the label values of the ground truth and of the predictions mean."""
    from voxelsoup.evaluation.label_maps import RegionValues
    from voxelsoup.prediction.ground_truth import parse_regions, regions_of_truth

    model, background = judged_by.regions, judged_by.background | _background(asked.background)
    if asked.regions is not None:
        stated = parse_regions(asked.regions)
        _check_regions(stated, model)
        of_truth = {name: stated[name] for name in model or stated}
    elif model is not None:
        of_truth = regions_of_truth(model, truth.regions, given)
    elif truth.regions:
        of_truth = truth.regions
    else:
        raise InputError(
            given,
            "does not say what its label values mean",
            "a model, a study (--study FILE), or a data set that describes its labels",
            "say it: --regions NAME=VALUE+VALUE,...",
        )
    if model is not None and of_truth != model:
        meant = "; ".join(f"{name}: {values}" for name, values in of_truth.items())
        print(f"label values of the ground truth, unlike the model's: {meant}")
    # What exists already is in the values of the data set, what is predicted in the model's.
    of_model = of_truth if model is None or asked.predictions is not None else model
    # What the data set says of itself comes first.
    ignored = judged_by.ignored if truth.ignored is None else truth.ignored
    return RegionValues(of_truth, of_model, background, ignored, judged_by.not_annotated)


def _check_regions(stated: Mapping[str, object], model: Mapping[str, object] | None) -> None:
    if model is not None and sorted(stated) != sorted(model):
        raise InputError(
            "--regions",
            f"names {listed(stated)}",
            f"each of the model's or study's regions once: {listed(model)}",
            "correct the option",
        )


def _background(text: str | None) -> frozenset[int]:
    values = text.split(",") if text else []
    if not all(value.strip().isdecimal() for value in values):
        raise InputError(
            f"--background {text}", "is no list of label values", "such as 4,5", "correct it"
        )
    return frozenset(map(int, values))


def _existing(folder: Path, truth: GroundTruth) -> tuple[list[ScoredPair], Problems]:
    """Label maps that exist, and the cases that have none."""
    from voxelsoup.evaluation.label_maps import ScoredPair
    from voxelsoup.prediction.ground_truth import label_maps_in, missing, strays

    found = label_maps_in(folder, [case.name for case in truth.cases])
    pairs, problems = [], Problems()
    cases = truth.cases
    if folder.is_file():
        cases = [case for case in cases if case.name in found]
        if not cases:
            raise InputError(
                folder,
                "has the name of no case with ground truth",
                f"the name of one of {_some([case.name for case in truth.cases])}",
                "rename the file",
            )
        print(f"{folder}: the one case that is scored is {cases[0].name}")
    for case in cases:
        if case.problem is not None:
            problems[case.name] = case.problem
        elif case.name not in found:
            problems[case.name] = missing(folder, case.name)
        elif case.label is not None:
            pairs.append(ScoredPair(case.name, case.label, found[case.name]))
    others = strays(folder, found)
    if others:
        print(f"{folder}: of no case with ground truth: {_some(others)}")
    return pairs, problems


def _predicted(
    files: Sequence[ModelFile], truth: GroundTruth, asked: argparse.Namespace
) -> tuple[list[ScoredPair], Problems]:
    """Label maps that models predict now; those of an evaluation that was ended are kept."""
    from voxelsoup.commands.predict import predict_with
    from voxelsoup.prediction.batch import OutputSettings
    from voxelsoup.prediction.ground_truth import predicted_pairs

    outputs = OutputSettings(asked.output / PREDICTIONS)
    outcomes = predict_with(files, truth.unlabelled_cases, outputs, asked)
    return predicted_pairs(truth, outputs.folder, outcomes)


def _write_problems(folder: Path, problems: Problems) -> None:
    from voxelsoup.common.files import make_folder, writable, write_tsv

    with writable(folder):
        make_folder(folder)
    if problems:
        rows = [{"case": case, **one.as_record()} for case, one in sorted(problems.items())]
        write_tsv(folder / LEFT_OUT, ["case", *PARTS], rows)


def _caption(given: str, cases: int, left_out: int, judged_by: _Judgement) -> str:
    more = f"; {counted(left_out, 'case')} could not be scored" if left_out else ""
    return (
        f"{given}: mean over {counted(cases, 'case')}{more}, with 95 % bootstrap intervals. "
        f"Settings of the metrics: {judged_by.source}."
    )


def _print(caption: str, means: Means, folder: Path, truth: GroundTruth) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from voxelsoup.comparison.score_summary import shown_means

    if truth.unlabelled:
        print(f"without a label map, and not scored: {_some(truth.unlabelled)}")
    shown = shown_means(means).T
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for region in shown.columns:
        table.add_column(region, justify="right")
    for metric, cells in shown.iterrows():
        table.add_row(str(metric), *cells)
    print(caption)
    console = Console(highlight=False)
    # For programs that read it, and for logs: no cell is broken.
    (console if console.is_terminal else Console(highlight=False, width=10_000)).print(table)
    print(f"{folder / SCORES}: the scores of each case; {folder / SUMMARY}.csv: this table")


def _print_problems(problems: Problems) -> None:
    if problems:
        count = counted(len(problems), "case")
        print(f"\nvoxelsoup: {count} could not be scored", file=sys.stderr)
    for case, problem in sorted(problems.items()):
        print(f"  - {case}: {problem}", file=sys.stderr)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
