"""Plug-ins: found without importing, checked, and known by their source."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pytest

from support.plug_in_package import ENTRY_POINTS, forget, write_installed, write_package
from voxelsoup.commands.cli import main
from voxelsoup.common import plug_ins
from voxelsoup.common.errors import CodeChanged, InputError
from voxelsoup.common.plug_ins import UnknownPlugIn, code_of, find
from voxelsoup.comparison.score_summary import means_of
from voxelsoup.data.layouts import find_cases, reader_of
from voxelsoup.data.layouts.detect import guess
from voxelsoup.evaluation.case_scores import read_rows, write_rows
from voxelsoup.evaluation.metrics import Scoring, score_regions
from voxelsoup.evaluation.own_metrics import check_metric
from voxelsoup.models.plug_ins import build_network, check_loss, check_network_name, make_loss
from voxelsoup.prediction.ground_truth import labelled_scans
from voxelsoup.prediction.scans import find_scans
from voxelsoup.runs.origins import code_of_plug_ins
from voxelsoup.soups.recipes import recipe_of
from voxelsoup.study.loading import load, read
from voxelsoup.study.plug_ins import records_of
from voxelsoup.study.reference import json_schema
from voxelsoup.study.sections.data import Dataset
from voxelsoup.study.sections.training import Network
from voxelsoup.study.trials import trials

STUDY: dict[str, Any] = {
    "dataset": {"layout": "folders", "root": "scans", "channels": ["t1n"]},
    "regions": {"WT": [1]},
    "network": {"name": "tiny-net"},
    "training": {"loss": "tversky"},
    "metrics": {"names": ["volume_difference"]},
    "sweep": {"grid": {"training.loss": ["tversky", "acme_tools.losses.Tversky", "dice"]}},
    "soup": {"recipes": ["top", "acme_tools.recipes.top"]},
}


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages, with the one that has a plug-in of each kind."""
    write_package(tmp_path)
    write_installed(tmp_path, "acme-tools", ENTRY_POINTS, "acme_tools")
    monkeypatch.syspath_prepend(tmp_path)
    forget()
    yield tmp_path
    forget()


def refused(**changes: Any) -> str:
    with pytest.raises(InputError) as caught:
        trials(load(STUDY | changes, "study.yaml"))
    return str(caught.value)


def test_a_study_takes_names_and_dotted_paths_and_imports_nothing(packages: Path) -> None:
    study = load(STUDY)
    assert [(one["kind"], one["object"]) for one in records_of(study)] == [
        ("layouts", "acme_tools.layouts.find_cases"),
        ("networks", "acme_tools.networks.TinyNet"),
        ("losses", "acme_tools.losses.Tversky"),
        ("losses", "acme_tools.losses.Tversky"),
        ("metrics", "acme_tools.metrics.volume_difference"),
        ("recipes", "acme_tools.recipes.top"),
        ("recipes", "acme_tools.recipes.top"),
    ]
    assert {one["package"] for one in records_of(study)} == {"acme-tools"}
    assert not [name for name in sys.modules if name.startswith("acme_tools")]


def test_editors_complete_the_known_names_and_take_all_others(packages: Path) -> None:
    jsonschema.validate(STUDY, json_schema())
    layout = json_schema()["$defs"]["Dataset"]["properties"]["layout"]
    assert "nnunet" in layout["anyOf"][0]["enum"] and "folders" not in json.dumps(layout)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"training": {"loss": "tverski"}},
            "`training.loss`: Input should be 'dice', 'dice-bce', 'dice-focal', a loss of an "
            "installed package (tversky of acme-tools 1.2), or a dotted path "
            "(my_package.my_module.thing); did you mean `tversky`? (found: 'tverski')",
        ),
        ({"metrics": {"names": ["hd96"]}}, "did you mean `hd95`?"),
        ({"soup": {"recipes": ["topp"]}}, "did you mean `top`?"),
        ({"sweep": {"grid": {"training.loss": ["dise"]}}}, "did you mean `dice`?"),
        ({"training": {"loss": "acme_tools.lost.Tversky"}}, "no module acme_tools.lost here"),
        ({"training": {"loss": "acme tools.loss"}}, "is no dotted path such as"),
        ({"network": {"name": "nobody.Net"}}, "no module nobody here: install its package"),
        ({"soup": {"recipes": ["greedy.recipe"]}}, "begins as greedy, whose files"),
        (
            {"dataset": STUDY["dataset"] | {"layout": "folder"}},
            "`dataset.layout`: Input should be 'phantom', 'brats'",
        ),
    ],
)
def test_an_unknown_name_is_refused_with_what_there_is(
    changes: dict[str, Any], said: str, packages: Path
) -> None:
    assert said in refused(**changes)


def test_a_name_that_two_packages_offer_is_refused_with_both(packages: Path) -> None:
    write_installed(packages, "other", {"losses": {"tversky": "acme_tools.losses:Tversky"}})
    forget()
    assert "is offered by acme-tools 1.2 and other 1.2: uninstall one, or give the" in refused()


def test_a_name_of_voxelsoups_own_is_refused_with_who_offers_it(packages: Path) -> None:
    write_installed(
        packages, "other", {"recipes": {"greedy": "a:b"}, "networks": {"UNet": "acme_tools:x"}}
    )
    forget()
    message = refused(soup={"recipes": ["greedy"]})
    assert "is a name of voxelsoup's own, and other 1.2 offers a recipe by it too" in message
    with pytest.raises(InputError, match="is a network of MONAI, and other 1"):
        build_network(Network(name="UNet"), 1, 1)


def test_an_unknown_network_is_refused_with_those_that_are_installed(packages: Path) -> None:
    with pytest.raises(InputError) as caught:
        check_network_name("tiny-nets")
    message = str(caught.value)
    assert "offers it; did you mean `tiny-net`?" in message
    assert "(tiny-net of acme-tools 1.2)" in message
    for name in ("tiny-net", "MedNeXt", "UNet", "acme_tools.networks.TinyNet"):
        check_network_name(name)


def test_an_entry_point_without_a_thing_is_refused(packages: Path) -> None:
    write_installed(packages, "other", {"losses": {"half": "acme_tools.losses"}})
    forget()
    with pytest.raises(UnknownPlugIn, match="its entry point has to name `acme_tools"):
        find("losses", "half")


def recipe(name: str) -> None:
    recipe_of(name)


def network(name: str) -> None:
    build_network(Network(name=name), 2, 1)


def loss(name: str) -> None:
    check_loss(name, 1, some_unknown=False)


def layout(name: str) -> None:
    find_cases(Dataset(layout=name, root=".", channels=["t1n"]), Path())


BAD = """
import math
from torch import nn
from voxelsoup.data.case import Case
from voxelsoup.evaluation.own_metrics import OwnMetric

number = 3
nan = OwnMetric("A", "", True, 2, lambda masks: math.nan)
fails = OwnMetric("A", "", True, 2, lambda masks: 1 / masks.truth.sum().item())

def no_cases(dataset, root): return ["a"]
def no_channels(dataset, root): return [Case("a", {}, None)]
def fails_on_it(dataset, root): return root.lost

def takes_nothing(): return nn.Identity()
def gives_text(in_channels, out_channels): return "text"
def gives_maps(batch): return nn.MSELoss(reduction="none")
def is_constant(batch): return Constant()

class Constant(nn.Module):
    def forward(self, logits, target): return target.sum()
"""


@pytest.mark.parametrize(
    ("check", "name", "found", "expected"),
    [
        (reader_of, "takes_nothing", "cannot be called as find_cases(dataset, root)", "`Case`s"),
        (reader_of, "lost", "cannot be imported: AttributeError", "has `lost`"),
        (layout, "no_cases", "gives 'a' for .", "`Case`s (voxelsoup.data.case) alone"),
        (layout, "no_channels", "gives case a the channels none", "those of the study: t1n"),
        (layout, "fails_on_it", "fails on .: AttributeError", "a list of `Case`s"),
        (recipe, "takes_nothing", "cannot be called as recipe(ingredients, selection)", "Soup"),
        (recipe, "number", "cannot be called", "a function of the ingredients"),
        (check_metric, "number", "is 3", "an `OwnMetric`"),
        (check_metric, "nan", "gives nan on masks of (4, 5, 6) voxels", "one finite number"),
        (check_metric, "fails", "ZeroDivisionError", "one finite number for any masks"),
        (network, "takes_nothing", "takes ()", "`in_channels` and `out_channels`"),
        (network, "gives_text", "gives str", "a torch.nn.Module"),
        (loss, "takes_nothing", "takes ()", "takes `batch`"),
        (loss, "gives_maps", "fails on logits and targets", "a loss of logits"),
        (loss, "is_constant", "RuntimeError", "a loss of logits"),
    ],
)
def test_what_is_not_what_it_has_to_be_is_refused_with_its_name(
    check: Callable[[str], object], name: str, found: str, expected: str, packages: Path
) -> None:
    (packages / "bad.py").write_text(BAD)
    with pytest.raises(InputError) as caught:
        check(f"bad.{name}")
    message = str(caught.value)
    assert message.startswith(
        tuple(f"{one} `bad.{name}` (bad (of no installed" for one in plug_ins.ONE.values())
    )
    assert found in message
    assert expected in message.partition("expected:")[2]
    assert "docs/plug-ins.md" in message.partition("fix:")[2]


def test_a_package_that_cannot_be_imported_is_refused_with_its_distribution(packages: Path) -> None:
    with (packages / "acme_tools" / "losses.py").open("a") as stream:
        stream.write("\nimport nothing_of_this_name\n")
    with pytest.raises(InputError) as caught:
        make_loss("tversky", True, False)
    message = str(caught.value)
    assert message.startswith("loss `tversky` (acme-tools 1.2, acme_tools.losses.Tversky): cannot")
    assert "ModuleNotFoundError: No module named 'nothing_of_this_name'" in message


def test_a_loss_that_knows_nothing_of_unknown_voxels_is_refused_where_there_are_some(
    packages: Path,
) -> None:
    with pytest.raises(InputError, match="has no parameter `some_unknown`"):
        make_loss("tversky", True, some_unknown=True)


def test_a_metric_is_a_column_beside_the_others_in_any_process(packages: Path) -> None:
    scoring = pickle.dumps(Scoring(("hd95", "volume_difference")))
    # As in a process that has only been sent it.
    forget()
    truth = np.zeros((1, 10, 10, 10), dtype=bool)
    truth[0, 2:6, 2:6, 2:6] = True
    (scores,) = score_regions(~truth, truth, (1, 1, 2), pickle.loads(scoring))
    assert list(scores) == ["dice", "hd95", "volume_difference"]
    assert scores["volume_difference"] == pytest.approx((1000 - 2 * 64) * 2 / 1000)


def test_scores_of_a_metric_are_read_back_and_their_interval_has_any_range(packages: Path) -> None:
    rows = pd.DataFrame({"case": list("abcdef"), "region": "WT", "dice": 0.5, "loss": 0.5})
    rows["volume_difference"] = np.linspace(-3, 3, 6)
    write_rows(packages / "test.csv", rows)
    forget()
    read = read_rows(packages / "test.csv")
    assert read["volume_difference"].tolist() == rows["volume_difference"].tolist()
    assert means_of([read], {})["volume_difference"]["WT"].low < 0


NAMES = ["t1n", "t1c", "t2w", "t2f"]


@pytest.mark.parametrize("layout", ["folders", "acme_tools.layouts.find_cases", "brats"])
def test_scans_and_ground_truth_beside_the_data_set_have_the_layout_that_is_named(
    layout: str, packages: Path, phantom_folder: Path
) -> None:
    cases = find_scans(str(phantom_folder), NAMES, layout=layout)
    assert len(cases) == 6 and list(cases[0].channels) == NAMES
    assert cases[0].label is None
    assert len(labelled_scans(str(phantom_folder), NAMES, layout=layout).cases) == 6


def test_the_layout_of_a_package_may_be_given_a_list_of_cases(packages: Path) -> None:
    listing = packages / "list.txt"
    listing.write_text("a b")
    (packages / "bad.py").write_text(
        "from voxelsoup.data.case import Case, Source\n"
        "from pathlib import Path\n"
        "def listed(dataset, root):\n"
        "    names = Path(dataset.file).read_text().split()\n"
        "    return [Case(n, {'ct': Source(root / n)}, None) for n in names]\n"
    )
    cases = find_scans(str(listing), ["ct"], layout="bad.listed")
    assert [str(case.channels["ct"]) for case in cases] == [f"{packages}/a", f"{packages}/b"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--layout", "folder"], "did you mean `folders`?"),
        (["--layout", "phantom"], "a layout of an installed package (folders of acme-tools 1.2)"),
        (["--layout", "folders"], "no channels are named"),
        (["--layout", "decathlon"], "holds no data set in the layout `decathlon`"),
        (["--channels", "ct"], "is given without a layout of another package"),
    ],
)
def test_init_and_index_refuse_a_layout_that_is_not_there(
    options: list[str],
    said: str,
    packages: Path,
    phantom_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for command in ("init", "index"):
        assert main([command, str(phantom_folder), *options]) == 1
        assert said in capsys.readouterr().err


def test_init_and_index_read_the_layout_of_a_package(
    packages: Path, phantom_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = ["--layout", "folders", "--channels", ",".join(NAMES)]
    assert main(["index", str(phantom_folder), *named]) == 0
    shown = capsys.readouterr().out
    assert "layout folders" in shown and f"init {phantom_folder} {' '.join(named)}" in shown
    file = packages / "study.yaml"
    assert main(["init", str(phantom_folder), *named, "--output", str(file)]) == 0
    assert (read(file).dataset.layout, read(file).dataset.channels) == ("folders", NAMES)


def test_what_no_layout_of_the_project_reads_is_refused_with_those_of_packages(
    packages: Path,
) -> None:
    with pytest.raises(InputError, match=r"another package \(--layout\): folders of acme-tools 1"):
        guess(packages)


def test_layouts_of_test_sets_and_of_scans_to_predict_are_plug_ins_of_a_study(
    packages: Path,
) -> None:
    others = {
        "dataset": {"layout": "brats", "root": "scans", "channels": ["t1n"]},
        "comparison": {
            "test_sets": {"clinic": "a", "other": "b"},
            "test_set_layouts": {"clinic": "acme_tools.layouts.find_cases"},
        },
        "predict": {"layout": "folders"},
    }
    records = records_of(load(STUDY | others))
    names = [one["name"] for one in records if one["kind"] == "layouts"]
    assert names == ["folders", "acme_tools.layouts.find_cases"]
    settings = {"layout": "folders"}
    code = code_of_plug_ins("test_set", settings, network="MedNeXt", recipe=None)
    assert "plug-in acme_tools.layouts" in code
    predicted = code_of_plug_ins("predict_batch", {"predict": settings}, "MedNeXt", None)
    assert predicted == code
    message = refused(comparison={"test_sets": {"clinic": "a"}, "test_set_layouts": {"clinc": "x"}})
    assert "`comparison.test_set_layouts.clinc`: Input should be 'brats', 'decathlon'" in message
    assert "(folders of acme-tools 1.2)" in message
    wrong = {"test_sets": {"clinic": "a"}, "test_set_layouts": {"clinc": "folders"}}
    assert "which is no test set; did you mean `clinic`?" in refused(comparison=wrong)


def test_the_code_is_that_of_the_module_and_of_what_it_imports_of_its_package(
    packages: Path,
) -> None:
    before = code_of("networks", "tiny-net")
    assert list(before) == [
        *("plug-in acme_tools", "plug-in acme_tools.blocks", "plug-in acme_tools.networks"),
    ]
    blocks = packages / "acme_tools" / "blocks.py"
    blocks.write_text(f"# A remark.\n{blocks.read_text()}")
    forget()
    assert code_of("networks", "tiny-net") == before
    blocks.write_text(blocks.read_text().replace("ReLU", "GELU"))
    forget()
    after = code_of("networks", "tiny-net")
    assert [name for name in before if before[name] != after[name]] == ["plug-in acme_tools.blocks"]


def test_a_job_that_finds_other_plug_ins_than_its_start_ends(packages: Path) -> None:
    start = packages / "start.json"
    start.write_text(json.dumps({plug_ins.RECORDED: records_of(load(STUDY))}))
    plug_ins.check_started_with(start)
    losses = packages / "acme_tools" / "losses.py"
    losses.write_text(losses.read_text().replace("alpha=0.3", "alpha=0.4"))
    forget()
    with pytest.raises(CodeChanged, match="was changed after the study was started"):
        plug_ins.check_started_with(start)
    losses.unlink()
    forget()
    with pytest.raises(CodeChanged, match="loss `tversky`: cannot be found by this job"):
        plug_ins.check_started_with(start)
