"""Ensembles: against the mean of the sigmoid outputs of models that were run one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from support.model_files import write_models
from support.runs import preprocess_phantom, small_study
from voxelsoup.common.errors import InputError
from voxelsoup.common.files import sha256
from voxelsoup.data.preprocessing.geometry import restore
from voxelsoup.data.preprocessing.store import load_case, load_ground_truth
from voxelsoup.data.regions import label_table, to_regions
from voxelsoup.evaluation.case_scores import LOSS, Scores, mean_dice, scores_of
from voxelsoup.evaluation.postprocessing import Postprocessing, RegionRule, unchanged
from voxelsoup.evaluation.score import load_model, predict, score_before_and_after, score_cases
from voxelsoup.evaluation.sliding_window import predict_logits
from voxelsoup.models import networks, weight_files
from voxelsoup.soups import ensemble
from voxelsoup.soups.ensemble import ensemble_record, mean_prediction, score_ensemble
from voxelsoup.soups.selection import Cache
from voxelsoup.soups.soup import Ingredient, recipe_record
from voxelsoup.study.study import Study

CPU = torch.device("cpu")
# Changes every prediction of models of random weights.
STRICT = Postprocessing(dict.fromkeys(("TC", "WT", "ET"), RegionRule(0.55, 20.0)))
UNET = {"name": "UNet", "arguments": {"channels": [4, 8], "strides": [2], "norm": "batch"}}


@pytest.fixture(scope="module")
def cases(phantom_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("preprocessed")
    return folder, preprocess_phantom(phantom_folder, folder)[:3]


def study_with(**changes: Any) -> Study:
    # Another loss than Dice alone, which would not see probabilities near 0 and 1.
    # Lesions of the noise that random weights predict take long to match.
    asked = {"evaluation": {"loss": "dice-bce"}, "metrics": {"names": ["precision", "hd95"]}}
    return small_study(**{**asked, **changes})


def files(ingredients: list[Ingredient]) -> list[Path]:
    return [ingredient.path for ingredient in ingredients]


def score(
    ingredients: list[Ingredient], study: Study, folder: Path, names: list[str], cache: Cache
) -> ensemble.Scored:
    """All but the first case are test cases."""
    asked = (ingredients, names, folder, study, CPU, cache, names[1:], STRICT)
    return score_ensemble(*asked)


def dices_of(probabilities: np.ndarray, folder: Path, name: str, study: Study) -> list[float]:
    """Dice per region in plain numpy, in the voxels of the scan."""
    found = restore(probabilities, load_case(folder, name).geometry) > 0.5
    truth = to_regions(load_ground_truth(folder, name), label_table(study.regions))
    return [
        2 * (f & t).sum() / (f.sum() + t.sum()) if t.any() else float(not f.any())
        for f, t in zip(found, truth, strict=True)
    ]


@pytest.mark.parametrize("changes", [{}, {"network": UNET}], ids=["MedNeXt", "batch norm"])
def test_an_ensemble_is_the_mean_of_models_run_one_by_one(
    cases: tuple[Path, list[str]], tmp_path: Path, changes: dict[str, Any]
) -> None:
    folder, names = cases
    study = study_with(**changes)
    models = write_models(study, tmp_path, [1, 2, 3])
    network = load_model(models[0].path, study, CPU)
    assert networks.has_batch_norm(network) == bool(changes)
    scores = scores_of(score(models, study, folder, names, Cache(None, "")).rows)
    for name in names:
        case = load_case(folder, name)
        image = torch.from_numpy(np.array(case.image, np.float32))
        each = []
        for path in files(models):
            alone = load_model(path, study, CPU)
            logits = predict_logits(alone, image, len(study.regions), study.training.patch, 0.5, 1)
            each.append(1 / (1 + np.exp(-logits.double().numpy())))
        expected = np.mean(each, axis=0)
        assert np.ptp(each, axis=0).max() > 0.01
        mean = mean_prediction(network, files(models), case, study, CPU)
        np.testing.assert_allclose(mean.probabilities.numpy(), expected, rtol=0, atol=1e-6)
        assert list(scores[name]) == [*study.regions, LOSS]
        found = [scores[name][region] for region in study.regions]
        assert found == pytest.approx(dices_of(expected, folder, name, study), abs=1e-6)


@pytest.mark.parametrize("copies", [1, 3])
def test_copies_of_one_model_score_what_the_model_scores(
    cases: tuple[Path, list[str]], tmp_path: Path, copies: int
) -> None:
    folder, names = cases
    study, measured = study_with(), names[1:]
    (model,) = write_models(study, tmp_path, [1])
    network = load_model(model.path, study, CPU)
    alone = score_cases(network, names, folder, study, CPU, measured)
    _, after = score_before_and_after(network, measured, folder, study, CPU, STRICT)
    scored = score([model] * copies, study, folder, names, Cache(None, ""))
    pd.testing.assert_frame_equal(scored.rows, alone, rtol=1e-6)
    pd.testing.assert_frame_equal(scored.postprocessed, after, rtol=1e-6)
    assert scored.rows["case"].unique().tolist() == names
    # All metrics of the test cases, before and after post-processing, and Dice alone of the other.
    names_of_metrics = study.metrics.names
    assert scored.rows.loc[scored.rows["case"] == names[0], names_of_metrics].isna().all(axis=None)
    tested = scored.rows[scored.rows["case"] != names[0]].reset_index(drop=True)
    assert tested["hd95"].notna().all()
    assert not tested.drop(columns="loss").equals(scored.postprocessed.drop(columns="loss"))
    assert tested["loss"].equals(scored.postprocessed["loss"])
    assert scored.inferences == copies * len(names)


def test_empty_postprocessing_of_an_ensemble_changes_no_score(
    cases: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder, names = cases
    study = study_with()
    asked = write_models(study, tmp_path, [1, 2]), names[:1], folder, study, CPU
    nothing = unchanged(list(study.regions))
    scored = score_ensemble(*asked, Cache(None, ""), names[:1], nothing)
    pd.testing.assert_frame_equal(scored.rows, scored.postprocessed)
    none_measured = score_ensemble(*asked, Cache(None, ""), [], nothing)
    assert none_measured.postprocessed.empty
    assert none_measured.rows["hd95"].isna().all()


def test_probabilities_of_0_and_1_have_a_finite_loss(tmp_path: Path) -> None:
    certain = torch.tensor([0.0, 1.0, 0.5, 1e-12], dtype=torch.float64)
    logits = ensemble.MeanPrediction(certain, 0, 0).logits
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(logits.sigmoid().double(), certain, rtol=0, atol=1e-7)
    # What a confident model says comes through: float32 would end at 16.
    confident = torch.tensor([-30.0, 30.0]).double().sigmoid()
    logits = ensemble.MeanPrediction(confident, 0, 0).logits
    torch.testing.assert_close(logits, torch.tensor([-30.0, 30.0]), rtol=1e-4, atol=0)


def test_one_model_is_held_at_a_time(
    cases: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, names = cases
    study = study_with()
    models = write_models(study, tmp_path, [1, 2, 3, 4])
    built, run = [], []

    def watched_load(path: Path, *others: Any) -> torch.nn.Module:
        built.append(path)
        return load_model(path, *others)

    def watched_predict(model: torch.nn.Module, *others: Any) -> torch.Tensor:
        run.append(id(model))
        return predict(model, *others)

    monkeypatch.setattr(ensemble, "load_model", watched_load)
    monkeypatch.setattr(ensemble, "predict", watched_predict)
    scored = score(models, study, folder, names, Cache(None, ""))
    assert len(built) == 1 and len(set(run)) == 1
    assert scored.inferences == len(run) == 4 * len(names)


def test_scores_from_before_a_kill_are_kept(
    cases: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, names = cases
    study = study_with()
    models = write_models(study, tmp_path, [1, 2])
    file = tmp_path / ".state" / "ensemble.jsonl"
    calm = score(models, study, folder, names, Cache(None, ""))

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    first = score(models, study, folder, names[:2], Cache(file, "context"))
    assert first.inferences == 2 * 2
    # In any order: a mean has none.
    again = score(models[::-1], study, folder, names, Cache(file, "context"))
    assert again.inferences == 2
    for kept, undisturbed in (
        (again.rows, calm.rows),
        (again.postprocessed, calm.postprocessed),
    ):
        pd.testing.assert_frame_equal(kept, undisturbed, rtol=1e-12)
    with monkeypatch.context() as patched:
        patched.setattr(ensemble, "predict", dies)
        third = score(models, study, folder, names, Cache(file, "context"))
        pd.testing.assert_frame_equal(third.rows, again.rows, check_exact=True)
        pd.testing.assert_frame_equal(third.postprocessed, again.postprocessed, check_exact=True)
        assert third.inferences == 0
        # Their measured times are kept with them.
        assert third.seconds_per_case == again.seconds_per_case
        for other in (models[:1], [*models, *write_models(study, tmp_path, [3])]):
            with pytest.raises(KeyboardInterrupt):
                score(other, study, folder, names, Cache(file, "context"))
        with pytest.raises(KeyboardInterrupt):
            score(models, study, folder, names, Cache(file, "other data"))


def test_the_record_of_an_ensemble_has_a_soups_form_and_the_cost(
    cases: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder, names = cases
    study = study_with()
    models = write_models(study, tmp_path, [1, 2])
    scored = score(models, study, folder, names, Cache(None, ""))
    record = ensemble_record(models, "all", scored, names[:2], 1.0)
    chosen_by = scored.rows[scored.rows["case"].isin(names[:2])]
    assert record["score"] == mean_dice(chosen_by) != mean_dice(scored.rows)
    assert record["models_per_prediction"] == 2
    assert record["case_inferences"] == 2 * len(names)
    assert record["ingredients"][0] == {
        "trial": "trial1",
        "weight": 0.5,
        "selection_score": 0.01,
        "sha256": models[0].sha256,
        "path": str(models[0].path),
    }
    seconds = record["seconds_per_case"]
    assert 0 < seconds["one_model"] <= seconds["ensemble"]
    # All that a soup's record says, but for its choices.
    soup = recipe_record("uniform", made_of(models, scores_of(scored.rows)), Selected(), 1.0)
    assert soup.keys() - record.keys() == {"decisions", "wasted_inferences"}
    assert soup["ingredients"][0].keys() == record["ingredients"][0].keys()


class Selected:
    inferences = 0


def made_of(models: list[Ingredient], scores: Scores) -> Any:
    from voxelsoup.soups.soup import Decision, SoupResult, in_equal_parts

    decisions = [Decision(model.trial, model.score, None, None, accepted=True) for model in models]
    return SoupResult(in_equal_parts(models), [model.trial for model in models], decisions, scores)


def test_a_model_of_another_network_is_refused(
    cases: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder, names = cases
    study = study_with()
    models = write_models(study, tmp_path, [1])
    path = tmp_path / "other.safetensors"
    weight_files.save(path, {"weight": torch.zeros(2)}, {})
    models.append(Ingredient("other", path, sha256(path), models[0].scores))
    with pytest.raises(InputError, match="does not fit the network"):
        score(models, study, folder, names, Cache(None, ""))


def test_an_ensemble_has_no_rows_of_regions_that_are_not_annotated(
    cases: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder, names = cases
    study = study_with(dataset={"not_annotated": {names[1]: ["ET"]}})
    (model,) = write_models(study, tmp_path, [1])
    alone = score_cases(load_model(model.path, study, CPU), names, folder, study, CPU, names[1:])
    scored = score([model], study, folder, names, Cache(tmp_path / "cache.jsonl", ""))
    pd.testing.assert_frame_equal(scored.rows, alone, rtol=1e-6)
    assert len(scored.rows) == 3 * 3 - 1 and len(scored.postprocessed) == 2 * 3 - 1
