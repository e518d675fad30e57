"""Coverage-guided fuzzing of every reader of foreign files: `make fuzz`.

python tests/data/fuzz/readers.py TARGET [CORPUS] [libFuzzer's options, such as -runs=1000]

The outcome of any input is a result or an InputError; every other exception is a finding.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["voxelsoup", "nrrd"]):
    from voxelsoup.common.errors import InputError
    from voxelsoup.data.case import Source
    from voxelsoup.data.layouts import find_cases
    from voxelsoup.data.layouts.detect import guess
    from voxelsoup.data.volumes.volume import read_label
    from voxelsoup.planning.label_meaning import meaning_of
    from voxelsoup.planning.proposal import propose_data
    from voxelsoup.study.sections.data import Dataset

FOLDER = Path(tempfile.mkdtemp(prefix="fuzz"))


def volume(suffix: str) -> Callable[[bytes], None]:
    """Read the bytes as a label map."""
    path = FOLDER / f"scan{suffix}"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        read_label(Source(path))

    return read


def listing(layout: str, name: str) -> Callable[[bytes], None]:
    """Read the bytes as the list of cases of a data set."""
    root = FOLDER / layout
    root.mkdir()
    dataset = Dataset(layout=layout, root=str(root), channels=["a"])  # type: ignore[arg-type]

    def read(content: bytes) -> None:
        (root / name).write_bytes(content)
        find_cases(dataset, root)

    return read


def guessing(layout: str, name: str) -> Callable[[bytes], None]:
    """Read the bytes as what a folder is described by, of which nothing is known before."""
    root = FOLDER / f"guess-{layout}"
    (root / "imagesTr").mkdir(parents=True)
    (root / "imagesTr" / "a_0000.nii").touch()

    def read(content: bytes) -> None:
        (root / name).write_bytes(content)
        found = guess(root)
        holders = {value: ["a"] for value in (1, 2, 3)}
        propose_data(found, meaning_of(found, ["a"], holders), 0)

    return read


TARGETS: dict[str, Callable[[bytes], None]] = {
    "nii": volume(".nii"),
    "nii.gz": volume(".nii.gz"),
    "mha": volume(".mha"),
    "nrrd": volume(".nrrd"),
    "decathlon": listing("decathlon", "dataset.json"),
    "nnunet": listing("nnunet", "dataset.json"),
    "monai": listing("monai", "dataset.json"),
    "table": listing("table", "cases.csv"),
    "guess": guessing("json", "dataset.json"),
    "guess-table": guessing("table", "cases.csv"),
}


def main() -> None:
    """Fuzz one target."""
    read = TARGETS[sys.argv.pop(1)]

    def one_input(content: bytes) -> None:
        with suppress(InputError):
            read(content)

    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
