"""Every command of the README and the documents is run: here, or by a test that is named here.

A new command in a page is run here as it stands, and has to end well.
"""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from support.bundled_studies import write_model
from support.documents import NAMES, REPOSITORY, Copy, blocks_of, commands_of
from support.runs import SETTINGS
from voxelsoup.commands.cli import main
from voxelsoup.common.files import sha256, write_json
from voxelsoup.evaluation.case_scores import rows_of, write_rows
from voxelsoup.models import weight_files
from voxelsoup.soups.recipes import uniform
from voxelsoup.soups.selection import Cache, Selection
from voxelsoup.soups.soup import Ingredient, recipe_record
from voxelsoup.study.loading import load


@dataclass(frozen=True)
class Elsewhere:
    """Where a command that costs much is run.

    Attributes:
        test: the test, as pytest names it, or the script that CI begins with.
        runs: what stands in its source or in that of what it calls.
        through: the functions and fixtures that lead from the test to what runs the command,
            each named by the one before it.
        recipe: what `make` would call for the command.
    """

    test: str
    runs: tuple[str, ...]
    through: tuple[str, ...] = ()
    recipe: str = ""


CI = ".ci/run"
LOCALLY = Elsewhere(
    "tests/workflow/test_workflow.py::test_the_demo_ends_with_the_comparison_and_the_report",
    ('"--profile"', '"profiles" / "local"'),
    through=("tests/conftest.py::demo", "tests/support/workflows.py::on_a_terminal"),
)
ON_SLURM = Elsewhere(
    "tests/on_slurm/test_cluster.py::test_a_study_runs_through_the_partitions",
    ('"--profile"', '"--configfile"'),
    through=("tests/support/disturbed_studies.py::start", "tests/support/slurm.py::snakemake"),
)
DOCTOR = Elsewhere(
    "tests/cluster/test_doctor.py::test_a_node_of_each_partition_is_looked_at",
    ('"doctor", "--profile"',),
    through=("tests/cluster/test_doctor.py::examine",),
)
ON_CODE_CHANGE = "tests/workflow/test_origins.py::"
ON_CODE_CHANGE += "test_changed_code_stops_the_start_until_the_user_has_decided"
INSTALLED = "tests/workflow/test_installed.py::"
ELSEWHERE = {
    "pip wheel --no-deps --wheel-dir dist .": Elsewhere(
        INSTALLED + "test_the_wheel_carries_the_workflow_of_the_checkout",
        ('"wheel"', '"--no-deps"'),
        through=(
            "tests/conftest.py::installed",
            "tests/support/installation.py::install",
            "tests/support/installation.py::wheel_of",
        ),
    ),
    "pip install dist/voxelsoup-*.whl": Elsewhere(
        INSTALLED + "test_the_library_is_the_installed_one_and_read_only",
        ('"install", "--no-deps", wheel',),
        through=(
            "tests/conftest.py::installed",
            "tests/support/installation.py::install",
        ),
    ),
    "voxelsoup demo": Elsewhere(
        INSTALLED + "test_the_demo_prepares_its_scans_in_a_folder_of_the_user_s",
        ('"voxelsoup", "demo"',),
    ),
    "voxelsoup run study.yaml": Elsewhere(
        INSTALLED + "test_run_is_the_snakemake_of_the_study",
        ('"voxelsoup", "run", "study.yaml"',),
        through=("tests/conftest.py::halved", "tests/support/halving.py::run_halved"),
    ),
    "snakemake --profile profiles/local --config on_code_change=keep": Elsewhere(
        ON_CODE_CHANGE, ('"--config", "on_code_change=keep"',)
    ),
    "snakemake --profile profiles/local --config on_code_change=redo": Elsewhere(
        ON_CODE_CHANGE, ('"--config", "on_code_change=redo"',)
    ),
    "make demo": Elsewhere(
        LOCALLY.test, LOCALLY.runs, LOCALLY.through, recipe="snakemake --profile profiles/local"
    ),
    "make test": Elsewhere(CI, ("\nmake test\n",), recipe="pytest --numprocesses"),
    "make environment": Elsewhere(
        CI, ("\nmake test\n",), recipe="pip install --quiet --disable-pip-version-check -r"
    ),
    "make site": Elsewhere(
        "tests/repository/test_site.py::test_the_menu_leads_to_every_page",
        ('"mkdocs", "build", "--strict", "--quiet"',),
        through=("tests/repository/test_site.py::site",),
        recipe="mkdocs build --strict --quiet",
    ),
    "snakemake --profile profiles/local --configfile study.yaml": LOCALLY,
    "snakemake --profile profiles/local --configfile more.yaml": LOCALLY,
    "snakemake --profile profiles/slurm --configfile study.yaml": ON_SLURM,
    "snakemake --profile profiles/slurm --configfile brats.yaml": ON_SLURM,
    "voxelsoup doctor --profile profiles/slurm study.yaml": DOCTOR,
    "voxelsoup doctor --profile profiles/slurm brats.yaml": DOCTOR,
    "voxelsoup submit study.yaml --profile profiles/slurm": Elsewhere(
        "tests/on_slurm/test_submitted_studies.py::"
        "test_a_submitted_study_is_handed_over_survives_its_node_and_is_stopped",
        ('self.voxelsoup("submit", "--profile"',),
        through=("tests/on_slurm/test_submitted_studies.py::submit",),
    ),
    "tensorboard --logdir results": Elsewhere(
        "tests/workflow/test_watching.py::test_tensorboard_names_the_runs_by_their_folders",
        ('"--logdir", "results"',),
        through=("tests/workflow/test_watching.py::tensorboard",),
    ),
    "python -m monai.bundle run --config_file results/bundle/configs/inference.json"
    " --bundle_root results/bundle --dataset_dir scans --output_dir segmented": Elsewhere(
        "tests/deploy/test_bundle.py::test_monai_alone_gives_the_label_maps_of_evaluation",
        ('"-m", "monai.bundle"', '"--config_file"', '"--bundle_root"', '"--dataset_dir"'),
    ),
    "voxelsoup export results/fold0/soups/greedy model.onnx": Elsewhere(
        "tests/deploy/test_export.py::test_onnxruntime_gives_the_models_logits", ('main(["export"',)
    ),
    "voxelsoup export results/fold0/soups/greedy model.ts": Elsewhere(
        "tests/deploy/test_export.py::test_torchscript_gives_the_models_logits", ('main(["export"',)
    ),
    "snakemake predict --profile profiles/slurm --configfile study.yaml": Elsewhere(
        "tests/on_slurm/test_predict_on_slurm.py::"
        "test_a_killed_batch_resumes_and_a_bad_case_fails_only_the_last_step",
        ('cluster.snakemake(self.folder, self.profile, self.study, "predict")',),
        through=("tests/on_slurm/test_predict_on_slurm.py::start",),
    ),
    "voxelsoup soup a.safetensors b.ckpt --select scans --output souped": Elsewhere(
        "tests/commands/test_soup.py::test_files_of_several_programs_become_soups",
        ('"soup", "a.safetensors", "b.ckpt", "--select", "scans"',),
    ),
    r"voxelsoup soup b.ckpt c.pth --study study.yaml --select scans --output souped2"
    r" --rename '^net\.='": Elsewhere(
        "tests/commands/test_soup.py::test_foreign_files_need_a_study_and_rules",
        ('"--study", "study.yaml"', '"--rename", r"^net\.="'),
    ),
    "voxelsoup track study.yaml": Elsewhere(
        "tests/tracking/test_mlflow_store.py::test_mirroring_again_doubles_nothing",
        ('main(["track"',),
    ),
    "voxelsoup compare small/results large/results": Elsewhere(
        "tests/commands/test_compare.py::test_page_and_terminal_say_the_same", ('main(["compare"',)
    ),
    "voxelsoup verify results": Elsewhere(
        "tests/commands/test_verify.py::test_an_untouched_study_is_verified",
        ('main(["verify", "results"])',),
    ),
    "voxelsoup verify results/bundle": Elsewhere(
        "tests/commands/test_verify.py::test_a_bundle_is_verified_by_itself",
        ('main(["verify", str(bundle)])',),
    ),
    "voxelsoup verify results --data moved": Elsewhere(
        "tests/commands/test_verify.py::test_verify_hashes_scans_again_in_any_folder",
        ('main(["verify", "results", "--data", "moved"])',),
    ),
}

# Pages on packages of one's own: a test follows them block by block.
FOLLOWED = {
    "docs/plug-ins.md": "tests/repository/test_extending.py::"
    "test_the_network_and_the_loss_of_the_page_are_what_a_study_takes",
    "docs/new-layout.md": "tests/repository/test_extending.py::"
    "test_the_layout_of_the_page_reads_a_folder",
    "docs/new-recipe.md": "tests/repository/test_extending.py::"
    "test_the_recipe_of_the_page_makes_a_soup_and_is_planned",
    "docs/new-metric.md": "tests/repository/test_extending.py::"
    "test_the_metric_of_the_page_has_the_value_that_is_known",
}

# Commands that run for ever, and what they have printed, or the file that they have written, by
# the time that they are ended.
ENDLESS = {
    "voxelsoup status --watch": "of 10 done",
    "voxelsoup status study.yaml --watch": " done",
    "voxelsoup status brats.yaml --watch": " done",
    "voxelsoup status study.yaml --html status.html --watch 30": "status.html",
    "voxelsoup status study.yaml --html public/status.html --watch 30": "public/status.html",
    "nohup voxelsoup status study.yaml --html ~/public_html/study.html --watch 60 > /dev/null &": (
        "public_html/study.html"
    ),
}

UNCHANGING = ("voxelsoup check", "snakemake -n --configfile")
_RUN: set[str] = set()

# With the trial that docs/status.md looks at.
STUDY: dict[str, Any] = {
    "dataset": {"layout": "brats", "root": "scans", "channels": ["t1n", "t1c", "t2w", "t2f"]},
    "regions": {"TC": [1, 3], "WT": [1, 2, 3], "ET": [3]},
    "folds": {"count": 3, "selection_share": 0.4},
    "training": {"patch": [16, 16, 16]},
    "sweep": {"grid": {"optimizer.lr": [0.01, 0.02], "training.loss": ["dice", "dice-bce"]}},
}


def source_of(place: str) -> str:
    """The source of a test, fixture or function, and of a whole file where none is named."""
    file, _, name = place.partition("::")
    text = (REPOSITORY / file).read_text()
    if not name:
        return text
    found = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and node.name == name
    ]
    assert len(found) == 1, f"{place}: there are {len(found)}"
    return ast.get_source_segment(text, found[0]) or ""


def is_run_elsewhere(command: str, elsewhere: Elsewhere, copy: Copy) -> None:
    """Make sure that a test really runs a command."""
    source = source_of(elsewhere.test)
    for place in elsewhere.through:
        name = place.partition("::")[2]
        assert re.search(rf"\b{name}\b", source), f"{elsewhere.test} does not come to {place}"
        source = source_of(place)
    for words in elsewhere.runs:
        assert words in source, f"{elsewhere.test} does not run `{command}`: no {words}"
    if command.startswith("make "):
        # What would be called, if nothing were there yet.
        called = copy.shell(f"{command} --dry-run --always-make")
        assert elsewhere.recipe in called


def ends_when_ended(command: str, sign: str, copy: Copy) -> None:
    """Start a command that runs for ever, wait for a sign of it, and end it."""
    said = copy.folder / "said.txt"
    with said.open("w") as stream:
        process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=copy.folder,
            env=copy.environment(),
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 60
        while not ((copy.folder / sign).is_file() or sign in said.read_text()):
            assert time.monotonic() < deadline, f"{command}\n{said.read_text()}"
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def finish_a_soup(results: Path) -> None:
    """A fold with a soup of two files, for what reads one."""
    trials, soup = results / "fold0/trials", results / "fold0/soups/greedy"
    ingredients = []
    for number in (1, 2):
        name = f"{number:08d}"
        weight_files.save(
            trials / name / "model.safetensors", {"w": torch.tensor([float(number)])}, {}
        )
        path = trials / name / "model.safetensors"
        ingredients.append(Ingredient(name, path, sha256(path), {"case": {"WT": 0.5, "loss": 0.5}}))
    selection = Selection(["case"], [_Scorer()], Cache(None, ""))
    result = uniform(ingredients, selection)
    write_json(soup / "recipe.json", recipe_record("greedy", result, selection, 1.0))
    weight_files.save(soup / "model.safetensors", result.weights, {"regions": {"WT": [1]}})
    write_rows(soup / "selection.csv", rows_of(result.scores))


class _Scorer:
    def use(self, weights: weight_files.Weights) -> None:
        """All weights score the same."""

    def score(self, case: str) -> dict[str, float]:
        return {"WT": 0.5, "loss": 0.5}


@pytest.fixture
def copy(tmp_path: Path, phantom_folder: Path) -> Copy:
    """A copy of the repository with scans beside it."""
    copy = Copy(tmp_path / "voxelsoup")
    (copy.folder / "scans").symlink_to(phantom_folder)
    (copy.folder / "BraTS2024").mkdir()
    (copy.folder / "BraTS2024" / "training").symlink_to(phantom_folder)
    (copy.folder / "predictions").mkdir()
    first = min(phantom_folder.iterdir())
    for name, channel in zip("abcd", STUDY["dataset"]["channels"], strict=True):
        (copy.folder / f"{name}.nii.gz").symlink_to(first / f"{first.name}-{channel}.nii.gz")
    for case in phantom_folder.iterdir():
        label = case / f"{case.name}-seg.nii.gz"
        (copy.folder / "predictions" / f"{case.name}.nii.gz").symlink_to(label)
    return copy


@pytest.mark.parametrize("page", [name for name in NAMES if commands_of(name)])
def test_the_commands_of_a_page(page: str, copy: Copy, request: pytest.FixtureRequest) -> None:
    commands = commands_of(page)
    if page in FOLLOWED:
        assert page in source_of(FOLLOWED[page])
        return
    if not any("--output study.yaml" in command for command in commands):
        (copy.folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
        finish_a_soup(copy.folder / "results")
    if page == "docs/predict.md":
        network = {"name": "UNet", "arguments": {"channels": [4, 8], "strides": [2]}}
        study = load(SETTINGS | {"network": network, "training": {"patch": [32, 32, 16]}})
        write_model(copy.folder / "results/fold0/soups/greedy", study, seed=0)
    for command in commands:
        if command in ELSEWHERE:
            is_run_elsewhere(command, ELSEWHERE[command], copy)
        elif command in ENDLESS:
            ends_when_ended(command, ENDLESS[command], copy)
        elif command.startswith("sinfo"):
            cluster = request.getfixturevalue("cluster")
            assert cluster.run("bash", "-c", command).startswith("PARTITION NODELIST")
        elif not is_known(command, copy):
            copy.shell(command)
    if page == "docs/brats.md":
        with zipfile.ZipFile(copy.folder / "submission.zip") as packed:
            assert len(packed.namelist()) == 6
            assert all("/" not in name for name in packed.namelist())


def is_known(command: str, copy: Copy) -> bool:
    """Whether a command that takes seconds and changes nothing was run on the same study."""
    if not command.startswith(UNCHANGING):
        return False
    study = yaml.safe_load((copy.folder / command.split()[-1]).read_text())
    key = f"{command} {study}"
    known = key in _RUN
    _RUN.add(key)
    return known


def test_the_tables_name_no_command_that_no_page_has() -> None:
    documented = {command for page in NAMES for command in commands_of(page)}
    assert {*ELSEWHERE, *ENDLESS} <= documented
    assert set(FOLLOWED) <= set(NAMES)


def test_a_command_that_fails_is_found_out(copy: Copy) -> None:
    with pytest.raises(AssertionError, match="no such folder"):
        copy.shell("voxelsoup index nowhere")
    with pytest.raises(AssertionError, match="does not run"):
        is_run_elsewhere("x", Elsewhere(LOCALLY.test, ("nonsense",), LOCALLY.through), copy)
    with pytest.raises(AssertionError, match="there are 0"):
        source_of("tests/workflow/test_workflow.py::test_of_old")


@pytest.mark.parametrize("page", ["docs/outputs.md", "docs/souping.md"])
def test_the_python_of_a_page(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    finish_a_soup(Path("results"))
    (text,) = [block.text for block in blocks_of(page) if block.language == "python"]
    exec(compile(text, page, "exec"), {})
    if page == "docs/outputs.md":
        assert "['00000001', '00000002'] region\nWT    0.5" in capsys.readouterr().out
    else:
        assert weight_files.load(Path("soup.safetensors"))[0]["w"].item() == 1.5


def test_python_stands_on_pages_that_are_run() -> None:
    with_python = {name for name in NAMES if any(b.language == "python" for b in blocks_of(name))}
    assert with_python == {"docs/outputs.md", "docs/souping.md", *FOLLOWED}


def test_commands_stand_in_blocks_for_a_shell() -> None:
    blocks = [block for name in NAMES for block in blocks_of(name)]
    indented = re.compile(r"^ {4}(voxelsoup|snakemake|make|python) ", re.M)
    for name in NAMES:
        outside = re.sub(r"^```.*?^```$", "", (REPOSITORY / name).read_text(), flags=re.M | re.S)
        assert not indented.search(outside), name
    assert {block.language for block in blocks} <= {"sh", "python", "yaml", "toml", "text"}
    programs = re.compile(r"^(voxelsoup|snakemake|make|python|pip|synapse|mkdocs)\b.*", re.M)
    hidden = [
        found[0]
        for block in blocks
        if block.language == "text"
        for found in programs.finditer(block.text)
    ]
    # They need an account, a container or the network, and the pages say so.
    assert "pip install synapseclient" in hidden and "synapse login" in hidden
    assert len(hidden) == 5


def test_commands_within_sentences_exist(capsys: pytest.CaptureFixture[str]) -> None:
    documented = [
        part
        for name in NAMES
        for part in re.findall(r"`((?:voxelsoup|make) [^`]+)`", (REPOSITORY / name).read_text())
    ]
    assert len(documented) > 15
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.M))
    helps: dict[str, str] = {}
    for program, *words in map(str.split, documented):
        options = [word for word in words if word.startswith("-")]
        command = next(word for word in words if not word.startswith("-") and "=" not in word)
        if program == "make":
            assert command in targets, command
            continue
        if command not in helps:
            with pytest.raises(SystemExit) as ended:
                main([command, "--help"])
            assert ended.value.code == 0, command
            helps[command] = capsys.readouterr().out
        for option in options:
            assert option.partition("=")[0] in helps[command], (command, option)
