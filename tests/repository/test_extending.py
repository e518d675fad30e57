"""The pages on plug-ins: followed block by block, with packages that pip installs for real."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.documents import Copy, blocks_of
from support.plug_in_package import pip_install
from voxelsoup.data.volumes.volume import write_volume


def follow(page: str, copy: Copy) -> list[str]:
    """Do what a page says, from top to bottom; returns what its commands printed.

    Packages go into a folder of their own, not into the environment of the tests.
    """
    printed = []
    for block in blocks_of(page):
        if block.title:
            copy.apply(block)
        elif block.language == "python":
            printed.append(copy.python(block.text))
        else:
            for command in block.commands:
                if command.startswith("pip install "):
                    pip_install(copy.folder / command.rpartition(" ")[2], copy.packages)
                else:
                    printed.append(copy.shell(command))
    return printed


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path / "voxelsoup")


LABELLED = 8


def write_pairs(folder: Path) -> None:
    """Images with label maps, enough for folds, and a last one without."""
    noise = np.random.default_rng(0)
    for number in range(LABELLED + 1):
        image = noise.normal(100, 10, (12, 12, 12)).astype(np.float32)
        write_volume(folder / "images" / f"ct{number}.nii.gz", image, np.eye(4))
        if number < LABELLED:
            label = np.zeros((12, 12, 12), dtype=np.uint8)
            label[3:7, 3:7, 3:7] = 1
            write_volume(folder / "labels" / f"ct{number}.nii.gz", label, np.eye(4))


def test_the_layout_of_the_page_reads_a_folder(copy: Copy) -> None:
    for name in ("images", "labels"):
        (copy.folder / "pairs" / name).mkdir(parents=True)
    write_pairs(copy.folder / "pairs")
    # The page knows of labelled cases only, and its command has to end well.
    name = f"ct{LABELLED}.nii.gz"
    unlabelled = copy.folder / "pairs" / "images" / name
    aside = unlabelled.rename(copy.folder / name)
    (listed,) = follow("docs/new-layout.md", copy)
    assert "layout pairs" in listed
    assert f"{LABELLED} cases" in listed
    aside.rename(unlabelled)
    asked = """
import sys
from pathlib import Path
from voxelsoup.data.layouts import find_cases
from voxelsoup.common.errors import InputError
from voxelsoup.study.loading import read

dataset = read(Path("pairs.yaml")).dataset
for case in find_cases(dataset, Path("pairs")):
    print(case.name, case.channels["ct"], case.label)
try:
    find_cases(dataset.model_copy(update={"channels": ["ct", "pet"]}), Path("pairs"))
except InputError as error:
    print(error)
"""
    *cases, refused = copy.python(asked).splitlines()[: LABELLED + 2]
    assert cases == [
        *(f"ct{n} pairs/images/ct{n}.nii.gz pairs/labels/ct{n}.nii.gz" for n in range(LABELLED)),
        f"ct{LABELLED} pairs/images/{unlabelled.name} None",
    ]
    assert "names 2 channels" in refused


def test_the_recipe_of_the_page_makes_a_soup_and_is_planned(copy: Copy) -> None:
    printed, plan = follow("docs/new-recipe.md", copy)
    trials, weight = printed.strip().rsplit(" ", 1)
    assert trials == "['w2', 'w1', 'w4']"
    assert float(weight) == pytest.approx((2 + 1 + 4) / 3)
    for fold in range(5):
        assert f"Soup top of fold {fold}." in plan


def test_the_metric_of_the_page_has_the_value_that_is_known(copy: Copy) -> None:
    scored, listed = follow("docs/new-metric.md", copy)
    assert "'volume_difference': 0.032" in scored
    assert "new" in listed
    # Where a region is empty, the volume of the other side.
    asked = """
import numpy as np
from voxelsoup.evaluation.metrics import Scoring, score_regions

mask = np.ones((1, 10, 10, 10), dtype=bool)
for prediction, truth in ((mask, ~mask), (~mask, mask), (~mask, ~mask)):
    (scores,) = score_regions(prediction, truth, (1, 1, 1), Scoring(("volume_difference",)))
    print(scores["volume_difference"])
"""
    assert copy.python(asked).split() == ["1.0", "1.0", "0.0"]


def test_the_network_and_the_loss_of_the_page_are_what_a_study_takes(copy: Copy) -> None:
    follow("docs/plug-ins.md", copy)
    pip_install(copy.folder / "my-tools", copy.packages)
    asked = """
from voxelsoup.models.networks import check_outputs, outline
from voxelsoup.models.plug_ins import check_loss
from voxelsoup.study.sections.training import Network

network = outline(Network(name="tiny-net", arguments={"width": 2}), 4, 3)
check_outputs(network, 4, 3, [8, 8, 8])
check_loss("tversky", 3, some_unknown=False)
print("both")
"""
    assert copy.python(asked).split() == ["both"]
