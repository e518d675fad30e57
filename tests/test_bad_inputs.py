"""A corpus of bad inputs: each is one message that names the file and the mend, and exit code 1."""

from __future__ import annotations

import gzip
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml

from segsoup.cases.index import index_cases
from segsoup.folds import make_folds
from segsoup.logs import job_log
from segsoup.study import read

A, B = "Phantom-0000-000", "Phantom-0001-000"
Recipe = Callable[[Path], Any]


def index(study_file: Path) -> int:
    """What `segsoup index STUDY` does."""
    try:
        with job_log(study_file.with_name("index.log")):
            study = read(study_file)
            root = Path(str(study.dataset.root))
            cases, rejected = index_cases(study.dataset, study.regions, root, workers=1)
            patients = {case.name: case.patient for case in cases}
            make_folds(patients, study.folds, study.evaluation.protocol, rejected)
    except SystemExit as end:
        return int(str(end.code))
    return 0


def file(root: Path, end: str, case: str = B) -> Path:
    return root / "data" / case / f"{case}-{end}.nii.gz"


def voxels(end: str, change: Callable[[np.ndarray], Any], kind: Any = None) -> Recipe:
    """Change voxels of a file of case B; what ``change`` returns, if anything, replaces them."""

    def recipe(root: Path) -> None:
        image = nib.load(file(root, end))
        data = np.array(image.dataobj).astype(kind or image.get_data_dtype())
        changed = change(data)
        data = data if changed is None else changed
        nib.save(nib.Nifti1Image(data, image.affine), file(root, end))

    return recipe


def put(value: float) -> Callable[[np.ndarray], None]:
    return lambda data: data.__setitem__((16, 16, 12), value)


def content(end: str, change: Callable[[bytes], bytes]) -> Recipe:
    return lambda root: file(root, end).write_bytes(change(file(root, end).read_bytes()))


def header(offset: int, form: str, *values: float) -> Recipe:
    def change(packed: bytes) -> bytes:
        unpacked = bytearray(gzip.decompress(packed))
        struct.pack_into("<" + form, unpacked, offset, *values)
        return gzip.compress(bytes(unpacked), 1)

    return content("t1c", change)


def shifted(root: Path) -> None:
    image = nib.load(file(root, "t2f"))
    affine = image.affine.copy()
    affine[0, 3] += 2
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), file(root, "t2f"))


def copy(end: str, case: str, to: str) -> Recipe:
    return lambda root: shutil.copy(file(root, end, case), file(root, to))


def copies(ends: dict[str, str]) -> Recipe:
    """Case B becomes a copy of case A, with some of the files in another's place."""

    def recipe(root: Path) -> None:
        for end in ("t1n", "t1c", "t2w", "t2f", "seg"):
            copy(ends.get(end, end), A, end)(root)

    return recipe


def study(**sections: dict[str, Any]) -> Recipe:
    """Merge sections into the study; ROOT in texts is the folder of the test."""

    def recipe(root: Path) -> None:
        path = root / "study.yaml"
        whole = yaml.safe_load(path.read_text())
        for name, values in sections.items():
            whole[name] = (whole.get(name, {}) | values) if name != "regions" else values
        path.write_text(yaml.safe_dump(whole).replace("ROOT", str(root)))

    return recipe


def listed(layout: str, description: Any) -> Recipe:
    """A data set of one channel with this dataset.json (text, or what JSON is made of)."""

    def recipe(root: Path) -> None:
        text = description if isinstance(description, str) else json.dumps(description)
        (root / "data" / "dataset.json").write_text(text)
        study(dataset={"layout": layout, "channels": ["mri"]})(root)

    return recipe


def entry(**files: Any) -> Recipe:
    return listed("decathlon", {"modality": {"0": "MRI"}, "training": [files]})


def table(text: str | bytes) -> Recipe:
    def recipe(root: Path) -> None:
        (root / "p.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        study(dataset={"patients": "ROOT/p.csv"})(root)

    return recipe


def split(content: Any) -> Recipe:
    def recipe(root: Path) -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        (root / "split.json").write_text(text)
        study(folds={"file": "ROOT/split.json", "count": 2, "run": [0]})(root)

    return recipe


T1N, T1C, SEG, LIST, TABLE, SPLIT = (
    f"{B}-t1n.nii.gz",
    f"{B}-t1c.nii.gz",
    f"{B}-seg.nii.gz",
    "dataset.json",
    "p.csv",
    "split.json",
)
CORPUS: list[tuple[str, Recipe, str, str]] = [
    ("no channel", lambda r: file(r, "t1c").unlink(), "no such file", T1C),
    ("no label", lambda r: file(r, "seg").unlink(), "has no label file", B),
    ("empty file", content("t1c", lambda c: b""), "it is empty", T1C),
    ("half a file", content("t1c", lambda c: c[: len(c) // 2]), "ends early", T1C),
    ("a byte lost", content("t1c", lambda c: c[:-1]), "ends early", T1C),
    ("wrong checksum", content("t1c", lambda c: c[:-6] + b"\0\1" + c[-4:]), "damaged", T1C),
    ("text", content("t1c", lambda c: b"no scan" * 99), "no NIfTI header", T1C),
    ("packed text", content("t1c", lambda c: gzip.compress(b"x" * 999)), "no NIfTI header", T1C),
    ("half a label", content("seg", lambda c: c[: len(c) // 2]), "ends early", SEG),
    (
        "bomb",
        content("t1c", lambda c: gzip.compress(gzip.decompress(c) + bytes(2**23), 1)),
        "holds more than",
        T1C,
    ),
    ("huge", header(42, "hhh", 32767, 32767, 32767), "more than the file can hold", T1C),
    ("negative side", header(42, "h", -5), "has shape", T1C),
    ("no dimension", header(40, "h", 9), "header is damaged", T1C),
    ("no type", header(70, "h", 999), "header is damaged", T1C),
    ("colours", header(70, "h", 128), "no plain numbers", T1C),
    ("complex", header(70, "h", 32), "no plain numbers", T1C),
    ("offset NaN", header(108, "f", float("nan")), "header is damaged", T1C),
    ("offset far", header(108, "f", 1e30), "more than the file can hold", T1C),
    ("infinite slope", header(112, "f", float("inf")), "scaled by infinity", T1C),
    ("affine NaN", header(280, "f", float("nan")), "has an affine", T1C),
    ("affine 0", header(280, "12f", *[0.0] * 12), "has an affine", T1C),
    ("NaN", voxels("t1c", put(np.nan), np.float32), "not finite", T1C),
    ("infinite", voxels("t1c", put(np.inf), np.float32), "not finite", T1C),
    ("too large", voxels("t1c", put(1e300), np.float64), "not finite", T1C),
    ("all 0", voxels("t1c", lambda d: d * 0), "holds the value 0 in every voxel", T1C),
    ("all 7", voxels("t1c", lambda d: d * 0 + 7), "holds the value 7 in every voxel", T1C),
    ("cut", voxels("t1c", lambda d: d[1:]), "has shape", T1C),
    ("flat", voxels("t1c", lambda d: d[..., 0]), "a volume of three dimensions", T1C),
    ("4D", voxels("t1c", lambda d: np.stack([d, d], -1)), "a volume of three dimensions", T1C),
    ("shifted scan", shifted, "an affine that differs by up to 2 mm", f"{B}-t2f.nii.gz"),
    ("cut label", voxels("seg", lambda d: d[1:]), "has shape", SEG),
    ("foreign label", voxels("seg", put(4)), "label value 4, which no region names", SEG),
    ("half label", voxels("seg", put(0.5), np.float32), "label value 0.5", SEG),
    ("negative label", voxels("seg", put(-1), np.int16), "label value -1", SEG),
    ("label 300", voxels("seg", put(300), np.int16), "label value 300", SEG),
    ("label NaN", voxels("seg", put(np.nan), np.float32), "not finite", SEG),
    ("label outside", voxels("seg", lambda d: np.roll(d, 14, 0)), "where every channel is 0", SEG),
    ("a copied channel", copy("t1n", B, "t1c"), "holds the same voxels for t1c as", T1C),
    ("a copied case", copies({}), f"holds the same t1n as {A} (and 3 more", T1N),
    ("swapped", copies({"t1n": "t1c", "t1c": "t1n"}), f"that {A} holds as t1c", T1N),
    ("no list", study(dataset={"layout": "decathlon"}), "no such file", LIST),
    ("no JSON", listed("decathlon", "{"), "is not JSON", LIST),
    ("deep JSON", listed("decathlon", "[" * 99999), "is not JSON", LIST),
    ("a JSON list", listed("decathlon", []), "is no JSON object", LIST),
    ("no modality", listed("decathlon", {"training": []}), "describes 0 channel", LIST),
    ("no training", listed("decathlon", {"modality": {"0": "a"}}), "no list `training`", LIST),
    ("outside", entry(image="../../x.nii.gz"), "a file inside", LIST),
    ("absolute", entry(image="/etc/passwd"), "a file inside", LIST),
    ("label outside root", entry(image="a.nii.gz", label="../b.nii.gz"), "a file inside", LIST),
    ("no image", entry(label="a.nii.gz"), "names None", LIST),
    ("an image of numbers", entry(image=3), "names 3", LIST),
    ("a zero byte", entry(image="a\0.nii.gz"), "a file inside", LIST),
    ("nnunet channels", listed("nnunet", {"channel_names": {}}), "describes 0 channel", LIST),
    ("no cases", study(dataset={"root": "ROOT/data/" + B}), "holds no cases", B),
    ("no folder", study(dataset={"root": "ROOT/none"}), "no such folder", "none"),
    ("no table", study(dataset={"patients": "ROOT/p.csv"}), "no such file", TABLE),
    ("table columns", table("a,b\n"), "the columns case and patient", TABLE),
    ("table lacks", table(f"case,patient\n{A},x\n"), "does not name the case", TABLE),
    ("table UTF-16", table("case,patient\n".encode("utf-16")), "is not UTF-8 text", TABLE),
    ("pattern", study(dataset={"patient_pattern": "(x)"}), "does not match", "patient_pattern"),
    ("no region", study(regions={"all": [9]}), "which no region names", "seg.nii.gz"),
    ("too many folds", study(folds={"count": 9}), "9 folds, but the data set has", "folds.count"),
    ("no split", study(folds={"file": "ROOT/split.json"}), "cannot be read", SPLIT),
    ("split no JSON", split("{"), "is not JSON", SPLIT),
    ("split unknown", split([{"train": [A], "val": ["C"]}]), "does not have: C", SPLIT),
    ("split twice", split([{"train": [A, B], "val": [A]}]), f"{A} in both", SPLIT),
    (
        "a patient on both sides",
        split([{"train": [A, "Phantom-0003-000"], "val": ["Phantom-0003-001"]}]),
        "both of patient Phantom-0003",
        SPLIT,
    ),
]


@pytest.mark.parametrize(
    ("recipe", "said", "where"), [c[1:] for c in CORPUS], ids=[c[0] for c in CORPUS]
)
def test_a_bad_input_is_one_message_with_file_and_mend(
    phantom_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    recipe: Recipe,
    said: str,
    where: str,
) -> None:
    shutil.copytree(phantom_folder, tmp_path / "data")
    plain = {
        "dataset": {
            "layout": "brats",
            "root": str(tmp_path / "data"),
            "channels": ["t1n", "t1c", "t2w", "t2f"],
        },
        "regions": {"TC": [1, 3], "WT": [1, 2, 3], "ET": [3]},
        "folds": {"count": 2},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(plain))
    recipe(tmp_path)
    assert index(tmp_path / "study.yaml") == 1
    told = capsys.readouterr().err
    assert said in told
    assert where in told
    assert "expected: " in told and "to mend it: " in told
    assert "Traceback" not in told


def test_the_corpus_is_bad_only_by_its_recipes(phantom_folder: Path, tmp_path: Path) -> None:
    """The unchanged data set is accepted, so that every refusal is due to its recipe."""
    assert len(CORPUS) >= 50
    with pytest.raises(AssertionError):
        test_a_bad_input_is_one_message_with_file_and_mend(
            phantom_folder,
            tmp_path,
            None,
            lambda root: None,
            "",
            "",  # type: ignore[arg-type]
        )
