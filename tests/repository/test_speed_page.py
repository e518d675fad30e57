"""The page of the speed agrees with the results of the benchmarks."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from support.checks import nonempty
from support.documents import REPOSITORY

RESULTS = REPOSITORY / "bench/results"
write_page = runpy.run_path(str(REPOSITORY / "docs/speed.py"))["main"]

MACHINE = {
    "processor": "Some processor",
    "cores": 2,
    "load": 0.5,
    "gpu": None,
    "versions": {"torch": "9.8.7"},
    "date": "2031-02-03",
}
PAIR = {
    "vs_monai": 1.5,
    "cases_per_minute": 60.0,
    "cases_per_minute_monai": 40.0,
    "network_share": 0.8,
}
LAYOUT = {"forward_vs_floor": 2.5, "backward_vs_floor": 7.5}
STEP = {
    "vs_published": 3.5,
    "step_seconds": {"ours": 0.2, "contiguous": 0.3, "compiled": 0.15, "published": 0.6},
    "floor_seconds": 0.1,
}
# As the scripts print them, by the file that they are kept in.
MADE_UP: dict[str, dict[str, Any]] = {
    "evaluate": {"pair": "glioma_cheap", **PAIR, "other": {"hippocampus_mednext": PAIR}},
    "gpu_evaluate": {
        "device": "Some GPU",
        "vs_monai": 1.2,
        "seconds": {"bfloat16": 0.5, "float32": 1.0},
        "seconds_monai": {"bfloat16": 0.6, "float32": 1.3},
        "seconds_forward": {"bfloat16": 0.4, "float32": 0.9},
    },
    "gpu_input": {
        "device": "Some GPU",
        "patches_per_second": 20.0,
        "crops_per_second": 50.0,
        "memory_passes": 12.5,
    },
    "gpu_smoke": {
        "device": "Some GPU",
        "checks": {"resume": {"passed": True}, "sharing": {"passed": False}},
    },
    "predict": {
        "vs_monai": 1.04,
        "seconds_windows": 2.0,
        "seconds_windows_monai": 2.08,
        "seconds_forward": 1.6,
        "peak_mb": 4571,
        "peak_mb_monai": 4778,
        "ensemble_vs_soup": 4.1,
    },
    "preprocess": {
        "vs_published": 6.2,
        "vs_gunzip": 0.5,
        "peak_mb": 174.0,
        "patch_ms": 2.4,
        "seconds": 0.08,
        "seconds_published": 0.49,
        "seconds_gunzip": 0.15,
        "seconds_unpacking": 0.024,
        "seconds_writing": 0.016,
        "published_peak_mb": 1228.0,
    },
    "runs_per_gpu_cpu": {
        "device": "cpu",
        "patches_per_s": {"1": 10.0, "2": 16.0},
        "vs_alone": {"1": 1.0, "2": 1.6},
        "best": 2,
    },
    "runs_per_gpu_gpu": {
        "device": "Some GPU",
        "patches_per_s": {"1": 10.0, "2": 16.0, "4": 15.0},
        "vs_alone": {"1": 1.0, "2": 1.6, "4": 1.5},
        "best": 2,
    },
    "train_step_gpu": {
        "device": "Some GPU",
        "patch": [128, 160, 112],
        "batch": 2,
        "networks": {"S": STEP, "L": STEP | {"vs_published": None, "step_seconds": {"ours": 0.2}}},
        "depthwise": [
            {"channels": 32, "sides": [8, 8, 4], "channels_last": LAYOUT, "contiguous": LAYOUT}
        ],
    },
}
SENTENCES = {
    "gpu_evaluate": "MONAI's inferer takes 1.2 times as long as voxelsoup for a case on Some GPU.",
    "gpu_input": "20.0 augmented patches per second reach Some GPU; augmenting a batch takes 12.5 "
    "passes over its memory.",
    "gpu_smoke": "2 checks on Some GPU: failed: sharing.",
    "evaluate": "glioma, cheap network: voxelsoup takes 1.2 times the floor and MONAI 1.9; hippo",
    "predict": "voxelsoup takes 1.2 times the floor and MONAI 1.3; an ensemble of five models",
    "preprocess": "voxelsoup takes 2.0 times the floor, published procedure 12.2 and gzip alone",
    "runs_per_gpu_cpu": "2 runs at once train 1.60 times as many patches in the same time as one "
    "alone; of 1 and 2, 2 at once train most: this says how cores are shared and nothing about",
    "runs_per_gpu_gpu": "of 1, 2 and 4, 2 at once train most.",
    "train_step_gpu": "A step on 2 patches of 128 × 160 × 112 voxels takes voxelsoup 2.0 times the "
    "floor with MedNeXt-S (the fastest of the others, published settings: 6.0) and 2.0 times the "
    "floor with MedNeXt-L; depthwise convolutions take up to 2.5 times their floor forwards and",
}


def words(picture: Path) -> str:
    """What is written in a picture."""
    return " ".join(ElementTree.parse(picture).getroot().itertext())


@pytest.fixture
def made_up(tmp_path: Path) -> Path:
    """A page of made-up results."""
    results = tmp_path / "results"
    results.mkdir()
    for name, figures in MADE_UP.items():
        content = {"figures": figures, "machine": MACHINE}
        (results / f"{name}.json").write_text(json.dumps(content))
    write_page(results, tmp_path)
    return tmp_path


def test_the_page_and_its_pictures_are_those_of_the_results(tmp_path: Path) -> None:
    write_page(RESULTS, tmp_path)
    docs, rewrite = REPOSITORY / "docs", "`make speed-page` was not called since a result changed"
    assert (tmp_path / "speed.md").read_text() == (docs / "speed.md").read_text(), rewrite
    pictures = {file.name: file.read_bytes() for file in (tmp_path / "images").iterdir()}
    kept = {file.name: file.read_bytes() for file in (docs / "images").glob("speed-*.svg")}
    assert pictures == kept, rewrite


def test_every_result_is_on_the_page() -> None:
    page = (REPOSITORY / "docs/speed.md").read_text()
    for file in nonempty(RESULTS.glob("*.json")):
        assert f"`bench/results/{file.name}`, by `python bench/" in page
        assert json.loads(file.read_text())["machine"]["date"] in page


@pytest.mark.parametrize("name", MADE_UP)
def test_speed_page_states_and_draws_the_results(name: str, made_up: Path) -> None:
    page = (made_up / "speed.md").read_text()
    assert SENTENCES[name] in page
    assert f"`bench/results/{name}.json`, by `python bench/" in page
    assert "Some processor, 2 cores (load 0.5); torch 9.8.7; 2031-02-03." in page
    if name == "gpu_smoke":
        # Passed or failed: nothing to draw.
        return
    picture = made_up / "images" / f"speed-{name.replace('_', '-')}.svg"
    assert f"(images/{picture.name})" in page
    assert "times the floor)" in words(picture) and "floor: " in words(picture)
    # Letters are black, and the page may be dark.
    assert "fill: #ffffff" in picture.read_text()


def test_speed_page_states_which_aims_were_reached(made_up: Path) -> None:
    page = (made_up / "speed.md").read_text()
    assert "| peak memory | at most 700 MB | 174 MB | reached |" in page
    assert "| at most 4,000 MB | 4,571 MB | **not reached** |" in page
    assert "over voxelsoup's: glioma, cheap network | at least 2 | 1.5 | **not reached** |" in page
    assert "input and all, over voxelsoup's: MedNeXt-S | at least 3 | 3.5 | reached |" in page
    assert "input and all, over voxelsoup's: MedNeXt-L | at least 3 | not measured | |" in page
    assert page.count("No aim was set.") == 4


def test_speed_page_names_missing_measurements_and_their_commands(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    old = tmp_path / "images" / "speed-input.svg"
    old.touch()
    write_page(tmp_path / "nothing", tmp_path)
    page = (tmp_path / "speed.md").read_text()
    assert not old.exists() and "images/" not in page
    assert page.count("Not measured: no GPU was available.") == 5
    for name, result in (("train_step", "train_step_gpu"), ("gpu_smoke", "gpu_smoke")):
        there = f"`python bench/{name}.py` on a machine with a GPU writes"
        assert f"{there} `bench/results/{result}.json`" in page
    assert "**Not measured yet.** `python bench/evaluate.py` writes" in page


@pytest.mark.parametrize("name", MADE_UP)
def test_made_up_results_have_the_keys_of_the_scripts(name: str) -> None:
    script = re.sub("_[cg]pu$", "", name)
    source = (REPOSITORY / "bench" / f"{script}.py").read_text()
    missing = [key for key in MADE_UP[name] if f'"{key}"' not in source]
    assert missing == []
