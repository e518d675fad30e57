"""What a folder of scans is: its layout, its channels and what its labels are called.

Only names and descriptions are looked at; no volume is opened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from voxelsoup.common.errors import InputError
from voxelsoup.common.plug_ins import UnknownPlugIn, in_packages, is_plug_in
from voxelsoup.common.text import listed
from voxelsoup.data.layouts import brats
from voxelsoup.data.layouts.channel_names import clean_names, names_in_order
from voxelsoup.data.layouts.json_files import read_json
from voxelsoup.data.layouts.label_names import LabelNames, parse_labels
from voxelsoup.data.layouts.monai import shared_endings
from voxelsoup.data.layouts.nnunet import lists_version_1
from voxelsoup.data.layouts.table import (
    CASE,
    NOT_CHANNELS,
    names_volumes,
    numbered_lines,
)
from voxelsoup.study.loading import wrong_settings
from voxelsoup.study.sections.data import OTHER_LAYOUTS, Dataset, Layout

# In the order that the network sees them: BraTS 2023 and later, 2018 to 2021, and the names of the
# TCGA collections.
BRATS_CHANNELS = (
    ("t1n", "t1c", "t2w", "t2f"),
    ("t1", "t1ce", "t2", "flair"),
    ("t1", "t1gd", "t2", "flair"),
)
DEEPEST = 3
LARGEST_DATALIST = 50_000_000

LAYOUTS = {
    "brats": "one folder per case, such as BraTS-GLI-00005-000/BraTS-GLI-00005-000-t1n.nii.gz",
    "decathlon": "dataset.json with `modality` and `training`, imagesTr/, labelsTr/",
    "nnunet": "dataset.json with `channel_names`, imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz",
    "monai": "a JSON datalist with `training`, a list of `image` and `label`",
    "table": "cases.csv with the columns `case`, one per channel, and `label`",
}


@dataclass(frozen=True)
class Guess:
    """The data set that a folder seems to hold.

    Attributes:
        dataset: the study's section; bad and unlabelled cases do not stop it.
        labels: what the data set says of its label values, with names as a study takes them.
        called: channel -> what the data set calls it, where a study cannot have that name.
        split: a file with a given split into folds, and their number.
        remarks: what is good to know of it.
    """

    dataset: Dataset
    labels: LabelNames = field(default_factory=LabelNames)
    called: dict[str, str] = field(default_factory=dict)
    split: tuple[Path, int] | None = None
    remarks: tuple[str, ...] = ()

    @property
    def root(self) -> Path:
        """The folder of the data set."""
        return Path(self.dataset.root or "")


def guess(folder: Path, layout: str | None = None, channels: Sequence[str] = ()) -> Guess:
    """Find out which data set a folder holds, itself or in a folder below.

    Args:
        layout: which it is said to have; by default, one of the project's own is detected.
        channels: the study's names of them, where the layout is another package's: its reader is
            asked for them. It may also be given the file that lists its cases.

    Raises:
        InputError: if there is no such folder or layout, or it holds no known data set or several.
    """
    if layout is not None:
        _check_name(layout)
        if is_plug_in("layouts", layout):
            return _of_package(folder, layout, channels)
    if not folder.is_dir():
        raise InputError(
            folder, "no such folder", "the folder of a data set, or a study file", "check the path"
        )
    level = [folder]
    for _ in range(DEEPEST):
        found = [guessed for inner in level if (guessed := _guess_here(inner, layout))]
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(
                folder,
                f"holds {len(found)} data sets: {_some([str(g.root) for g in found])}",
                "one data set",
                "name one of these folders",
            )
        level = [path for inner in level for path in _visible(inner) if path.is_dir()]
    raise _nothing_known(folder, layout)


def _nothing_known(folder: Path, layout: str | None) -> InputError:
    if layout is not None:
        return InputError(
            folder,
            f"holds no data set in the layout `{layout}`; {_seen(folder)}",
            LAYOUTS[layout],
            "name the folder that holds this, or another layout",
        )
    further = in_packages("layouts")
    return InputError(
        folder,
        f"holds no data set that voxelsoup knows; {_seen(folder)}",
        "one of\n" + "\n".join(f"    {layout}: {form}" for layout, form in LAYOUTS.items()),
        "name the folder that holds these, or list the files in a cases.csv (docs/data.md)"
        + (f"; or name a layout of another package (--layout): {further}" if further else ""),
    )


def _guess_here(folder: Path, layout: str | None) -> Guess | None:
    # From the most particular to the one that any folder of volumes resembles.
    guesses = {
        "nnunet": guess_nnunet,
        "monai": guess_datalist,
        "decathlon": guess_decathlon,
        "table": guess_table,
        "brats": guess_brats,
    }
    tried = guesses.values() if layout is None else [guesses[layout]]
    return next((found for one in tried if (found := one(folder))), None)


def _check_name(layout: str) -> None:
    try:
        OTHER_LAYOUTS.check(layout)
    except UnknownPlugIn as error:
        raise InputError(
            "--layout",
            f"`{layout}`: {error}",
            "a layout of voxelsoup's own, or of another package",
            "correct it (docs/data.md, docs/plug-ins.md)",
        ) from error


def _of_package(place: Path, layout: str, channels: Sequence[str]) -> Guess:
    """A data set in the layout of another package, which alone can say what it holds."""
    if not place.exists():
        raise InputError(place, "there is no such file or folder", "a data set", "check the path")
    if not channels:
        raise InputError(
            place,
            f"has the layout `{layout}` of another package, and no channels are named",
            "the channels of its cases, in the order that the network is to have them",
            "name them: --channels t1,flair",
        )
    file = str(place) if place.is_file() else None
    root = place.parent if place.is_file() else place
    return Guess(_dataset(layout, root, list(channels), file))


def guess_nnunet(root: Path) -> Guess | None:
    """nnU-Net raw: images that end in the number of the channel; ``channel_names``, or in version 1
    ``modality`` and a list of images without these numbers.
    """
    description = _described(root / "dataset.json")
    channels = description.get("channel_names")
    if channels is None and (lists_version_1(root, description) or not _entries(description)):
        channels = description.get("modality")
    if not isinstance(channels, dict | list):
        return None
    # Where there is one channel, numbers may belong to the cases' names.
    bare = len(channels) == 1 and not _entries(description)
    form = "*.*" if bare else "*_0000.*"
    if not any(any((root / folder).glob(form)) for folder in ("imagesTr", "imagesTs")):
        return None
    return _described_guess(
        root, "nnunet", names_in_order(channels, root / "dataset.json"), description
    )


def guess_decathlon(root: Path) -> Guess | None:
    """Medical Segmentation Decathlon: ``modality``, and one image per case in ``training``."""
    description = _described(root / "dataset.json")
    channels = description.get("modality", description.get("channel_names"))
    if not isinstance(channels, dict | list) or not _entries(description):
        return None
    return _described_guess(
        root, "decathlon", names_in_order(channels, root / "dataset.json"), description
    )


def guess_datalist(root: Path) -> Guess | None:
    """A MONAI datalist: ``training`` with lists of images, with folds, or without ``modality``."""
    for path in [root / "dataset.json", *sorted(root.glob("*.json"))]:
        description = _described(path)
        entries = _entries(description)
        if not entries or not all("image" in entry for entry in entries):
            continue
        lists = [entry["image"] for entry in entries if isinstance(entry["image"], list)]
        folds = [e["fold"] for e in entries if isinstance(e.get("fold"), int) and e["fold"] >= 0]
        modality = description.get("modality", description.get("channel_names"))
        if not (lists or folds) and modality is not None:
            continue
        file = None if path.name == "dataset.json" else str(path)
        names = _datalist_channels(lists, modality, path)
        found = _described_guess(root, "monai", names, description, file)
        if len(set(folds)) > 1:
            return replace(found, split=(path, max(folds) + 1)) if found else None
        return found
    return None


def guess_table(root: Path) -> Guess | None:
    """A table with the column ``case`` and at least one channel."""
    for path in (root / "cases.csv", root / "cases.tsv"):
        if not path.is_file():
            continue
        lines = numbered_lines(path, "a CSV or TSV file", "dataset.file")
        header, *rows = [cells for _, cells in lines] or [[]]
        others = [column for column in header if column not in NOT_CHANNELS]
        columns = dict(zip(header, zip_longest(*rows, fillvalue=""), strict=False))
        channels = [name for name in others if names_volumes(columns.get(name, ()))]
        if CASE in header and channels:
            # Its columns are the study's names; the study refuses one that cannot be a name.
            file = None if path.name == "cases.csv" else str(path)
            left_out = [name for name in others if name not in channels]
            return Guess(_dataset("table", root, channels, file), remarks=_about_others(left_out))
    return None


def _about_others(names: list[str]) -> tuple[str, ...]:
    return (f"not taken as channels: {_some(names)}",) if names else ()


def guess_brats(root: Path) -> Guess | None:
    """BraTS: folders whose files begin with the folder's name and continue with the channel's."""
    stems = brats.stems(root)
    counts = Counter(suffix for path in stems for suffix in _suffixes(path))
    shared = {s for s, count in counts.items() if count >= brats.SHARE_OF_CASES * len(stems)}
    shared -= {"seg"}
    known = next((names for names in BRATS_CHANNELS if shared >= set(names)), None)
    some = next((names for names in BRATS_CHANNELS if shared & set(names)), ())
    usual = [name for name in some if name in shared]
    channels = list(known) if known else usual + sorted(shared - set(usual))
    if not channels:
        return None
    left_out = sorted(set(counts) - {*channels, "seg"})
    return Guess(_dataset("brats", root, channels), remarks=_about_others(left_out))


def _dataset(layout: Layout, root: Path, channels: list[str], file: str | None = None) -> Dataset:
    settings = {
        "layout": layout,
        "root": str(root),
        "file": file,
        "channels": channels,
        "on_bad_case": "skip",
        "unlabelled": "predict",
    }
    try:
        return Dataset.model_validate(settings)
    except ValidationError as error:
        raise wrong_settings(error, f"{root} (layout {layout})", "dataset") from error


def _described_guess(
    root: Path,
    layout: Layout,
    names: list[str],
    description: dict[str, Any],
    file: str | None = None,
) -> Guess | None:
    if not names:
        return None
    channels = clean_names(names)
    labels = parse_labels(description.get("labels"), description.get("regions_class_order"))
    called = {new: old for new, old in zip(channels, names, strict=True) if new != old}
    return Guess(_dataset(layout, root, channels, file), labels, called, remarks=labels.remarks)


def _datalist_channels(lists: list[list[Any]], modality: object, where: Path) -> list[str]:
    """Names of a datalist's channels: given ones, or how its files end, or their numbers."""
    count = len(lists[0]) if lists else 1
    if isinstance(modality, dict | list) and len(modality) == count:
        return names_in_order(modality, where)
    if count == 1:
        return ["image"]
    return shared_endings(lists) or [f"channel_{number}" for number in range(count)]


def _suffixes(stem: Path) -> set[str]:
    """What stands behind the folder's name in the files of a BraTS case."""
    names = [path.name for path in _visible(stem.parent) if path.name.startswith(stem.name)]
    suffixes = {name.removeprefix(stem.name).split(".")[0] for name in names if "." in name}
    return {suffix for suffix in suffixes if clean_names([suffix]) == [suffix]}


def _described(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds; nothing where it holds none."""
    try:
        if not path.exists() or path.stat().st_size > LARGEST_DATALIST:
            return {}
        content = read_json(path)
    except InputError:
        if path.name != "dataset.json":
            return {}
        raise
    return content if isinstance(content, dict) else {}


def _entries(description: dict[str, Any]) -> list[dict[str, Any]]:
    entries = description.get("training")
    return [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _seen(folder: Path) -> str:
    """The contents of a folder, in words."""
    inside = _visible(folder)
    folders = [path.name for path in inside if path.is_dir()]
    files = [path.name for path in inside if not path.is_dir()]
    parts = []
    if folders:
        parts.append(f"{len(folders)} folder(s) ({_some(folders)})")
    if files:
        parts.append(f"{len(files)} file(s) ({_some(files)})")
    return f"it has {listed(parts)}" if parts else "it is empty"


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
