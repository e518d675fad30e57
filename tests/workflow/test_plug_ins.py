"""A study whose layout, network, loss, metric and recipe are of another package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import yaml

from support.forked import SEARCHED, from_one_that_imported_them
from support.plug_in_package import pip_install, write_package
from support.workflows import REPOSITORY
from voxelsoup.data.layouts.phantom import write_phantom
from voxelsoup.study.sections.data import Phantom

RECIPE = "acme_tools.recipes.top"
STUDY = {
    "dataset": {"layout": "folders", "root": "scans", "channels": ["t1n", "t1c", "t2w", "t2f"]},
    "regions": {"WT": [1, 2, 3], "TC": [1, 3]},
    "folds": {"count": 3, "run": [0], "selection_share": 0.4},
    "network": {"name": "tiny-net", "arguments": {"width": 3}},
    "training": {"patch": [16, 16, 16], "batch_size": 1, "epochs": 1, "steps_per_epoch": 4},
    "evaluation": {"loss": "tversky"},
    "metrics": {"names": ["hd95", "volume_difference"]},
    "stem": {"epochs": 1},
    "sweep": {"grid": {"training.loss": ["dice", "tversky"]}},
    "soup": {"recipes": ["greedy", RECIPE], "barrier_cases": 1},
    "predict": {"label_order": {"WT": 2, "TC": 1}},
    "comparison": {"test_sets": {"clinic": "clinic"}, "test_set_layouts": {"clinic": "folders"}},
    "postprocessing": {"thresholds": [0.5], "smallest_components": [0]},
}


# Tables, methods and bundle; without figures and the report, which know no kind of plug-in.
ON_TEST_SET = "results/test_sets/clinic/fold0/best/scores.csv"
TARGETS = [
    *(f"results/{name}" for name in ("comparison/overview.csv", "report/provenance.csv")),
    *("results/bundle/docs/README.md", ON_TEST_SET),
]


@dataclass(frozen=True)
class Ran:
    """A finished study, and the folder that its package is installed in."""

    folder: Path
    packages: Path

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def snakemake(self, *arguments: str, succeeds: bool = True, installed: bool = True) -> str:
        command = [sys.executable, "-m", "snakemake", "--configfile", "study.yaml"]
        command += ["--snakefile", str(REPOSITORY / "Snakefile"), "--cores", "2", *arguments]
        return self.run(command, succeeds, installed)

    def voxelsoup(self, *arguments: str, succeeds: bool = True, installed: bool = True) -> str:
        return self.run([sys.executable, "-m", "voxelsoup", *arguments], succeeds, installed)

    def run(self, command: list[str], succeeds: bool, installed: bool) -> str:
        path = [str(REPOSITORY / "src"), *[str(self.packages)] * installed]
        path.append(str(SEARCHED))
        changes = {"PYTHONPATH": os.pathsep.join(path), "COLUMNS": "120"}
        environment = from_one_that_imported_them() | changes
        result = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True
        )
        printed = result.stdout + result.stderr
        assert (result.returncode == 0) == succeeds, printed[-6000:]
        return printed


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("plugged")
    write_package(folder / "source")
    pip_install(folder / "source", folder / "packages")
    write_phantom(folder / "scans", Phantom(cases=8, shape=[24, 28, 24]))
    write_phantom(folder / "clinic", Phantom(cases=4, shape=[24, 28, 24]))
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    study = Ran(folder, folder / "packages")
    study.snakemake(*TARGETS, "--quiet", "rules")
    return study


def test_its_soup_and_its_metric_stand_in_the_tables_as_the_others_do(ran: Ran) -> None:
    overview = pd.read_csv(ran.results / "comparison" / "overview.csv")
    assert f"{RECIPE} Soup" in set(overview["model"])
    written = (ran.results / "comparison" / "overview.md").read_text()
    assert "Volume difference (ml)" in written and RECIPE in written
    record = json.loads((ran.results / f"fold0/soups/{RECIPE}/recipe.json").read_text())
    assert len(record["ingredients"]) == 2
    scores = pd.read_csv(ran.results / f"fold0/soups/{RECIPE}/test.csv")
    assert list(scores.columns) == ["case", "region", "dice", "loss", "hd95", "volume_difference"]
    assert scores["volume_difference"].ge(0).all()


def test_a_test_set_is_read_by_the_layout_that_the_study_names(ran: Ran) -> None:
    assert len(set(pd.read_csv(ran.folder / ON_TEST_SET)["case"])) == 4
    origin = ON_TEST_SET.replace("results", "results/.state/origins")
    assert "plug-in acme_tools.layouts" in (ran.folder / f"{origin}.json").read_text()


def test_provenance_and_methods_name_package_version_and_hash(ran: Ran) -> None:
    table = pd.read_csv(ran.results / "report" / "provenance.csv").set_index(["part", "name"])
    rows = table.loc["plug-in"]["value"]
    assert list(rows.index) == [
        *("network tiny-net", "loss tversky", "layout folders", "metric volume_difference"),
        f"recipe {RECIPE}",
    ]
    assert rows.str.fullmatch(r"acme-tools 1\.2, acme_tools\.\S+, source [0-9a-f]{16}").all()
    methods = (ran.results / "report" / "methods.md").read_text()
    assert "Of other packages were the layout folders (acme-tools 1.2), network tiny" in methods
    assert "The network was tiny-net (width = 3, 335 parameters) of another package" in methods
    # Which the report shows as it is.
    assert "acme-tools 1.2" in (ran.results / "report" / "provenance.html").read_text()


def test_the_bundle_says_which_package_it_needs_and_predict_refuses_without_it(ran: Ran) -> None:
    metadata = json.loads((ran.results / "bundle/configs/metadata.json").read_text())
    assert metadata["required_packages_version"]["acme-tools"] == "1.2"
    inference = json.loads((ran.results / "bundle/configs/inference.json").read_text())
    assert inference["network_def"]["_target_"] == "acme_tools.networks.TinyNet"
    card = (ran.results / "bundle/docs/README.md").read_text()
    assert "package of the network (acme-tools 1.2, acme_tools.networks.TinyNet, source" in card
    asked = ("predict", "results/bundle", "scans", "out")
    refused = ran.voxelsoup(*asked, succeeds=False, installed=False)
    assert "its network `tiny-net` is of another package, which is not installed here" in refused
    assert "fix: pip install acme-tools" in refused
    ran.voxelsoup(*asked, "--label-order", "WT=2,TC=1")
    assert len(list((ran.folder / "out").glob("*.nii.gz"))) == 8


def test_a_change_of_its_source_is_named_and_what_depends_on_it_made_again(ran: Ran) -> None:
    assert "Nothing to be done" in ran.snakemake("-n", *TARGETS)
    recipes = ran.packages / "acme_tools" / "recipes.py"
    recipes.write_text(recipes.read_text().replace("KEPT = 2", "KEPT = 1"))
    changed = ran.snakemake("-n", *TARGETS, succeeds=False)
    model = f"results/fold0/soups/{RECIPE}/model.safetensors"
    assert f"code changed: plug-in acme_tools.recipes: {model}" in changed
    redo = ran.snakemake("-n", *TARGETS, "--config", "on_code_change=redo")
    assert f"Soup {RECIPE} of fold 0." in redo
    assert "Soup greedy" not in redo and "Trial" not in redo


def test_without_its_package_the_study_says_so_before_anything_is_computed(ran: Ran) -> None:
    refused = ran.snakemake("-n", succeeds=False, installed=False)
    assert "`dataset.layout`: Input should be 'phantom', 'brats'" in refused
    assert "a layout of an installed package (none is installed)" in refused
    assert f"there is no module {RECIPE.rpartition('.')[0]} here" in refused
