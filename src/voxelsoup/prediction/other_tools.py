"""Label maps that other tools have made of a study's test cases: found, checked and scored."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import pandas as pd

from voxelsoup.common.errors import BadCases, InputError
from voxelsoup.common.files import json_sha256, read_json, write_json
from voxelsoup.common.machine import usable_cores
from voxelsoup.common.text import counted, listed
from voxelsoup.data.case import IndexedCase, Source
from voxelsoup.data.index.folder_hash import list_scans
from voxelsoup.data.layouts import find_cases
from voxelsoup.data.preprocessing.geometry import to_scanner
from voxelsoup.data.preprocessing.store import load_ground_truth
from voxelsoup.data.volumes.volume import without_suffix
from voxelsoup.evaluation.label_maps import RegionValues, ScoredPair, score_pairs
from voxelsoup.evaluation.metrics import Scoring, scoring_of
from voxelsoup.prediction.advice import as_of_a_study
from voxelsoup.prediction.ground_truth import label_maps_in, missing, strays
from voxelsoup.prediction.scans import volumes_in
from voxelsoup.study.study import Study

NAMED = 5
# MONAI's SaveImage calls its files so, and makes a folder for each that is called like its input.
MONAI_ENDINGS, INPUT_ENDINGS = ("_trans", "_0000_trans"), ("_0000",)
CHECKED = Path(".state", "other_tools.json")


@dataclass(frozen=True)
class ToolMaps:
    """The label maps of one tool.

    Attributes:
        found: case -> its label map.
        lacking: cases that have none.
        others: names of the label maps that belong to no asked case, below the folder.
    """

    found: dict[str, Source]
    lacking: list[str]
    others: list[str]


def files_of_tool(folder: Path) -> list[Path]:
    """All volumes in a folder and in the folders in it, where label maps may lie."""
    below = [path for path in sorted(folder.glob("[!.]*")) if path.is_dir()]
    return [path for place in (folder, *below) for path in volumes_in(place)]


def maps_of_tool(folder: Path, cases: Collection[str]) -> ToolMaps:
    """Find the label map of each case in a tool's folder.

    Raises:
        InputError: if there is no such folder, or it holds two label maps of one case.
    """
    found = label_maps_in(folder, cases)
    for case in cases:
        path = None if case in found else _of_monai(folder, case, cases)
        if path is not None:
            found[case] = Source(path)
    return ToolMaps(found, [c for c in cases if c not in found], strays(folder, found))


def _of_monai(folder: Path, case: str, cases: Collection[str]) -> Path | None:
    """What MONAI's SaveImage has written for a case, with or without a folder of its own."""
    names = {case + ending for ending in MONAI_ENDINGS} - {*cases}
    paths = [path for path in volumes_in(folder) if without_suffix(path.name) in names]
    for ending in INPUT_ENDINGS:
        inside = volumes_in(folder / f"{case}{ending}")
        paths += inside if len(inside) == 1 else []
    if len(paths) > 1:
        raise InputError(
            folder,
            f"holds both {paths[0].relative_to(folder)} and {paths[1].relative_to(folder)}",
            "one label map per case",
            "move one of them away",
        )
    return paths[0] if paths else None


def check_other_tools(study: Study, remember: bool = False) -> list[str]:
    """Make sure, before anything is computed, that the label maps of other tools can be scored.

    Every label map of a test case is read once: its values have to be those of regions, and its
    voxels those of the case's ground truth. As long as the folds are not made, it is known of some
    studies only which cases are tested; what is not known then, the job that scores refuses.

    Args:
        remember: write down in the results folder what was checked, and do not read it again as
            long as no file has changed.

    Returns:
        What is to be known, in words: label maps that belong to no test case.

    Raises:
        InputError: naming the folder that is missing, the cases that have no label map, or what is
            wrong with label maps.
    """
    tools = study.comparison.other_tools
    for name, folder in tools.items():
        if not Path(folder).is_dir():
            raise InputError(
                f"comparison.other_tools.{name}",
                f"there is no folder {folder} (looked for at {Path(folder).absolute()})",
                "a folder of label maps",
                "correct the path; relative paths count from the working directory",
            )
    labels = _labels(study) if tools else {}
    if not labels:
        return []
    known = read_json(path) if remember and (path := _record(study)).is_file() else {}
    notes = []
    for name, folder in tools.items():
        maps = maps_of_tool(Path(folder), _wanted(study, labels))
        _refuse_lacking(name, folder, maps, _tested(study) is not None or _all_are_tested(study))
        signature = _signature(study, folder, maps)
        if known.get(name) != signature:
            pairs = [ScoredPair(c, labels[c], s) for c, s in maps.found.items() if c in labels]
            # Dice alone: whatever is wrong with a label map comes to light.
            _, problems = score_pairs(
                pairs, values_of(study), Scoring(()), usable_cores(), _by_voxels(study)
            )
            _refuse(name, folder, problems)
            known[name] = signature
        if maps.others:
            notes.append(note_on_others(name, maps))
    if remember:
        write_json(_record(study), {name: known[name] for name in tools})
    return notes


def note_on_others(name: str, maps: ToolMaps) -> str:
    """That a tool's folder holds label maps of no test case."""
    return (
        f"other tool {name}: {counted(len(maps.others), 'label map')} of no test case of this "
        f"study, not scored: {_some(maps.others)}"
    )


def _labels(study: Study) -> dict[str, Source]:
    """Labelled case -> its label map in the data set; empty as long as a phantom is not made."""
    root = Path(study.dataset.root or "")
    if study.dataset.layout == "phantom":
        root = Path(study.results, "phantom")
        if not root.is_dir():
            return {}
    cases = find_cases(study.dataset, root)
    return {case.name: case.label for case in cases if case.label and case.problem is None}


def _tested(study: Study) -> list[str] | None:
    """The test cases of all folds; None as long as the folds are not made."""
    path = Path(study.results, "folds.json")
    return tested_cases(read_json(path)["folds"]) if path.is_file() else None


def tested_cases(folds: Mapping[str, Mapping[str, Sequence[str]]]) -> list[str]:
    """The test cases of all folds, each once, by name."""
    return sorted({case for parts in folds.values() for case in parts["test"]})


def _all_are_tested(study: Study) -> bool:
    """Whether every labelled case will be a test case, before folds are made."""
    folds = study.folds
    return folds.run is None and folds.file is None and study.dataset.on_bad_case == "stop"


def _wanted(study: Study, labels: Mapping[str, Source]) -> list[str]:
    return _tested(study) or sorted(labels)


def _refuse_lacking(name: str, folder: str, maps: ToolMaps, all_tested: bool) -> None:
    if not maps.lacking or (maps.found and not all_tested):
        return
    one = missing(Path(folder), maps.lacking[0])
    raise InputError(
        f"comparison.other_tools.{name}",
        f"{folder} holds no label map of {counted(len(maps.lacking), 'test case')}: "
        f"{_some(maps.lacking)}",
        f"a label map of every test case: {one.expected}",
        "add or rename the files; a tool is compared on all test cases or not at all",
    )


def _refuse(name: str, folder: str, problems: Mapping[str, InputError]) -> None:
    if problems:
        shown = {case: as_of_a_study(problem) for case, problem in sorted(problems.items())}
        raise BadCases(
            f"comparison.other_tools.{name} ({folder})",
            shown,
            f"or leave {name} out of `comparison.other_tools`",
        )


def _record(study: Study) -> Path:
    return Path(study.results) / CHECKED


def _signature(study: Study, folder: str, maps: ToolMaps) -> str:
    """What the check of a tool depends on."""
    dataset = study.dataset
    return json_sha256(
        {
            "files": list_scans(folder),
            "cases": sorted(maps.found),
            "regions": study.regions,
            "background": dataset.background,
            "ignored": dataset.ignore_label,
            "not_annotated": dataset.not_annotated,
            "placement": dataset.accept.placement,
        }
    )


def _by_voxels(study: Study) -> bool:
    return study.dataset.accept.placement is not None


def values_of(study: Study) -> RegionValues:
    """What label values mean, in the ground truth and in the label maps of other tools alike."""
    dataset = study.dataset
    return RegionValues(
        study.regions,
        study.regions,
        frozenset(dataset.background),
        dataset.ignore_label,
        dataset.not_annotated,
    )


def score_tool(
    name: str,
    folder: Path,
    cases: Sequence[IndexedCase],
    study: Study,
    root: Path,
    preprocessed: Path,
    scratch: Path,
    workers: int,
) -> tuple[pd.DataFrame, ToolMaps]:
    """Per-case scores of a tool's label maps of the test cases, by all metrics of the study.

    Args:
        root: folder of the data set.
        preprocessed: that of the preprocessed cases, which have the ground truth of cases that
            several raters have annotated.
        scratch: an empty folder for such ground truth.

    Raises:
        InputError: naming the cases that have no label map, or whose cannot be scored.
    """
    maps = maps_of_tool(folder, [case.name for case in cases])
    _refuse_lacking(name, str(folder), maps, all_tested=True)
    pairs = [
        ScoredPair(case.name, _truth(case, root, preprocessed, scratch), maps.found[case.name])
        for case in cases
    ]
    scoring = scoring_of(study.scored_metrics)
    rows, problems = score_pairs(pairs, values_of(study), scoring, workers, _by_voxels(study))
    _refuse(name, str(folder), problems)
    return rows, maps


def _truth(case: IndexedCase, root: Path, preprocessed: Path, scratch: Path) -> Source:
    """A case's ground truth: its file, or what its raters agree on."""
    assert case.label is not None
    if case.consensus is None:
        return case.label.below(root)
    geometry = read_json(preprocessed / f"{case.name}.json")
    label = to_scanner(load_ground_truth(preprocessed, case.name), geometry)
    path = scratch / f"{case.name}.nii.gz"
    nib.save(nib.Nifti1Image(label, geometry["original_affine"]), path)
    return Source(path)


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return listed([*names[:NAMED], *[f"{more} more"] * (more > 0)])
