"""Each folder layout: its cases, and the messages about broken ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from voxelsoup.common.errors import InputError
from voxelsoup.data.case import Case, Source
from voxelsoup.data.index.folder_hash import list_files
from voxelsoup.data.layouts import READERS, find_cases
from voxelsoup.data.layouts.detect import guess
from voxelsoup.study.sections.data import Dataset


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def find(layout: Any, root: Path, channels: list[str], **settings: Any) -> list[Case]:
    dataset = Dataset(layout=layout, root="unused", channels=channels, **settings)
    return find_cases(dataset, root)


def describe(root: Path, **content: Any) -> Path:
    (root / "dataset.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize("layout", READERS)
def test_a_missing_or_empty_folder_is_refused(tmp_path: Path, layout: Any) -> None:
    with pytest.raises(InputError, match="no such folder") as caught:
        find(layout, tmp_path / "none", ["t1n"])
    assert "dataset." in caught.value.fix
    with pytest.raises(InputError, match=r"holds no cases|no such file") as caught:
        find(layout, tmp_path, ["t1n"])
    assert str(tmp_path) in caught.value.where
    assert "dataset." in caught.value.fix


@pytest.mark.parametrize("group", ["", "TrainingData/"])
def test_brats_2023_cases_are_found(tmp_path: Path, group: str) -> None:
    for name in ("BraTS-GLI-00005-001", "BraTS-GLI-00002-000"):
        touch(tmp_path, *(f"{group}{name}/{name}-{end}.nii.gz" for end in ("t1n", "t1c", "seg")))
    touch(tmp_path, "notes/readme.txt")
    second, first = find("brats", tmp_path, ["t1c", "t1n"])[::-1]
    assert [first.name, second.name] == ["BraTS-GLI-00002-000", "BraTS-GLI-00005-001"]
    folder = tmp_path / group / first.name
    assert list(first.channels.items()) == [
        ("t1c", Source(folder / f"{first.name}-t1c.nii.gz")),
        ("t1n", Source(folder / f"{first.name}-t1n.nii.gz")),
    ]
    assert first.label == Source(folder / f"{first.name}-seg.nii.gz")


def test_brats_2020_cases_are_found(tmp_path: Path) -> None:
    name = "BraTS20_Training_001"
    touch(tmp_path, *(f"{name}/{name}_{end}.nii" for end in ("t1", "t1ce", "flair", "seg")))
    (case,) = find("brats", tmp_path, ["flair", "t1", "t1ce"])
    found = [source.file.name for source in case.channels.values()]
    assert found == [f"{name}_flair.nii", f"{name}_t1.nii", f"{name}_t1ce.nii"]


def test_a_brats_case_with_missing_files_is_found_all_the_same(tmp_path: Path) -> None:
    touch(tmp_path, "A-1/A-1-t1n.nii.gz")
    (case,) = find("brats", tmp_path, ["t1n", "t1c"])
    assert case.channels["t1c"].file == tmp_path / "A-1" / "A-1-t1c.nii.gz"
    assert case.label is None


def test_a_brats_folder_with_files_of_other_names_is_found_all_the_same(tmp_path: Path) -> None:
    touch(tmp_path, "A-1/A-1-t1n.nii.gz", "B-2/t1n.nii.gz", "B-2/seg.nii.gz")
    (tmp_path / "C-3").mkdir()
    touch(tmp_path, ".git/x.nii.gz", "notes/readme.txt", "A-1/masks/brain.nii.gz")
    cases = find("brats", tmp_path, ["t1n"])
    assert [case.name for case in cases] == ["A-1", "B-2", "C-3"]
    assert cases[1].channels["t1n"].file == tmp_path / "B-2" / "B-2-t1n.nii.gz"


def test_a_volume_beside_the_case_folders_makes_no_case(tmp_path: Path) -> None:
    touch(tmp_path, "HGG/B_1/B_1_t1.nii.gz", "HGG/B_2/B_2_t1.nii.gz", "HGG/atlas.nii.gz")
    assert [case.name for case in find("brats", tmp_path, ["t1"])] == ["B_1", "B_2"]


def test_decathlon_cases_are_found(tmp_path: Path) -> None:
    entries = [
        {"image": f"./imagesTr/h_{n}.nii.gz", "label": f"./labelsTr/h_{n}.nii.gz"} for n in (2, 1)
    ]
    describe(tmp_path, modality={"0": "MRI"}, training=entries)
    one, two = find("decathlon", tmp_path, ["mri"])
    assert (one.name, two.name) == ("h_1", "h_2")
    assert one.channels == {"mri": Source(tmp_path / "imagesTr/h_1.nii.gz")}
    assert one.label == Source(tmp_path / "labelsTr/h_1.nii.gz")


def test_the_channels_of_a_decathlon_file_lie_in_one_4d_file(tmp_path: Path) -> None:
    entries = [{"image": "imagesTr/p.nii.gz", "label": "labelsTr/p.nii.gz"}]
    describe(tmp_path, modality={"0": "T2", "1": "ADC"}, training=entries)
    (case,) = find("decathlon", tmp_path, ["t2", "adc"])
    image = tmp_path / "imagesTr/p.nii.gz"
    assert case.channels == {"t2": Source(image, 0), "adc": Source(image, 1)}


def test_nnunet_cases_are_found(tmp_path: Path) -> None:
    describe(tmp_path, channel_names={"0": "T1", "1": "T2"}, file_ending=".nii.gz")
    touch(tmp_path, *(f"imagesTr/{case}_000{n}.nii.gz" for case in ("b_2", "a_1") for n in (0, 1)))
    first, second = find("nnunet", tmp_path, ["t1", "t2"])
    assert (first.name, second.name) == ("a_1", "b_2")
    assert first.channels["t2"] == Source(tmp_path / "imagesTr/a_1_0001.nii.gz")
    assert first.label == Source(tmp_path / "labelsTr/a_1.nii.gz")


def test_an_nnunet_label_without_images_is_found_all_the_same(tmp_path: Path) -> None:
    describe(tmp_path, channel_names={"0": "T1"}, file_ending=".nii.gz")
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "labelsTr/b.nii.gz")
    touch(tmp_path, "imagesTr/._a_0000.nii.gz", "labelsTr/._a.nii.gz")
    cases = find("nnunet", tmp_path, ["t1"])
    assert [case.name for case in cases] == ["a", "b"]
    assert cases[1].channels == {"t1": Source(tmp_path / "imagesTr/b_0000.nii.gz")}


@pytest.mark.parametrize("layout", ["decathlon", "nnunet"])
@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "is not JSON"), ("[" * 100_000, "is not JSON"), ("[]", "is not a JSON object")],
)
def test_a_broken_description_is_refused(
    tmp_path: Path, layout: Any, content: str, said: str
) -> None:
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(InputError, match=said) as caught:
        find(layout, tmp_path, ["t1"])
    assert caught.value.where == str(tmp_path / "dataset.json")


@pytest.mark.parametrize(
    ("layout", "key"), [("decathlon", "modality"), ("nnunet", "channel_names")]
)
def test_another_number_of_channels_is_refused(tmp_path: Path, layout: Any, key: str) -> None:
    describe(tmp_path, **{key: {"0": "T1"}}, training=[])
    with pytest.raises(InputError, match=r"describes 1 channel.* names 2") as caught:
        find(layout, tmp_path, ["t1", "t2"])
    assert "dataset.channels" in caught.value.fix


OUTSIDE = ["../x.nii.gz", "/etc/x.nii.gz", "a/../../x.nii.gz", ".", "a\0b", ["x"]]


# An entry without a label is an unlabelled case; one without an image is none.
@pytest.mark.parametrize(
    ("key", "path"), [("image", None), *((k, p) for k in ("image", "label") for p in OUTSIDE)]
)
def test_entries_outside_of_the_folder_are_refused(tmp_path: Path, key: str, path: object) -> None:
    entry = {"image": "imagesTr/x.nii.gz", "label": "labelsTr/x.nii.gz"} | {key: path}
    describe(tmp_path, modality={"0": "T1"}, training=[entry])
    with pytest.raises(InputError, match="outside the data set's folder") as caught:
        find("decathlon", tmp_path, ["t1"])
    assert caught.value.where == str(tmp_path / "dataset.json")
    assert repr(path) in caught.value.found


def test_absolute_paths_into_the_folder_are_taken(tmp_path: Path) -> None:
    """Under the folder's own name, and under the one of a link that leads to it."""
    root, alias = tmp_path / "task", tmp_path / "alias"
    root.mkdir()
    alias.symlink_to(root)
    entry = {"image": f"{root}/imagesTr/x.nii.gz", "label": f"{alias}/labelsTr/x.nii.gz"}
    describe(root, modality={"0": "T1"}, training=[entry])
    for folder in (root, alias):
        (case,) = find("decathlon", folder, ["t1"])
        assert case.channels["t1"].file == folder / "imagesTr" / "x.nii.gz"
        assert case.label == Source(folder / "labelsTr" / "x.nii.gz")


@pytest.mark.parametrize("path", ["{root}", "{root}/../other/x.nii", "{root}er/x.nii", "//x.nii"])
def test_absolute_paths_that_leave_the_folder_are_refused(tmp_path: Path, path: str) -> None:
    root = tmp_path / "task"
    touch(tmp_path, "task/x.nii", "other/x.nii", "tasker/x.nii")
    describe(root, modality={"0": "T1"}, training=[{"image": path.format(root=root)}])
    with pytest.raises(InputError, match="outside the data set's folder"):
        find("decathlon", root, ["t1"])


def test_links_that_lead_out_of_the_folder_are_the_users_own(tmp_path: Path) -> None:
    touch(tmp_path, "store/1.nii.gz", "store/labels/1.nii.gz")
    root = tmp_path / "task"
    (root / "imagesTr").mkdir(parents=True)
    (root / "imagesTr" / "x.nii.gz").symlink_to(tmp_path / "store" / "1.nii.gz")
    (root / "labelsTr").symlink_to(tmp_path / "store" / "labels")
    entry = {"image": "./imagesTr/x.nii.gz", "label": "./labelsTr/1.nii.gz"}
    describe(root, modality={"0": "T1"}, training=[entry])
    (case,) = find("decathlon", root, ["t1"])
    assert case.channels["t1"].file == root / "imagesTr" / "x.nii.gz"
    assert case.label == Source(root / "labelsTr" / "1.nii.gz")


def test_a_change_behind_a_link_is_noticed(tmp_path: Path) -> None:
    touch(tmp_path, "store/a.nii.gz", "task/dataset.json")
    (tmp_path / "task" / "imagesTr").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "back").symlink_to(tmp_path / "task")
    dataset = Dataset(layout="decathlon", root=str(tmp_path / "task"), channels=["t1"])
    before = list_files(dataset)
    assert list_files(dataset) == before
    (tmp_path / "store" / "a.nii.gz").write_bytes(b"changed")
    assert list_files(dataset) != before


@pytest.mark.parametrize(
    ("layout", "key"), [("decathlon", "modality"), ("nnunet", "channel_names")]
)
@pytest.mark.parametrize("value", [3, None, "MRI"])
def test_channels_of_another_form_are_refused(
    tmp_path: Path, layout: Any, key: str, value: object
) -> None:
    describe(tmp_path, **{key: value}, training=[])
    with pytest.raises(InputError, match="describes its channels as"):
        find(layout, tmp_path, ["t1"])


@pytest.mark.parametrize("ending", [".png", "/../x", "**", None])
def test_nnunet_files_of_unknown_formats_are_refused(tmp_path: Path, ending: object) -> None:
    describe(tmp_path, channel_names={"0": "T1"}, file_ending=ending)
    with pytest.raises(InputError, match="its files end in") as caught:
        find("nnunet", tmp_path, ["t1"])
    assert "convert" in caught.value.fix


def test_the_test_images_of_nnunet_are_for_prediction(tmp_path: Path) -> None:
    describe(tmp_path, channel_names={"0": "T1"}, file_ending=".mha")
    touch(tmp_path, "imagesTr/a_0000.mha", "labelsTr/a.mha", "imagesTr/b_0000.mha")
    touch(tmp_path, "imagesTs/c_0000.mha", "labelsTs/c.mha", "imagesTs/readme.txt")
    assert [(case.name, case.label is None) for case in find("nnunet", tmp_path, ["t1"])] == [
        ("a", False),
        # Its label is found missing when it is checked.
        ("b", False),
    ]
    cases = find("nnunet", tmp_path, ["t1"], unlabelled="predict")
    assert [(case.name, case.label is None) for case in cases] == [
        ("a", False),
        ("b", True),
        ("c", True),
    ]
    assert cases[2].channels["t1"] == Source(tmp_path / "imagesTs/c_0000.mha")


def test_a_list_in_nnunets_description_stands_for_the_folders(tmp_path: Path) -> None:
    listed = {
        "b": {"images": ["x/b1.nrrd", "x/b2.nrrd"], "label": "y/b.nrrd"},
        "a": {"images": ["x/a1.nrrd", "x/a2.nrrd"]},
    }
    names = {"0": "T1", "1": "T2"}
    describe(tmp_path, channel_names=names, file_ending=".nrrd", dataset=listed)
    touch(tmp_path, "imagesTr/c_0000.nrrd", "labelsTr/c.nrrd")
    first, second = find("nnunet", tmp_path, ["t1", "t2"])
    assert (first.name, first.label) == ("a", None)
    assert second.channels["t2"] == Source(tmp_path / "x/b2.nrrd")
    assert second.label == Source(tmp_path / "y/b.nrrd")


def test_the_test_images_of_the_decathlon_are_for_prediction(tmp_path: Path) -> None:
    entries = [{"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}]
    tests = ["./imagesTs/b.nii.gz", {"image": "imagesTs/c.nii.gz", "label": "x.nii.gz"}]
    describe(tmp_path, modality={"0": "T1"}, training=entries, test=tests)
    assert [case.name for case in find("decathlon", tmp_path, ["t1"])] == ["a"]
    cases = find("decathlon", tmp_path, ["t1"], unlabelled="predict")
    assert [(case.name, case.label is None) for case in cases] == [
        ("a", False),
        ("b", True),
        ("c", True),
    ]


FILES = ["p_1/p_1_t1.nii.gz", "p_1/p_1_t2.nii.gz"]


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ({"case": "x", "image": FILES}, "x"),
        ({"name": "y", "image": FILES}, "y"),
        ({"image": FILES}, "p_1"),
        ({"image": ["i/q_t1.nii.gz", "i/q_t2w.nii.gz"]}, "q"),
        ({"image": ["r/t1.nii.gz", "r/t2.nii.gz"]}, "r"),
        ({"image": ["a/s.nii.gz", "b/s.nii.gz"]}, "s"),
    ],
)
def test_the_name_of_a_datalists_case(tmp_path: Path, entry: dict[str, Any], name: str) -> None:
    (tmp_path / "list.json").write_text(json.dumps({"training": [entry | {"label": "l.nii"}]}))
    (case,) = find("monai", tmp_path, ["t1", "t2"], file=str(tmp_path / "list.json"))
    assert case.name == name
    assert [str(source) for source in case.channels.values()] == [
        str(tmp_path / file) for file in entry["image"]
    ]
    assert case.label == Source(tmp_path / "l.nii")
    assert case.components is None


def test_cases_of_a_datalist_are_found(tmp_path: Path) -> None:
    describe(
        tmp_path,
        training=[{"image": "b.nii.gz", "label": ["bl.nii.gz"], "patient": 7, "fold": 0}],
        validation=[{"image": "v.nii.gz"}, {"image": "w.nii.gz", "label": "wl.nii.gz"}],
        testing=[{"image": "a.nii.gz", "label": "secret.nii.gz"}],
        test=["t.nii.gz"],
    )
    first, second = find("monai", tmp_path, ["t1", "t2"])
    assert (first.name, first.patient, second.name) == ("b", "7", "w")
    assert first.channels["t2"] == Source(tmp_path / "b.nii.gz", 1)
    assert first.label == Source(tmp_path / "bl.nii.gz")
    # One file has to hold exactly the channels that the study names.
    assert first.components == 2
    cases = find("monai", tmp_path, ["t1"], unlabelled="predict")
    assert {case.name: case.label is None for case in cases} == {
        "a": True,
        "b": False,
        "t": True,
        "v": True,
        "w": False,
    }


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("name", ["cases.csv", "cases.tsv"])
@pytest.mark.parametrize("stated", [False, True])
def test_cells_of_a_table_are_parted_by_any_usual_separator(
    tmp_path: Path, separator: str, name: str, stated: bool
) -> None:
    rows = [["case", "ct", "label"], ["a", "a,b.nii.gz", "a-seg.nii.gz"], ["c", "c.nii.gz", ""]]
    lines = [separator.join(f'"{cell}"' if "," in cell else cell for cell in row) for row in rows]
    first = [f"sep={separator}"] if stated else []
    text = "\r\n".join([*first, *lines])
    (tmp_path / name).write_text(text, encoding="utf-8-sig", newline="")
    found = find("table", tmp_path, ["ct"], file=str(tmp_path / name))
    assert [case.channels["ct"].file.name for case in found] == ["a,b.nii.gz", "c.nii.gz"]
    assert found[0].label == Source(tmp_path / "a-seg.nii.gz")
    # Rows are counted as the spreadsheet counts them.
    (tmp_path / name).write_text(f"{text}\r\nd{separator}{separator}", newline="")
    with pytest.raises(InputError, match=f"row {4 + stated} has nothing under `ct`"):
        find("table", tmp_path, ["ct"], file=str(tmp_path / name))


def test_cases_of_a_table_are_found(tmp_path: Path) -> None:
    table = tmp_path / "elsewhere" / "cases.tsv"
    table.parent.mkdir()
    lines = [
        ["label", "site", "case", "t1", "adc", "patient"],
        ["l/b.nrrd", "here", "b", "i/b.mha", "i/four.nii.gz#2", " anna "],
        [],
        ["", "", "a", "i/a.mha", "i/four.nii.gz#1", "bert"],
    ]
    # As a spreadsheet saves it.
    text = "\r\n".join("\t".join(line) for line in lines)
    table.write_text(text, encoding="utf-8-sig", newline="")
    first, second = find("table", tmp_path, ["t1", "adc"], file=str(table))
    assert (first.name, first.patient, first.label) == ("a", "bert", None)
    assert (second.name, second.patient) == ("b", "anna")
    assert second.label == Source(tmp_path / "l/b.nrrd")
    assert second.channels == {
        "t1": Source(tmp_path / "i/b.mha"),
        "adc": Source(tmp_path / "i/four.nii.gz", 2),
    }


@pytest.mark.parametrize("channel", ["case", "label", "patient"])
def test_a_channel_called_like_another_column_is_refused(tmp_path: Path, channel: str) -> None:
    with pytest.raises(InputError, match="name of another column"):
        find("table", tmp_path, [channel])


@pytest.mark.parametrize("name", ["", " a", "a/b", ".a", "-a", "a\tb", "a" * 201, "a\\b"])
def test_case_names_that_files_cannot_have_are_refused(tmp_path: Path, name: str) -> None:
    describe(tmp_path, training=[{"case": name, "image": "a.nii.gz", "label": "b.nii.gz"}])
    with pytest.raises(InputError, match="holds a case named") as caught:
        find("monai", tmp_path, ["t1"])
    assert "rename the case" in caught.value.fix


def version_1(root: Path, channels: list[str]) -> Path:
    """A raw folder of nnU-Net v1: listed without the numbers that its files end in."""
    for name in ("c1", "c2"):
        files = (f"imagesTr/{name}_{number:04d}.nii.gz" for number in range(len(channels)))
        touch(root, *files, f"labelsTr/{name}.nii.gz")
    # Left out by the list.
    touch(root, "imagesTr/c3_0000.nii.gz")
    entries = [
        {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}
        for name in ("c2", "c1")
    ]
    modality = {str(number): name for number, name in enumerate(channels)}
    return describe(root, modality=modality, labels={"0": "background"}, training=entries)


@pytest.mark.parametrize("channels", [["CT"], ["T2", "ADC"]])
def test_cases_of_nnunet_version_1_are_those_of_its_list(
    tmp_path: Path, channels: list[str]
) -> None:
    root = version_1(tmp_path, channels)
    assert guess(root).dataset.layout == "nnunet"
    assert guess(root).dataset.channels == channels
    found = find("nnunet", root, channels)
    assert [case.name for case in found] == ["c1", "c2"]
    for case in found:
        assert case.label == Source(root / "labelsTr" / f"{case.name}.nii.gz")
        for number, channel in enumerate(channels):
            file = root / "imagesTr" / f"{case.name}_{number:04d}.nii.gz"
            assert case.channels[channel] == Source(file)


def test_nnunet_version_1_is_named_where_it_is_called_decathlon(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nnU-Net v1") as caught:
        find("decathlon", version_1(tmp_path, ["CT"]), ["CT"])
    assert "dataset.layout: nnunet" in caught.value.fix


def test_endings_of_files_may_be_in_capitals(tmp_path: Path) -> None:
    touch(tmp_path, "n/imagesTr/c1_0000.NII.GZ", "n/labelsTr/c1.Nii.gz")
    describe(tmp_path / "n", channel_names={"0": "CT"}, file_ending=".nii.gz")
    (case,) = find("nnunet", tmp_path / "n", ["CT"])
    assert case.name == "c1"
    assert case.channels["CT"].file.name == "c1_0000.NII.GZ"
    assert case.label == Source(tmp_path / "n/labelsTr/c1.Nii.gz")
    touch(tmp_path, "b/p-1/p-1-t1n.NII", "b/p-1/p-1-seg.NII.GZ")
    (case,) = find("brats", tmp_path / "b", ["t1n"])
    assert case.channels["t1n"].file.name == "p-1-t1n.NII"
    assert case.label == Source(tmp_path / "b/p-1/p-1-seg.NII.GZ")
    touch(tmp_path, "n/labelsTr/c1.nii.gz")
    with pytest.raises(InputError, match=r"holds both c1\.Nii\.gz and c1\.nii\.gz"):
        find("nnunet", tmp_path / "n", ["CT"])
