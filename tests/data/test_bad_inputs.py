"""A corpus of bad inputs: each is one message that names the file and the fix, and exit code 1."""

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
import SimpleITK
import yaml

from voxelsoup.commands.cli import main

A, B = "Phantom-0000-000", "Phantom-0001-000"
Recipe = Callable[[Path], Any]


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


CHANNELS = ["t1n", "t1c", "t2w", "t2f"]


def path(case: str, end: str) -> str:
    """A file as lists name it."""
    return f"{case}/{case}-{end}.nii.gz"


def cases(root: Path) -> list[str]:
    return sorted(folder.name for folder in (root / "data").iterdir() if folder.is_dir())


def datalist(change: Callable[[dict[str, Any]], Any]) -> Recipe:
    """A MONAI datalist of all cases; the second entry is that of case B."""

    def recipe(root: Path) -> None:
        entries = [
            {"image": [path(case, end) for end in CHANNELS], "label": path(case, "seg")}
            for case in cases(root)
        ]
        content = {"training": entries}
        change(content)
        (root / "data" / "list.json").write_text(json.dumps(content))
        study(dataset={"layout": "monai", "file": "ROOT/data/list.json"})(root)

    return recipe


def item(**fields: Any) -> Recipe:
    """A MONAI datalist with other fields in the entry of case B."""
    return datalist(lambda content: content["training"][1].update(fields))


def spreadsheet(change: Callable[[list[list[str]]], Any]) -> Recipe:
    """A table of all cases; row 0 are the heads and row 2 is case B."""

    def recipe(root: Path) -> None:
        rows = [["case", *CHANNELS, "label"]]
        rows += [[case, *(path(case, end) for end in (*CHANNELS, "seg"))] for case in cases(root)]
        change(rows)
        text = "\n".join(",".join(row) for row in rows)
        (root / "data" / "cases.csv").write_text(text)
        study(dataset={"layout": "table"})(root)

    return recipe


def cell(column: int, value: str) -> Recipe:
    return spreadsheet(lambda rows: rows[2].__setitem__(column, value))


def stored(suffix: str, change: Callable[[bytes], bytes], packed: bool = True) -> Recipe:
    """The channel t1c of case B as a .mha or .nrrd file, named by a table."""

    def recipe(root: Path) -> None:
        other = file(root, "t1c").with_name(f"t1c{suffix}")
        SimpleITK.WriteImage(SimpleITK.ReadImage(str(file(root, "t1c"))), str(other), packed)
        other.write_bytes(change(other.read_bytes()))
        cell(2, f"{B}/t1c{suffix}")(root)

    return recipe


def instead(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        assert old in content
        return content.replace(old, new, 1)

    return change


def surplus(packed: bytes) -> bytes:
    """One slice more than the header promises."""
    unpacked = gzip.decompress(packed)
    x, y = struct.unpack_from("<hh", unpacked, 42)
    return gzip.compress(unpacked + b"7" * (2 * x * y), 1)


def twice(description: Path) -> None:
    """Write the object's keys twice, as a careless merge leaves them."""
    text = description.read_text()
    description.write_text(f"{text[:-1]}, {text[1:]}")


def too_large(root: Path) -> None:
    """A header of four terabytes, in a file that could hold them, and takes no room on the disk."""
    header(42, "hhh", 32000, 32000, 2000)(root)
    with file(root, "t1c").open("r+b") as stream:
        stream.truncate(4 * 10**9)


def dangling(root: Path) -> None:
    file(root, "t1c").unlink()
    file(root, "t1c").symlink_to(root / "gone.nii.gz")


def four_dimensional(components: int) -> Recipe:
    """A Decathlon data set of two channels whose one file has another number of them."""

    def recipe(root: Path) -> None:
        image = nib.load(file(root, "t1c"))
        data = np.array(image.dataobj)
        several = np.stack([np.roll(data, n, 0) for n in range(components)], -1)
        nib.save(nib.Nifti1Image(several, image.affine), root / "data" / "four.nii.gz")
        description = {
            "modality": {"0": "a", "1": "b"},
            "training": [{"image": "four.nii.gz", "label": path(B, "seg")}],
        }
        listed("decathlon", description)(root)
        study(dataset={"channels": ["a", "b"]})(root)

    return recipe


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


def nnunet(change: Callable[[Path], Any]) -> Recipe:
    """All cases as an nnU-Net data set of one channel with something changed in its folder."""

    def recipe(root: Path) -> None:
        raw = root / "raw"
        for folder, end, mark in (("imagesTr", "t1c", "_0000"), ("labelsTr", "seg", "")):
            (raw / folder).mkdir(parents=True)
            for case in cases(root):
                shutil.copy(file(root, end, case), raw / folder / f"{case}{mark}.nii.gz")
        description = {"channel_names": {"0": "MRI"}, "file_ending": ".nii.gz"}
        (raw / "dataset.json").write_text(json.dumps(description))
        settings = {"layout": "nnunet", "root": "ROOT/raw", "channels": ["mri"]}
        study(dataset=settings)(root)
        change(raw)

    return recipe


def described(**fields: Any) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        content = json.loads((root / "dataset.json").read_text()) | fields
        (root / "dataset.json").write_text(json.dumps(content))

    return change


T1N, T1C, SEG, LIST, TABLE, SPLIT = (
    f"{B}-t1n.nii.gz",
    f"{B}-t1c.nii.gz",
    f"{B}-seg.nii.gz",
    "dataset.json",
    "p.csv",
    "split.json",
)
PHANTOMS = ["0-000", "1-000", "2-000", "3-000", "3-001", "4-000"]
MONAI, CSV, NNUNET = "list.json", "cases.csv", f"imagesTr/{B}_0000.nii.gz"
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
    ("a JSON list", listed("decathlon", []), "is not a JSON object", LIST),
    ("no modality", listed("decathlon", {"training": []}), "describes 0 channel", LIST),
    ("no training", listed("decathlon", {"modality": {"0": "a"}}), "no list `training`", LIST),
    ("outside", entry(image="../../x.nii.gz"), "a file inside", LIST),
    ("absolute", entry(image="/etc/passwd"), "a file inside", LIST),
    ("label outside root", entry(image="a.nii.gz", label="../b.nii.gz"), "a file inside", LIST),
    ("no image", entry(label="a.nii.gz"), "names None", LIST),
    ("an image of numbers", entry(image=3), "names 3", LIST),
    ("a zero byte", entry(image="a\0.nii.gz"), "a file inside", LIST),
    ("too few components", four_dimensional(1), "and no channel 1", "four.nii.gz"),
    ("too many components", four_dimensional(3), "holds 3 components", "four.nii.gz"),
    ("nnunet channels", listed("nnunet", {"channel_names": {}}), "describes 0 channel", LIST),
    ("nnunet files", listed("nnunet", {"channel_names": [1], "file_ending": ".png"}), ".png", LIST),
    (
        "an nnunet channel too many",
        nnunet(lambda raw: shutil.copy(raw / NNUNET, raw / NNUNET.replace("_0000", "_0004"))),
        "is a channel beyond the 1 that dataset.json describes",
        f"{B}_0004.nii.gz",
    ),
    ("no nnunet image", nnunet(lambda raw: (raw / NNUNET).unlink()), "no such file", NNUNET),
    (
        "no nnunet label",
        nnunet(lambda raw: (raw / "labelsTr" / f"{B}.nii.gz").unlink()),
        "no such file",
        f"{B}.nii.gz",
    ),
    ("an nnunet list", nnunet(described(dataset=[])), "as `dataset`", LIST),
    ("nnunet images", nnunet(described(dataset={"b": {}})), "as the `images` of 'b'", LIST),
    (
        "nnunet outside",
        nnunet(described(dataset={"b": {"images": ["../x.nii.gz"], "label": "y.nii.gz"}})),
        "a file inside",
        LIST,
    ),
    ("no datalist", study(dataset={"layout": "monai"}), "no such file", LIST),
    ("no training list", datalist(lambda c: c.pop("training")), "no list `training`", MONAI),
    ("a text as entry", datalist(lambda c: c["training"].append("x")), "has 'x' as entry", MONAI),
    ("three images", item(image=[path(B, end) for end in CHANNELS[1:]]), "names 3 image", MONAI),
    ("datalist outside", item(image=["../x.nii.gz"] * 4), "a file inside", MONAI),
    ("datalist absolute", item(label="/etc/passwd"), "entry 1 of `training` names", MONAI),
    ("up and down", item(label="a/../../b.nii.gz"), "a file inside", MONAI),
    ("a Windows path", item(label="C:\\b.nii.gz"), "a file inside", MONAI),
    ("a name that leads out", item(case="../x"), "which holds a slash", "data"),
    ("one name twice", item(case=A), f"two cases named {A}", "data"),
    ("no image file", item(image=[path("C", end) for end in CHANNELS]), "no such file", "C-t1n"),
    ("no such patient", item(patient=[1]), "gives the patient as [1]", MONAI),
    ("no case label", item(label=None), "has no label file", B),
    (
        "validation",
        datalist(lambda c: c.update(validation=[3])),
        "entry 0 of `validation`",
        MONAI,
    ),
    (
        "a key twice",
        lambda r: (datalist(lambda c: None)(r), twice(r / "data" / "list.json")),
        "the key 'training' twice",
        MONAI,
    ),
    ("no cases.csv", study(dataset={"layout": "table"}), "no such file", CSV),
    ("no column", spreadsheet(lambda rows: rows[0].__setitem__(2, "t1")), "t1c = t1", CSV),
    ("columns twice", spreadsheet(lambda rows: rows[0].append("t1c")), "'t1c' twice", CSV),
    ("no cell", cell(2, ""), "row 3 has nothing under `t1c`", CSV),
    ("no name", cell(0, ""), "row 3 has nothing under `case`", CSV),
    ("a case twice", cell(0, A), f"rows 2 and 3 both name the case '{A}'", CSV),
    ("a row too short", spreadsheet(lambda rows: rows[2].pop()), "row 3 has 5 cell", CSV),
    ("a row too long", spreadsheet(lambda rows: rows[2].append("x")), "row 3 has 7 cell", CSV),
    ("an open quote", cell(5, '"x'), "is not a row of a table", CSV),
    ("a control character", cell(5, "a\0b"), "control character", CSV),
    ("cell outside", cell(2, "../x.nii.gz"), "row 3 (`t1c`) names '../x.nii.gz'", CSV),
    ("cell absolute", cell(5, "/etc/passwd"), "a file inside", CSV),
    ("no component", cell(2, path(B, "t1c") + "#1"), "and no channel 1", T1C),
    ("another kind of file", cell(2, "cases.csv"), "its name ends in none of", CSV),
    ("a dangling link", dangling, "no such file", T1C),
    ("channel names", study(dataset={"channels": ["../t1c"]}), "dataset.channels", "study.yaml"),
    ("too large for memory", too_large, "GB of memory are needed where", T1C),
    ("surplus bytes", content("t1c", surplus), "1 more along the last axis (25)", T1C),
    ("half a mha", stored(".mha", lambda c: c[:-40]), "cannot be read", "t1c.mha"),
    ("no mha", stored(".mha", lambda c: b"x" * 99), "no MetaImage header", "t1c.mha"),
    (
        "mha elsewhere",
        stored(".mha", instead(b"= LOCAL", b"= /etc/passwd")),
        "its voxels are in another file",
        "t1c.mha",
    ),
    (
        "mha sides",
        stored(".mha", instead(b"\nDimSize = ", b"\nDimSize = 5 ")),
        "NDims 3",
        "t1c.mha",
    ),
    (
        "mha too long",
        stored(".mha", instead(b"= 30 32 24", b"= 30 32 23"), packed=False),
        "1 more along the last axis (24)",
        "t1c.mha",
    ),
    ("half a nrrd", stored(".nrrd", lambda c: c[:-40]), "cannot be read", "t1c.nrrd"),
    ("no nrrd", stored(".nrrd", lambda c: b"x" * 99), "header is damaged", "t1c.nrrd"),
    (
        "nrrd elsewhere",
        stored(".nrrd", instead(b"encoding: gzip", b"encoding: gzip\ndata file: /etc/passwd")),
        "its voxels are in another file",
        "t1c.nrrd",
    ),
    (
        "nrrd as text",
        stored(".nrrd", instead(b"encoding: gzip", b"encoding: text")),
        "encoded as text",
        "t1c.nrrd",
    ),
    (
        "nrrd nowhere",
        stored(".nrrd", instead(b"space: left-posterior-superior", b"space: scanner-xyz")),
        "its space is 'scanner-xyz'",
        "t1c.nrrd",
    ),
    ("no cases", study(dataset={"root": "ROOT/data/" + B}), "holds no cases", B),
    ("no folder", study(dataset={"root": "ROOT/none"}), "no such folder", "none"),
    ("no table", study(dataset={"patients": "ROOT/p.csv"}), "no such file", TABLE),
    ("table columns", table("a,b\n"), "the columns case and patient", TABLE),
    ("table lacks", table(f"case,patient\n{A},x\n"), "does not name the case", TABLE),
    ("table UTF-16", table("case,patient\n".encode("utf-16")), "is not UTF-8 text", TABLE),
    ("pattern", study(dataset={"patient_pattern": "(x)"}), "does not match", "patient_pattern"),
    ("no region", study(regions={"all": [9]}), "which no region names", "seg.nii.gz"),
    ("too many folds", study(folds={"count": 9}), "9 folds, but the data set has", "folds.count"),
    ("no split", study(folds={"file": "ROOT/split.json"}), "no such file", SPLIT),
    ("split no JSON", split("{"), "is not JSON", SPLIT),
    ("split unknown", split([{"train": [A], "val": ["C"]}]), "does not have: C", SPLIT),
    ("split twice", split([{"train": [A, B], "val": [A]}]), f"{A} in both", SPLIT),
    (
        "a patient on both sides",
        split([{"train": [A, "Phantom-0003-000"], "val": ["Phantom-0003-001"]}]),
        "both of patient Phantom-0003",
        SPLIT,
    ),
    ("no test cases", split([{"train": [A, B], "val": []}]), "fold 0 has no test cases", SPLIT),
    ("no training", split([{"train": [], "val": [A]}]), "no training cases", SPLIT),
    ("no fold", split([]), "has no fold 0", SPLIT),
    ("a split of texts", split(["x"]), "is not of nnU-Net's form", SPLIT),
    ("another split", split({"folds": []}), "is JSON of another form", SPLIT),
    ("fold x", split({"training": [{"case": A, "fold": "x"}]}), "no usable `fold`", SPLIT),
    (
        "a datalist's patient on both sides",
        split(
            {
                "training": [
                    {"case": "Phantom-0003-000", "fold": 0},
                    {"case": "Phantom-0003-001", "fold": 1},
                ]
            }
        ),
        "both of patient Phantom-0003",
        SPLIT,
    ),
]


def run(phantom_folder: Path, folder: Path, recipe: Recipe) -> int:
    """Apply a recipe to a study of the phantom, and look at it as a user does."""
    shutil.copytree(phantom_folder, folder / "data")
    plain = {
        "dataset": {"layout": "brats", "root": str(folder / "data"), "channels": CHANNELS},
        "regions": {"TC": [1, 3], "WT": [1, 2, 3], "ET": [3]},
        "folds": {"count": 2},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(plain))
    recipe(folder)
    return main(["index", str(folder / "study.yaml")])


@pytest.mark.parametrize(
    ("recipe", "said", "where"), [c[1:] for c in CORPUS], ids=[c[0] for c in CORPUS]
)
def test_a_bad_input_is_one_message_with_file_and_fix(
    phantom_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    recipe: Recipe,
    said: str,
    where: str,
) -> None:
    assert run(phantom_folder, tmp_path, recipe) == 1
    printed = capsys.readouterr()
    # One mistake is a message of its own; cases, which may be many, are a list.
    message = printed.err or printed.out
    assert said in message
    assert where in message
    assert "expected: " in message and "fix: " in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    "recipe",
    [
        lambda root: None,
        datalist(lambda content: None),
        spreadsheet(lambda rows: None),
        nnunet(lambda raw: None),
        stored(".mha", lambda content: content),
        stored(".nrrd", lambda content: content),
        split([{"train": [A, B], "val": ["Phantom-0002-000"]}]),
        table("case,patient\n" + "\n".join(f"Phantom-000{n},{n}" for n in PHANTOMS)),
    ],
)
def test_the_corpus_is_bad_only_by_its_recipes(
    phantom_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], recipe: Recipe
) -> None:
    """What the recipes begin with is accepted, so that every refusal is due to one of them."""
    assert len(CORPUS) >= 50
    assert run(phantom_folder, tmp_path, recipe) == 0, capsys.readouterr()
