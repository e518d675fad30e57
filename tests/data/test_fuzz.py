"""Fuzzing, briefly: no traceback, no hang, no memory blow-up. `make fuzz` runs for longer."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from hypothesis import given
from hypothesis import strategies as st

from voxelsoup.common.errors import InputError
from voxelsoup.data.case import Source
from voxelsoup.data.layouts import find_cases
from voxelsoup.data.layouts.detect import guess
from voxelsoup.data.volumes.volume import SUFFIXES, read_label
from voxelsoup.planning.label_meaning import meaning_of
from voxelsoup.planning.proposal import propose_data
from voxelsoup.study.sections.data import Dataset

HARNESS = Path(__file__).parent / "fuzz" / "readers.py"
ENTRY = {"image": "i/a.nii.gz", "label": "l/a.nii.gz", "fold": 0}
LISTS = {
    "decathlon": {"modality": {"0": "MRI"}, "training": [ENTRY], "test": ["i/b.nii.gz"]},
    "nnunet": {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "a": [1, 2], "ignore": 3},
        "file_ending": ".nii",
        "dataset": {"a": {"images": ["i/a.nii"], "label": "l/a.nii"}},
    },
    "monai": {"training": [ENTRY | {"image": ["i/a.nii.gz"]}], "testing": [{"image": "b.nii"}]},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


def seed(target: str) -> bytes:
    """A valid input of a target."""
    if target in LISTS:
        return json.dumps(LISTS[target]).encode()
    if target == "guess":
        return json.dumps(LISTS["nnunet"]).encode()
    if target in ("table", "guess-table"):
        return b"case,a,label,patient\none,x.nii.gz#1,y.nii.gz,p\n"
    voxels = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    if target.startswith("nii"):
        content = nib.Nifti1Image(voxels, np.eye(4)).to_bytes()
        return gzip.compress(content) if target == "nii.gz" else content
    path = HARNESS.parent / f".seed-{os.getpid()}.{target}"
    try:
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels), str(path), True)
        return path.read_bytes()
    finally:
        path.unlink(missing_ok=True)


# The others share their code with these.
TARGETS = ["nii.gz", "mha", "nrrd", "monai", "table"]


@pytest.mark.parametrize("target", TARGETS)
def test_coverage_guided_fuzzing_finds_only_results_and_messages(
    tmp_path: Path, target: str
) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "valid").write_bytes(seed(target))
    command = [sys.executable, str(HARNESS), target, str(corpus), "-runs=1500", "-seed=1"]
    command += ["-timeout=20", "-rss_limit_mb=2500", f"-artifact_prefix={tmp_path}/"]
    # By a shell that stays: a process begins with the peak memory of the one that starts it.
    done = subprocess.run(
        ["sh", "-c", '"$@"; exit $?', "sh", *command], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@given(st.sampled_from(SUFFIXES), st.data())
def test_a_damaged_volume_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, data: st.DataObject
) -> None:
    content = bytearray(seed(suffix[1:]))
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    kept = data.draw(st.integers(0, len(content)) | st.just(len(content)))
    path = tmp_path_factory.mktemp("damaged") / f"scan{suffix}"
    path.write_bytes(bytes(content[:kept]))
    try:
        assert read_label(Source(path)).data.dtype == np.uint8
    except InputError as problem:
        assert problem.where == str(path)


@given(st.sampled_from([*LISTS]), JSON, st.data())
def test_any_json_in_a_list_of_cases_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, layout: str, value: object, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("listed")
    content = dict(LISTS[layout])
    content[data.draw(st.sampled_from([*content]))] = value
    text = json.dumps(data.draw(st.sampled_from([content, value])))
    (root / "dataset.json").write_text(text)
    dataset = Dataset(layout=layout, root=str(root), channels=["a"], unlabelled="predict")
    try:
        assert isinstance(find_cases(dataset, root), list)
    except InputError as problem:
        assert str(root) in problem.where


@given(st.sampled_from([*LISTS]), JSON, st.data())
def test_any_json_in_a_description_is_detected_or_refused(
    tmp_path_factory: pytest.TempPathFactory, layout: str, value: object, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("guessed")
    (root / "imagesTr").mkdir()
    (root / "imagesTr" / "a_0000.nii").touch()
    content = dict(LISTS[layout])
    key = data.draw(st.sampled_from([*content]))
    inner = content[key]
    # In place of a part, or of a part of it.
    content[key] = data.draw(
        st.sampled_from([value, {**inner, "0": value}, {"9" * 5000: 1}])
        if isinstance(inner, dict)
        else st.just(value)
    )
    (root / "dataset.json").write_text(json.dumps(content))
    try:
        found = guess(root)
        meaning = meaning_of(found, ["a"], {1: ["a"], 2: ["a"]})
        assert "regions" in propose_data(found, meaning, 0)[0]
    except InputError as problem:
        assert str(root) in problem.where
