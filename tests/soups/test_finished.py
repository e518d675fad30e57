"""The finished model: its rate is chosen on selection cases, its targets are the ensemble's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from support.model_files import save_model, write_models
from support.runs import preprocess_phantom, small_study
from voxelsoup.common.errors import InputError
from voxelsoup.common.files import sha256
from voxelsoup.data.case import IndexedCase, Source
from voxelsoup.data.preprocessing.store import load_case
from voxelsoup.evaluation.score import load_model
from voxelsoup.soups.candidates import Candidate, write_candidates
from voxelsoup.soups.ensemble import mean_prediction
from voxelsoup.soups.ensemble_targets import targets_made_from, unlabelled_cases, write_targets
from voxelsoup.soups.finished import FinishedModel, chosen_rate, source_of
from voxelsoup.study.loading import load
from voxelsoup.study.trials import training_steps, trials

CPU = torch.device("cpu")


def tried(rate: float, dice: float | None) -> FinishedModel:
    rows = None
    if dice is not None:
        rows = pd.DataFrame({"case": ["a"], "region": ["WT"], "dice": [dice], "loss": [0.1]})
    return FinishedModel(rate, Path("finish/greedy", str(rate)), rows)


def test_the_rate_with_the_highest_selection_score_is_taken_and_of_equal_ones_the_first() -> None:
    assert chosen_rate([tried(0.01, 0.8), tried(0.003, 0.9)]).rate == 0.003
    assert chosen_rate([tried(0.01, 0.9), tried(0.003, 0.9)]).rate == 0.01
    assert chosen_rate([tried(0.01, None), tried(0.003, 0.1)]).rate == 0.003
    with pytest.raises(InputError, match=r"diverged with every learning rate \(0.01, 0.003\)"):
        chosen_rate([tried(0.01, None), tried(0.003, None)])


def test_a_model_without_any_overlap_can_be_chosen() -> None:
    assert chosen_rate([tried(0.01, 0.0)]).rate == 0.01


@pytest.mark.parametrize("best", ["elsewhere-other", "a/averaged-1"])
def test_the_best_single_model_may_be_from_elsewhere_or_a_checkpoint(
    tmp_path: Path, best: str
) -> None:
    listed = [Candidate("a", True, 0.7, ""), Candidate(best, True, 0.8, "")]
    write_candidates(tmp_path / "candidates.tsv", listed)
    model = save_model(tmp_path / "trials" / best / "model.safetensors")
    source = source_of("best", tmp_path / "candidates.tsv", [])
    (ingredient,) = source["ingredients"]
    assert source["of"] == "best" and ingredient["trial"] == best
    assert (ingredient["selection_score"], ingredient["path"]) == (0.8, str(model))
    assert ingredient["sha256"] == sha256(model)


@pytest.fixture(scope="module")
def cases(phantom_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("preprocessed")
    return folder, preprocess_phantom(phantom_folder, folder)[:3]


def test_targets_are_the_ensembles_probabilities_to_a_255th(
    cases: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder, names = cases
    study = small_study()
    ensemble = write_models(study, tmp_path, [1, 2])
    made_from = targets_made_from(ensemble, study, dict.fromkeys(names, "f"))
    write_targets(ensemble, made_from, study, folder, CPU, tmp_path / "targets")
    model = load_model(ensemble[0].path, study, CPU)
    for name in names:
        kept = np.load(tmp_path / "targets" / f"{name}.npy", mmap_mode="r")
        assert kept.dtype == np.uint8
        files = [one.path for one in ensemble]
        mean = mean_prediction(model, files, load_case(folder, name), study, CPU)
        np.testing.assert_allclose(kept / 255, mean.probabilities.numpy(), atol=0.5 / 255 + 1e-6)


def test_only_what_is_missing_or_outdated_is_predicted_again(
    cases: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder, names = cases
    study, target = small_study(), tmp_path / "targets"
    ensemble = write_models(study, tmp_path, [1, 2])

    def write(models: list[Any], fingerprints: dict[str, str]) -> set[str]:
        """Names of the cases that were written now."""
        before = {path.name: path.stat().st_mtime_ns for path in target.glob("*.npy")}
        made_from = targets_made_from(models, study, fingerprints)
        write_targets(models, made_from, study, folder, CPU, target)
        return {
            path.stem
            for path in target.glob("*.npy")
            if before.get(path.name) != path.stat().st_mtime_ns
        }

    same = dict.fromkeys(names, "f")
    assert write(ensemble, same) == set(names)
    assert write(ensemble, same) == set()
    (target / f"{names[0]}.npy").unlink()
    assert write(ensemble, same) == {names[0]}
    assert write(ensemble, same | {names[1]: "changed"}) == {names[1]}
    assert write(ensemble[:1], same | {names[1]: "changed"}) == set(names)


def case_of(name: str, patient: str, labelled: bool) -> IndexedCase:
    label = Source.parse("label.nii.gz") if labelled else None
    return IndexedCase(name, patient, {}, label, (1, 1, 1), (1.0, 1.0, 1.0), [], "")


def test_unlabelled_cases_of_held_out_patients_are_left_out() -> None:
    cases = [
        case_of("a1", "a", True),
        case_of("a2", "a", False),
        case_of("b1", "b", True),
        case_of("b2", "b", False),
        case_of("c2", "c", False),
    ]
    fold = {"training": ["b1"], "selection": [], "test": ["a1"]}
    assert unlabelled_cases(cases, fold) == ["b2", "c2"]


@pytest.mark.parametrize(
    ("finish", "message"),
    [
        ({"of": "uniform"}, "`finish.of` is `uniform`, which `recipes` does not name"),
        ({"optimizer": {"lr": 0.1}}, "`soup.finish.rates`"),
        ({"rates": [0.1, 0.1]}, "the same rate twice"),
        ({"rates": []}, "rates"),
        ({"ensemble_share": 1.5}, "ensemble_share"),
        ({"ensemble_share": 0, "unlabelled": True}, "`ensemble_share` must be above 0"),
    ],
)
def test_a_finish_that_cannot_be_is_refused(finish: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small_study(soup={"recipes": ["greedy"], "finish": finish})


def test_a_long_run_needs_a_finish_and_no_halving() -> None:
    with pytest.raises(InputError, match=r"`comparison.long_run` in a study without"):
        small_study(comparison={"long_run": True})
    halving = {"grid": {"training.seed": [0, 1, 2, 3]}, "halving": {"rungs": 2, "keep": 0.5}}
    with pytest.raises(InputError, match=r"with `sweep.halving`"):
        small_study(comparison={"long_run": True}, soup={"finish": {}}, sweep=halving)


def test_what_is_compared_follows_from_the_finish() -> None:
    assert small_study().compared_recipes == ["greedy", "uniform"]
    both = small_study(soup={"finish": {}}, comparison={"long_run": True})
    assert both.compared_recipes == ["greedy", "uniform", "finished", "finished-best", "long-run"]
    best = small_study(soup={"finish": {"of": "best"}})
    assert best.compared_recipes == ["greedy", "uniform", "finished-best"]


def test_a_model_costs_the_steps_of_all_that_it_was_chosen_among() -> None:
    grid = {"grid": {"training.seed": [0, 1, 2]}}
    study = small_study(
        training={"epochs": 2, "steps_per_epoch": 3},
        stem={"epochs": 4},
        sweep=grid,
        soup={"finish": {"epochs": 5, "rates": [0.1, 0.2]}},
        comparison={"long_run": True},
    )
    steps = {name: training_steps(study, trials(study), name) for name in ("best", "greedy")}
    assert steps == {"best": 3 * (4 + 3 * 2), "greedy": 3 * (4 + 3 * 2)}
    for name in ("finished", "finished-best", "long-run"):
        assert training_steps(study, trials(study), name) == 3 * (4 + 3 * 2 + 2 * 5)


def test_a_study_without_a_finish_is_written_as_before() -> None:
    content = small_study().model_dump(mode="json")
    assert "finish" not in content["soup"] and "comparison" not in content
    assert load(small_study(soup={"finish": {}}).model_dump(mode="json")).soup.finish is not None
