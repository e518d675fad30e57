"""What is to be predicted: a data set's cases, a folder of volumes, or the files of one case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from voxelsoup.common.errors import InputError
from voxelsoup.common.text import listed
from voxelsoup.data.case import Case, Source
from voxelsoup.data.index.check_cache import Signature, signature_of
from voxelsoup.data.layouts import find_cases
from voxelsoup.data.layouts.case_names import check_case_names
from voxelsoup.data.layouts.detect import Guess, guess
from voxelsoup.data.layouts.json_files import channels_of_one_file
from voxelsoup.data.layouts.monai import case_name
from voxelsoup.data.layouts.nnunet import CHANNEL_FILE
from voxelsoup.data.volumes.volume import SUFFIXES, without_suffix
from voxelsoup.study.sections.data import Dataset, Layout

LISTS: dict[str, Layout] = {".json": "monai", ".csv": "table", ".tsv": "table"}
# Layouts in which channels have names; in the others they are numbered.
NAMED: tuple[Layout, ...] = ("brats", "table")
MARKS = "-_"
FORMS = (
    "a data set in any layout of docs/data.md; a folder of volumes (CASE_0000.nii.gz, "
    "CASE-CHANNEL.nii.gz, or one file per case); a volume; or CHANNEL=FILE,CHANNEL=FILE,..."
)


def find_scans(
    given: str, channels: Sequence[str], called: Sequence[str] | None = None
) -> list[Case]:
    """The cases of an input, sorted by name, without label maps; no voxel is read.

    Args:
        given: a folder, a file, or the files of one case: ``t1n=FILE,t1c=FILE``.
        channels: the model's channels, in its order.
        called: the input's names of them, in the same order; by default the same.

    Returns:
        Cases with the model's channels; one that cannot be used as it is has a ``problem``.

    Raises:
        InputError: if there is nothing of a known form, channels have other names or another
            number, or a case's name occurs twice or cannot be that of a file.
    """
    path = Path(given)
    if called is not None and len(called) != len(channels):
        raise InputError(
            "--channels",
            f"names {len(called)} channel(s)",
            f"what INPUT calls each of {', '.join(channels)}, in this order",
            "name one for each",
        )
    names = list(called or channels)
    if path.is_dir():
        found = _in_folder(path, names, called is not None)
    elif path.is_file() and path.suffix in LISTS:
        dataset = Dataset(
            layout=LISTS[path.suffix],
            root=str(path.parent),
            file=str(path),
            channels=names,
            unlabelled="predict",
        )
        found = find_cases(dataset, path.parent)
    elif path.is_file():
        found = [_of_one_volume(path, names)]
    elif "=" in given:
        found = [_of_named_files(given, names)]
    else:
        raise InputError(given, "there is no such file or folder", FORMS, "check the path")
    renamed = dict(zip(channels, names, strict=True))
    cases = [
        replace(
            case, channels={new: case.channels[old] for new, old in renamed.items()}, label=None
        )
        for case in found
    ]
    if not cases:
        raise InputError(path, "holds no cases", FORMS, "check the path")
    check_case_names(cases, path)
    return sorted(cases, key=lambda case: case.name)


def _of_named_files(given: str, names: Sequence[str]) -> Case:
    """``t1n=FILE,t1c=FILE``: the files of one case, which is named after what they share."""
    pairs = [part.partition("=") for part in given.split(",")]
    files = {name.strip(): file.strip() for name, _, file in pairs}
    if sorted(files) != sorted(names) or len(pairs) != len(names):
        raise InputError(
            given,
            f"names the channels {', '.join(name for name, _, _ in pairs)}",
            f"each of the model's channels once: {', '.join(names)}",
            "write CHANNEL=FILE for each of them, separated by commas",
        )
    name = case_name({"image": [str(Source.parse(file).file) for file in files.values()]})
    return Case(str(name), {name: Source.parse(files[name]) for name in names}, None)


def _of_one_volume(path: Path, names: Sequence[str]) -> Case:
    """A case in one file; several channels are the components of a 4D volume."""
    name = without_suffix(path.name)
    numbered = CHANNEL_FILE.fullmatch(name)
    if numbered and len(names) == 1:
        name = numbered["case"]
    # A file with more components is refused: which of them are meant is not known.
    return Case(name, channels_of_one_file(path, list(names)), None, components=len(names))


def _in_folder(folder: Path, names: Sequence[str], stated: bool) -> list[Case]:
    volumes = _volumes(folder)
    described = ("dataset.json", "cases.csv", "cases.tsv")
    if volumes and not any((folder / name).is_file() for name in described):
        return _of_volumes(volumes, names)
    try:
        found = guess(folder)
    except InputError:
        # A data set's test images alone: nothing but the names of the files describes them.
        volumes = _volumes(folder / "imagesTs")
        if volumes:
            return _of_volumes(volumes, names)
        raise
    if found.dataset.layout in NAMED:
        _check_names(found, names)
        return find_cases(found.dataset.model_copy(update={"channels": [*names]}), found.root)
    return _numbered(found, names, stated)


def _volumes(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.name.endswith(SUFFIXES) and not path.name.startswith(".") and path.is_file()
    )


def _of_volumes(volumes: Sequence[Path], names: Sequence[str]) -> list[Case]:
    """Cases of plain files: by channel names, by channel numbers, or one case per file."""
    named: dict[str, dict[str, list[Path]]] = {}
    others: list[Path] = []
    for path in volumes:
        stem = without_suffix(path.name)
        fits = [n for n in names if stem == n or stem.endswith(tuple(m + n for m in MARKS))]
        if fits:
            channel = max(fits, key=len)
            case = stem.removesuffix(channel).rstrip(MARKS) or path.absolute().parent.name
            named.setdefault(case, {}).setdefault(channel, []).append(path)
        else:
            others.append(path)
    # Files of named channels come first; else either all names end in numbers, or none counts.
    groups = named or _by_number(volumes, names)
    if not groups:
        return [_of_one_volume(path, names) for path in volumes]
    cases = [_of_group(case, files, names, volumes[0].parent) for case, files in groups.items()]
    lost = _of_no_case(others, [*named]) if named else []
    return cases + [_of_no_channel(path, names) for path in lost]


def _by_number(volumes: Sequence[Path], names: Sequence[str]) -> dict[str, dict[str, list[Path]]]:
    """Case -> channel -> files, where all files end in the number of a channel; else empty."""
    groups: dict[str, dict[str, list[Path]]] = {}
    for path in volumes:
        match = CHANNEL_FILE.fullmatch(without_suffix(path.name))
        if match is None:
            return {}
        number = int(match["channel"])
        channel = names[number] if number < len(names) else str(number)
        groups.setdefault(match["case"], {}).setdefault(channel, []).append(path)
    return groups


def _of_no_case(paths: Sequence[Path], cases: Sequence[str]) -> list[Path]:
    """Volumes that do not belong to a known case, as its label map and masks do."""
    if any(case == path.absolute().parent.name for path in paths for case in cases):
        # The folder of one case: what else it holds belongs to it, whatever it is called.
        return []
    known = tuple(case + mark for case in cases for mark in MARKS)
    stems = {path: without_suffix(path.name) for path in paths}
    return [
        path for path, stem in stems.items() if stem not in cases and not stem.startswith(known)
    ]


def _of_no_channel(path: Path, names: Sequence[str]) -> Case:
    """A volume that no channel is found in the name of: leaving it out would lose a case."""
    problem = InputError(
        path,
        "belongs to no case beside it, and its name does not end in a channel",
        f"CASE-CHANNEL, with one of the model's channels: {', '.join(names)}",
        "rename the file, or move it away if it is not a scan",
    )
    return Case(
        without_suffix(path.name), {name: Source(path) for name in names}, None, problem=problem
    )


def _of_group(
    case: str, files: Mapping[str, Sequence[Path]], names: Sequence[str], folder: Path
) -> Case:
    """A case of the files of its channels; what is missing or too much is its problem."""
    problem = None
    missing = [name for name in names if name not in files]
    several = next((paths for paths in files.values() if len(paths) > 1), None)
    if missing or set(files) - set(names) or several:
        found = (
            f"has both {several[0].name} and {several[1].name}"
            if several
            else f"has files of the channels {listed(sorted(files))}"
        )
        problem = InputError(
            folder / case,
            found,
            f"one file for each of the model's channels: {', '.join(names)}",
            "add or rename the files (--channels says what INPUT calls the channels)",
        )
    none = Path(folder, f"{case}-missing")
    return Case(
        case,
        {name: Source(files[name][0] if name in files else none) for name in names},
        None,
        problem=problem,
    )


def _check_names(found: Guess, names: Sequence[str]) -> None:
    there = found.dataset.channels
    if not set(names) & set(there):
        raise InputError(
            found.root,
            f"has channels named {listed(there)}",
            f"the model's: {listed(names)}",
            "say which is which: --channels with the names that INPUT has, in the order of the "
            "model's",
        )


def shared_out(cases: Sequence[Case], size: int) -> dict[str, dict[str, Signature | None]]:
    """Batches of at most ``size`` cases: number -> case -> the signature of its files."""
    shares = [cases[first : first + size] for first in range(0, len(cases), size)]
    return {
        f"{number:04d}": {case.name: signature_of(case) for case in share}
        for number, share in enumerate(shares)
    }


def _numbered(found: Guess, names: Sequence[str], stated: bool) -> list[Case]:
    """Cases of a layout that numbers its channels; if the names are the same, they decide."""
    there = found.dataset.channels
    if len(there) != len(names):
        raise InputError(
            found.root,
            f"has {len(there)} channel(s): {listed(there)}",
            f"the model's {len(names)}: {listed(names)}",
            "predict scans of the channels that the model was trained on",
        )
    by_name = {name.lower(): name for name in there}
    same = sorted(by_name) == sorted(name.lower() for name in names)
    if stated and not same:
        raise InputError(
            "--channels",
            f"names {listed(names)}",
            f"what {found.root} calls its channels: {listed(there)}",
            "name each of these once, in the order of the model's channels",
        )
    source = {name: by_name[name.lower()] if same else there[n] for n, name in enumerate(names)}
    return [
        replace(case, channels={name: case.channels[source[name]] for name in names})
        for case in find_cases(found.dataset, found.root)
    ]
