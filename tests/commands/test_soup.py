"""`voxelsoup soup`: models that exist already become soups, without any study being run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from support.model_files import save_model
from support.runs import SETTINGS
from voxelsoup.commands.cli import main
from voxelsoup.common.files import read_json, sha256
from voxelsoup.models import weight_files
from voxelsoup.models.weight_files import Weights
from voxelsoup.soups.soup import rebuild


@pytest.fixture
def folder(tmp_path: Path, phantom_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three files of one network, near each other, as three programs write them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans").symlink_to(phantom_folder)
    save_model(tmp_path / "base.safetensors")
    base, description = weight_files.load(tmp_path / "base.safetensors")
    weight_files.save(tmp_path / "a.safetensors", moved(base, 0), description)
    torch.save({"state_dict": moved(base, 1), "epoch": 3}, tmp_path / "b.ckpt")
    renamed = {f"net.{name}": tensor for name, tensor in moved(base, 2).items()}
    torch.save({"network_weights": renamed}, tmp_path / "c.pth")
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(SETTINGS))
    return tmp_path


def moved(weights: Weights, seed: int) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: 2 * tensor + 0.05 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in weights.items()
    }


def test_files_of_several_programs_become_soups(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["soup", "a.safetensors", "b.ckpt", "--select", "scans", "--output", "souped"]
    assert main(asked) == 0
    printed = capsys.readouterr().out
    assert "alone, the first" in printed and "the soup of 2 of 2 models" in printed
    greedy = read_json(Path("souped/greedy/recipe.json"))
    uniform = read_json(Path("souped/uniform/recipe.json"))
    assert greedy["decisions"][0]["accepted"] is True
    assert {one["trial"] for one in uniform["ingredients"]} == {"a.safetensors", "b.ckpt"}
    assert uniform["files"][1]["file_sha256"] == sha256(Path("b.ckpt"))
    # The average itself, from the files that were given.
    expected = weight_files.load(Path("a.safetensors"))[0]
    other = torch.load("b.ckpt")["state_dict"]
    found, description = weight_files.load(Path("souped/uniform/model.safetensors"))
    again = rebuild(uniform)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, (expected[name] + other[name]) / 2)
        assert torch.equal(tensor, again[name])
    assert description == weight_files.load(Path("a.safetensors"))[1]

    # The same again scores nothing, and changes nothing but how long it took.
    scores = Path("souped/.state/candidates.jsonl").read_bytes()
    assert main(asked) == 0
    assert capsys.readouterr().out.count("(known)") == 2
    assert Path("souped/.state/candidates.jsonl").read_bytes() == scores
    later = read_json(Path("souped/greedy/recipe.json"))
    assert {later[key] == greedy[key] for key in ("score", "ingredients", "made_from")} == {True}
    # Soups of other models are not replaced.
    (folder / "base2.safetensors").write_bytes((folder / "base.safetensors").read_bytes())
    assert main([*asked[:2], "base2.safetensors", *asked[3:]]) == 1
    assert "is of other models, other cases" in capsys.readouterr().err


def test_foreign_files_need_a_study_and_rules(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--select", "scans", "--output", "souped2", "--recipe", "uniform"]
    assert main(["soup", "b.ckpt", "c.pth", *where]) == 1
    assert "b.ckpt: does not say which network it is of" in capsys.readouterr().err
    assert main(["soup", "b.ckpt", "c.pth", "--study", "study.yaml", *where]) == 1
    assert r"'^net\.': ''" in capsys.readouterr().err
    rules = ["--study", "study.yaml", "--rename", r"^net\.="]
    assert main(["soup", "b.ckpt", "c.pth", *rules, *where]) == 0
    record = read_json(Path("souped2/uniform/recipe.json"))
    assert [one.get("rename") for one in record["files"]] == [None, {r"^net\.": ""}]
    assert not Path("souped2/greedy").exists()
    # Or the study states them.
    study = SETTINGS | {"ingredients": [{"file": "c.pth", "rename": {r"^net\.": ""}}]}
    Path("study.yaml").write_text(yaml.safe_dump(study))
    assert main(["soup", "b.ckpt", "c.pth", "--study", "study.yaml", *where]) == 0
    assert "(known)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("models", "said"),
    [
        (["a.safetensors"], "names one model"),
        (["a.safetensors", "none.pt"], "none.pt: no such file"),
        (["a.safetensors", "a.safetensors"], "holds the same weights as a.safetensors"),
        (["a.safetensors", "other.safetensors"], "other.safetensors: is a model with another"),
    ],
)
def test_models_that_cannot_be_averaged_are_refused_before_anything_is_scored(
    folder: Path, capsys: pytest.CaptureFixture[str], models: list[str], said: str
) -> None:
    save_model(folder / "other.safetensors", network={"kernel_size": 5})
    assert main(["soup", *models, "--select", "scans", "--output", "souped"]) == 1
    assert said in capsys.readouterr().err
    assert not Path("souped/.state").exists()


def test_a_rule_that_is_none_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["soup", "a.safetensors", "c.pth", "--select", "scans", "--output", "souped"]
    for rule, said in (("net", "is no rule"), ("(=x", "is no renaming rule")):
        assert main([*asked, "--rename", rule]) == 1
        assert said in capsys.readouterr().err
