"""What is to be predicted: a data set's cases, a folder of volumes, or the files of one case."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import read_json
from voxelsoup.common.plug_ins import is_plug_in
from voxelsoup.common.text import listed
from voxelsoup.data.case import Case, Source
from voxelsoup.data.index.check_cache import Signature, files_of, hash_files, signature_of
from voxelsoup.data.layouts import find_cases
from voxelsoup.data.layouts.case_names import RECORDS, check_case_names
from voxelsoup.data.layouts.channel_names import match_channels
from voxelsoup.data.layouts.detect import Guess, guess
from voxelsoup.data.layouts.monai import case_name
from voxelsoup.data.volumes.volume import is_volume
from voxelsoup.prediction.outcomes import files_of_prediction
from voxelsoup.prediction.plain_folder import PlainFolder
from voxelsoup.study.sections.data import Dataset, Layout

log = logging.getLogger(__name__)

LISTS: dict[str, Layout] = {".json": "monai", ".csv": "table", ".tsv": "table"}
# Layouts whose cases have a name for each channel; in the others channels are numbered.
NAMED: tuple[Layout, ...] = ("brats", "table")
# A folder with one of these is a data set, whatever volumes lie beside it.
DESCRIPTIONS = ("dataset.json", "cases.csv", "cases.tsv")
FORMS = (
    "a data set in any layout of docs/data.md; a folder of volumes (CASE_0000.nii.gz, "
    "CASE-CHANNEL.nii.gz, or one file per case); a volume; or CHANNEL=FILE,CHANNEL=FILE,..."
)


def find_scans(
    given: str,
    channels: Sequence[str],
    called: Sequence[str] | None = None,
    report: Callable[[str], None] = log.warning,
    with_labels: bool = False,
    layout: str | None = None,
) -> list[Case]:
    """The cases of an input, sorted by name; no voxel is read.

    Args:
        given: a folder, a file, or the files of one case: ``t1n=FILE,t1c=FILE``.
        channels: the model's channels, in its order.
        called: the input's names of them, or their numbers in it from 0, in the same order; by
            default, names are matched (``channel_names.match_channels``).
        report: called with each thing that was assumed or left out, in words.
        with_labels: keep the label maps, as an evaluation needs them; else they are left out.
        layout: of the input; by default it is found out, among the project's own.

    Returns:
        Cases with the model's channels; one that cannot be used as it is has a ``problem``.

    Raises:
        InputError: if there is nothing of a known form, channels have other names or another
            number, or two cases would be written to one file.
    """
    path, stated = Path(given), _stated(channels, called)
    if layout is not None:
        cases = _of_data_set(guess(path, layout, channels), channels, stated)
    elif path.is_dir():
        cases = _in_folder(path, channels, stated, report)
    elif path.is_file() and path.suffix.lower() in LISTS:
        cases = find_cases(_listing(path, channels, stated), path.parent)
    elif path.is_file():
        cases = [PlainFolder(channels, stated, report).of_one_volume(path)]
    elif "=" in given:
        cases = [_of_named_files(given, channels, stated)]
    else:
        raise InputError(given, "there is no such file or folder", FORMS, "check the path")
    if not cases:
        raise InputError(path, "holds no cases", FORMS, "check the path")
    for note in dict.fromkeys(note for case in cases for note in case.notes):
        report(note)
    check_case_names(cases, path)
    kept = cases if with_labels else [replace(case, label=None) for case in cases]
    return sorted(kept, key=lambda case: case.name)


def _stated(channels: Sequence[str], called: Sequence[str] | None) -> dict[str, int | str]:
    """Model's channel -> its name, or its number, in the input; raises InputError."""
    if called is None:
        return {}
    names = [name.strip() for name in called]
    if len(names) != len(channels) or len(set(names)) != len(names):
        raise InputError(
            "--channels",
            f"names {len(names)} channel(s)" if len(set(names)) == len(names) else "repeats one",
            f"what INPUT calls each of {', '.join(channels)}, in this order",
            "name one for each",
        )
    numbers = all(name.isdecimal() for name in names)
    return {
        channel: int(name) if numbers else name
        for channel, name in zip(channels, names, strict=True)
    }


def _listing(path: Path, channels: Sequence[str], stated: Mapping[str, int | str]) -> Dataset:
    return Dataset(
        layout=LISTS[path.suffix.lower()],
        root=str(path.parent),
        file=str(path),
        channels=list(channels),
        channel_names=dict(stated) or None,
        unlabelled="predict",
    )


def _of_named_files(given: str, channels: Sequence[str], stated: Mapping[str, int | str]) -> Case:
    """``t1n=FILE,t1c=FILE``: the files of one case, which is named after what they share."""
    pairs = [part.partition("=") for part in given.split(",")]
    names, files = [p[0].strip() for p in pairs], [p[2].strip() for p in pairs]
    match = match_channels(channels, names, given, stated)
    if len(match.places) < len(channels) or len(names) != len(channels):
        raise InputError(
            given,
            f"names the channels {', '.join(names)}",
            f"each of the model's channels once: {', '.join(channels)}",
            "write CHANNEL=FILE for each of them, separated by commas",
        )
    name = case_name({"image": [str(Source.parse(file).file) for file in files]})
    sources = {channel: Source.parse(files[place]) for channel, place in match.places.items()}
    return Case(str(name), sources, None, notes=match.remarks)


def _in_folder(
    folder: Path,
    channels: Sequence[str],
    stated: Mapping[str, int | str],
    report: Callable[[str], None],
) -> list[Case]:
    volumes = volumes_in(folder)
    plain_folder = PlainFolder(channels, stated, report)
    if volumes and not any((folder / name).is_file() for name in DESCRIPTIONS):
        return plain_folder.read(volumes)
    try:
        found = guess(folder)
    except InputError:
        # A data set's test images alone: nothing but the names of the files describes them.
        volumes = volumes_in(folder / "imagesTs")
        if volumes:
            return plain_folder.read(volumes)
        raise
    return _of_data_set(found, channels, stated)


def _of_data_set(
    found: Guess, channels: Sequence[str], stated: Mapping[str, int | str]
) -> list[Case]:
    layout = found.dataset.layout
    if layout in NAMED or is_plug_in("layouts", layout):
        named = {"channels": [*channels], "channel_names": dict(stated) or None}
        return find_cases(found.dataset.model_copy(update=named), found.root)
    return _numbered(found, channels, stated)


def volumes_in(folder: Path) -> list[Path]:
    """The volumes that lie in a folder itself, sorted by name; none where there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if is_volume(path.name) and not path.name.startswith(".") and path.is_file()
    )


def _numbered(found: Guess, channels: Sequence[str], stated: Mapping[str, int | str]) -> list[Case]:
    """Cases of a layout that numbers its channels, with the model's in their place."""
    own = found.dataset.channels
    # As the data set calls them; a study cannot have all such names.
    there = [found.called.get(name, name) for name in own]
    if len(there) < len(channels):
        raise InputError(
            found.root,
            f"has {len(there)} channel(s): {listed(there)}",
            f"the model's {len(channels)}: {listed(channels)}",
            "predict scans of the channels that the model was trained on",
        )
    match = match_channels(channels, there, found.root, stated)
    return [
        replace(
            case,
            channels={name: case.channels[own[place]] for name, place in match.places.items()},
            notes=(*case.notes, *match.remarks),
        )
        for case in find_cases(found.dataset, found.root)
    ]


def record_of(folder: Path, case: str) -> Path:
    """What the prediction of a case depends on and took."""
    return folder / RECORDS / f"{case}.json"


def refuse_other_inputs(cases: Sequence[Case], folder: Path) -> None:
    """Make sure that no label map in ``folder`` was made of another scan that is still there.

    Scans of one name in several folders, predicted one call after the other, would replace each
    other. Copies of the same content are the same scan.

    Raises InputError naming both scans.
    """
    for case in cases:
        label_map, record = files_of_prediction(folder, case.name)[0], record_of(folder, case.name)
        earlier = _files_in(record) if label_map.is_file() else []
        files = files_of(case)
        if not earlier or {file.resolve() for file in files} & {file.resolve() for file in earlier}:
            continue
        if all(file.is_file() for file in earlier) and hash_files(earlier) != hash_files(files):
            raise InputError(
                label_map,
                f"is the label map of {earlier[0]}, and that of {files[0]} would replace it",
                "a label map of its own for every scan",
                "name another OUTPUT, or rename one of the scans (--overwrite replaces it)",
            )


def _files_in(record: Path) -> list[Path]:
    """The files that a prediction was made of; none where that is not known."""
    try:
        content = read_json(record)
        place = Path(content.get("directory", ""))
        files = [place / Source.parse(text).file for text in content["files"].values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return list(dict.fromkeys(files))


def shared_out(cases: Sequence[Case], size: int) -> dict[str, dict[str, Signature | None]]:
    """Batches of at most ``size`` cases: number -> case -> the signature of its files."""
    shares = [cases[first : first + size] for first in range(0, len(cases), size)]
    return {
        f"{number:04d}": {case.name: signature_of(case) for case in share}
        for number, share in enumerate(shares)
    }
