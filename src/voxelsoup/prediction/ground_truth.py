"""Cases with ground truth to score on, and the label maps that someone has predicted of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from voxelsoup.common.errors import InputError
from voxelsoup.common.plug_ins import is_plug_in
from voxelsoup.data.case import Case, Source
from voxelsoup.data.layouts import find_cases
from voxelsoup.data.layouts.case_names import check_case_names
from voxelsoup.data.layouts.detect import clean_names, guess
from voxelsoup.data.layouts.label_names import LabelNames
from voxelsoup.data.volumes.volume import SUFFIXES, is_volume, without_suffix
from voxelsoup.evaluation.label_maps import ScoredPair
from voxelsoup.prediction.outcomes import CaseOutcome, files_of_prediction
from voxelsoup.prediction.scans import DESCRIPTIONS, find_scans, volumes_in

log = logging.getLogger(__name__)

# The endings of the BraTS challenges' label maps.
LABEL_ENDINGS = ("", "-seg", "_seg")
# Label maps that are called like the one channel of their scan, in nnU-Net's way.
KNOWN_ENDINGS = (*LABEL_ENDINGS, "_0000")


@dataclass(frozen=True)
class GroundTruth:
    """Cases to score on.

    Attributes:
        cases: those with a label map; without channels where only label maps were looked for.
        unlabelled: names of the cases without one, which cannot be scored.
        regions: region -> label values, where the data set itself says what its values are.
        ignored: the label value of voxels that nobody has annotated, if it names one.
    """

    cases: list[Case]
    unlabelled: list[str]
    regions: dict[str, list[int]]
    ignored: int | None = None

    @property
    def unlabelled_cases(self) -> list[Case]:
        """The cases to score on, without their label maps: as they are predicted."""
        return [replace(case, label=None) for case in self.cases]


def labelled_scans(
    given: str,
    channels: Sequence[str],
    called: Sequence[str] | None = None,
    labels: Path | None = None,
    report: Callable[[str], None] = log.warning,
    layout: str | None = None,
) -> GroundTruth:
    """The cases of an input (``find_scans``) whose label maps are known.

    Args:
        labels: a folder of label maps named after the cases, where the input has none of its own.
        report: called with each thing that was assumed or left out, in words.
        layout: of the input; by default it is found out, among the project's own.

    Raises:
        InputError: as ``find_scans``, and if no case has a label map.
    """
    cases = find_scans(given, channels, called, report, with_labels=True, layout=layout)
    if labels is not None:
        found = label_maps_in(labels, [case.name for case in cases])
        cases = [replace(case, label=found.get(case.name, case.label)) for case in cases]
    return _checked(cases, described_labels(Path(given), layout), given)


def label_maps(given: str) -> GroundTruth:
    """The label maps of a labelled data set, of a folder that holds nothing but label maps, or one.

    Raises:
        InputError: if there is no such folder, or none of its cases has a label map.
    """
    folder = Path(given)
    plain = [folder] if folder.is_file() and is_volume(given) else volumes_in(folder)
    if plain and not any((folder / name).is_file() for name in DESCRIPTIONS):
        cases = [Case(_case_of(path), {}, Source(path)) for path in plain]
        check_case_names(cases, folder)
        return GroundTruth(cases, [], {})
    found = guess(folder)
    return _checked(find_cases(found.dataset, found.root), found.labels, given)


def described_labels(folder: Path, layout: str | None = None) -> LabelNames:
    """What a data set says of its label values; nothing where it has no description.

    Layouts of other packages say nothing of them.
    """
    of_package = layout is not None and is_plug_in("layouts", layout)
    if of_package or not any((folder / name).is_file() for name in DESCRIPTIONS):
        return LabelNames()
    return guess(folder, layout).labels


def regions_of_truth(
    model: Mapping[str, list[int]], described: Mapping[str, list[int]], where: str
) -> dict[str, list[int]]:
    """A model's regions with their label values in a data set, in the model's order.

    Where a data set describes all of them by name and with other values, its own values count. A
    description of the value that a region has alone agrees with the model: 2 for WT = {1, 2, 3}.

    Raises:
        InputError: if it describes some of them, and with other values than the model's.
    """
    known = {name.lower(): values for name, values in described.items()}
    same = {name: known[name.lower()] for name in model if name.lower() in known}
    other = [name for name, values in same.items() if not set(values) <= set(model[name])]
    if other and len(same) < len(model):
        raise InputError(
            where,
            f"describes `{other[0]}` as the label values {same[other[0]]}, and the model has "
            f"{list(model[other[0]])}",
            "the same meaning of the values, or a description of all regions: " + ", ".join(model),
            "say what the values of the ground truth mean: --regions NAME=VALUE+VALUE,...",
        )
    return {name: list(same[name] if other else values) for name, values in model.items()}


def parse_regions(text: str) -> dict[str, list[int]]:
    """Read ``WT=1+2+3,TC=1+3,ET=3``; raises InputError."""
    pairs = [part.partition("=") for part in text.split(",")]
    regions = {name.strip(): values.split("+") for name, _, values in pairs}
    whole = all(value.strip().isdecimal() for values in regions.values() for value in values)
    if len(regions) < len(pairs) or "" in regions or not whole:
        raise InputError(
            "--regions",
            f"is {text!r}",
            "NAME=VALUE+VALUE of each region, separated by commas",
            "write it like WT=1+2+3,TC=1+3,ET=3",
        )
    return {name: [int(value) for value in values] for name, values in regions.items()}


def label_maps_in(place: Path, cases: Iterable[str]) -> dict[str, Source]:
    """Case -> its label map in a folder, or in the folder below that is called like the case.

    It is called ``CASE.nii.gz`` (or another format), ``CASE-seg`` or ``CASE_0000``; in a folder of
    its own, the only volume is it whatever it is called. A file in the folder's place is the label
    map of the case whose name it has, or of the only case.

    Raises InputError if there is no such folder or file, or it holds two label maps of one case.
    """
    if not place.is_dir() and not (place.is_file() and is_volume(place.name)):
        raise InputError(
            place, "no such folder", "a folder of label maps, or one", "check the path"
        )
    names = list(cases)
    shared = [place] if place.is_file() else volumes_in(place)
    only = shared if place.is_file() and len(names) == 1 else []
    found = {}
    for case in names:
        inside = volumes_in(place / case)
        paths = _called(case, shared, names) + (_called(case, inside, names) or _single(inside))
        paths = paths or only
        if len(paths) > 1:
            raise InputError(
                place,
                f"holds both {paths[0].relative_to(place)} and {paths[1].relative_to(place)}",
                "one label map per case",
                "move one of them away",
            )
        if paths:
            found[case] = Source(paths[0])
    return found


def _called(case: str, volumes: Iterable[Path], cases: Collection[str]) -> list[Path]:
    """Volumes that are called like a case, and not like another one."""
    names = {case + ending for ending in KNOWN_ENDINGS} - {*cases} | {case}
    return [path for path in volumes if without_suffix(path.name) in names]


def _single(volumes: list[Path]) -> list[Path]:
    return volumes if len(volumes) == 1 else []


def predicted_pairs(
    truth: GroundTruth, folder: Path, outcomes: Iterable[CaseOutcome]
) -> tuple[list[ScoredPair], dict[str, InputError]]:
    """Label maps just predicted into a folder beside the ground truth; and what was left out."""
    problems = {one.case: one.problem for one in outcomes if one.problem is not None}
    pairs = [
        ScoredPair(case.name, case.label, Source(files_of_prediction(folder, case.name)[0]))
        for case in truth.cases
        if case.label is not None and case.name not in problems
    ]
    return pairs, problems


def strays(folder: Path, found: Mapping[str, Source]) -> list[str]:
    """The label maps in a folder, and in folders below it, that belong to no case."""
    if not folder.is_dir():
        return []
    taken = {source.file for source in found.values()}
    own = {file.parent for file in taken}
    below = [path for path in sorted(folder.iterdir()) if path.is_dir() and path.name[0] != "."]
    others = [path for path in volumes_in(folder) if path not in taken]
    others += [path for inner in below if inner not in own for path in volumes_in(inner)]
    return [str(path.relative_to(folder)) for path in others]


def missing(folder: Path, case: str) -> InputError:
    """What is wrong where a folder holds no label map of a case."""
    return InputError(
        folder,
        f"holds no label map of the case {case}",
        f"{case}.nii.gz (or {', '.join(s for s in SUFFIXES if s != '.nii.gz')}), {case}-seg or "
        f"{case}_0000, in the folder or in a folder {case} in it",
        "add or rename the file",
    )


def _case_of(path: Path) -> str:
    name = without_suffix(path.name)
    return name.removesuffix(next(e for e in reversed(LABEL_ENDINGS) if name.endswith(e)))


def _checked(cases: list[Case], labels: LabelNames, given: str) -> GroundTruth:
    labelled = [case for case in cases if case.label is not None]
    if not labelled:
        raise InputError(
            given,
            f"holds {len(cases)} cases, and no label map of them",
            "at least one case with a label map to score on",
            "name the folder of its label maps (--labels FOLDER), or another data set",
        )
    names = clean_names(labels.values.values())
    regions = labels.regions or {n: [v] for n, v in zip(names, labels.values, strict=True)}
    unlabelled = [case.name for case in cases if case.label is None]
    return GroundTruth(labelled, unlabelled, regions, labels.ignored)
