"""nnU-Net v2 raw: ``dataset.json``, ``imagesTr/{case}_0000.nii.gz``, ``labelsTr/{case}.nii.gz``."""

from __future__ import annotations

from pathlib import Path

from segsoup.cases.case import Case, Source
from segsoup.cases.descriptions import check_channel_count, read_description
from segsoup.errors import InputError
from segsoup.volumes import SUFFIXES


def find_cases(root: Path, channels: list[str]) -> list[Case]:
    """The training cases, sorted by name: every name that has an image or a label.

    Args:
        root: folder of the data set.
        channels: names for its channels 0000, 0001, ... in order.

    Raises:
        InputError: if ``dataset.json`` is missing, broken, or describes other channels.
    """
    description = read_description(root)
    check_channel_count(root / "dataset.json", description.get("channel_names", {}), channels)
    ending = description.get("file_ending", ".nii.gz")
    if ending not in SUFFIXES:
        raise InputError(
            root / "dataset.json",
            f"says that its files end in {ending!r}",
            " or ".join(SUFFIXES),
            "convert the volumes to NIfTI and correct `file_ending`",
        )
    images = (root / "imagesTr").glob(f"*_[0-9][0-9][0-9][0-9]{ending}")
    labels = (root / "labelsTr").glob(f"*{ending}")
    # A label without images is a case too, to be told of when it is checked. Files that begin
    # with a dot are what macOS leaves in archives.
    names = {path.name[: -len(ending) - 5] for path in images}
    names |= {path.name[: -len(ending)] for path in labels}
    return [
        _case(root, name, channels, ending) for name in sorted(names) if not name.startswith(".")
    ]


def _case(root: Path, name: str, channels: list[str], ending: str) -> Case:
    sources = {
        channel: Source(root / "imagesTr" / f"{name}_{number:04d}{ending}")
        for number, channel in enumerate(channels)
    }
    return Case(name, sources, Source(root / "labelsTr" / f"{name}{ending}"))
