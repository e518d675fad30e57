"""A finish trains towards labels and the ensemble's probabilities together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from support.runs import preprocess_phantom, small_run, small_study
from voxelsoup.common.errors import InputError
from voxelsoup.common.files import write_json
from voxelsoup.data.preprocessing.store import load_case
from voxelsoup.data.regions import UNKNOWN
from voxelsoup.training.launch import _read_plan, _write_plan
from voxelsoup.training.patches import PatchSource, batches
from voxelsoup.training.run import (
    Job,
    Run,
    finish_run,
    finish_target,
    run_identity,
    trial_run,
)
from voxelsoup.training.targets import CERTAIN, EnsembleTargets, targets_of
from voxelsoup.training.train import train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cases(phantom_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("preprocessed")
    return folder, preprocess_phantom(phantom_folder, folder)


@pytest.fixture(scope="module")
def probabilities(cases: tuple[Path, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random ones of every case."""
    folder, names = cases
    target, random = tmp_path_factory.mktemp("targets"), np.random.default_rng(0)
    for name in names:
        shape = (3, *load_case(folder, name).label.shape)
        np.save(target / f"{name}.npy", random.integers(0, CERTAIN + 1, shape, dtype=np.uint8))
    return target


def source_of(
    cases: tuple[Path, list[str]], targets: EnsembleTargets | None, augmentation: str = "none"
) -> PatchSource:
    study = small_study(training={"augmentation": augmentation, "batch_size": 3})
    folder, names = cases
    return PatchSource.of(study, names, folder, (5,), targets)


def place_of(image: np.ndarray, folder: Path, names: list[str]) -> tuple[str, tuple[slice, ...]]:
    """The only window of the cases that holds these voxels."""
    for name in names:
        stored = load_case(folder, name).image
        windows = np.lib.stride_tricks.sliding_window_view(stored, image.shape[1:], axis=(1, 2, 3))
        found = np.argwhere((windows == image[:, None, None, None]).all(axis=(0, 4, 5, 6)))
        for start in found:
            return name, tuple(
                slice(int(a), int(a) + b) for a, b in zip(start, image.shape[1:], strict=True)
            )
    raise AssertionError("the patch is of no case")


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_target_is_so_much_of_the_probability_and_the_rest_of_the_label(
    cases: tuple[Path, list[str]], probabilities: Path, share: float
) -> None:
    folder, names = cases
    mixed = source_of(cases, EnsembleTargets(probabilities, share, (), ""))
    ((images, targets),) = batches(mixed, 0, 1, CPU)
    for image, target in zip(images.numpy(), targets.numpy(), strict=True):
        name, window = place_of(image, folder, names)
        values = load_case(folder, name).label[window]
        labels = np.stack([np.isin(values, held) for held in mixed.regions.values()])
        of_ensemble = np.load(probabilities / f"{name}.npy")[(slice(None), *window)] / 255
        np.testing.assert_allclose(target, (1 - share) * labels + share * of_ensemble, atol=1e-6)


def test_unlabelled_cases_have_the_probability_alone(
    cases: tuple[Path, list[str]], probabilities: Path
) -> None:
    unlabelled = tuple(cases[1][::2])
    part = source_of(cases, EnsembleTargets(probabilities, 0.5, unlabelled, ""))
    alone = source_of(cases, EnsembleTargets(probabilities, 1.0, (), ""))
    kinds = set()
    for step, ((_, mixed), (_, whole)) in enumerate(
        zip(batches(part, 0, 6, CPU), batches(alone, 0, 6, CPU), strict=True)
    ):
        for sample, number in enumerate(range(3 * step, 3 * step + 3)):
            name, _ = part.case_of(number)
            kinds.add(name in unlabelled)
            assert torch.equal(mixed[sample], whole[sample]) == (name in unlabelled)
    assert kinds == {True, False}


@pytest.mark.parametrize("augmentation", ["flips-intensity", "affine-contrast"])
def test_augmentation_moves_probabilities_with_the_labels(
    cases: tuple[Path, list[str]], tmp_path: Path, augmentation: str
) -> None:
    """Probabilities that are the labels themselves stay the labels."""
    folder, names = cases
    regions = small_study().regions
    for name in names:
        label = np.asarray(load_case(folder, name).label)
        inside = np.stack([np.isin(label, held) for held in regions.values()])
        np.save(tmp_path / f"{name}.npy", np.where(inside, CERTAIN, 0).astype(np.uint8))
    plain = batches(source_of(cases, None, augmentation), 0, 5, CPU)
    soft = source_of(cases, EnsembleTargets(tmp_path, 1.0, (), ""), augmentation)
    for (image, label), (same, target) in zip(plain, batches(soft, 0, 5, CPU), strict=True):
        assert torch.equal(image, same)
        torch.testing.assert_close(target, label, rtol=0, atol=1e-6)


def test_what_nobody_annotated_stays_unknown(
    cases: tuple[Path, list[str]], probabilities: Path
) -> None:
    hidden = {case: ["ET"] for case in cases[1]}
    targets = EnsembleTargets(probabilities, 0.5, (), "")
    ((_, regions),) = batches(replace(source_of(cases, targets), not_annotated=hidden), 0, 1, CPU)
    assert (regions[:, 2] == UNKNOWN).all() and (regions[:, :2] != UNKNOWN).all()
    ignoring = replace(source_of(cases, targets), ignored=2)
    ((_, regions),) = batches(ignoring, 0, 1, CPU)
    ((_, plain),) = batches(replace(source_of(cases, None), ignored=2), 0, 1, CPU)
    assert torch.equal(regions == UNKNOWN, plain == UNKNOWN) and (plain == UNKNOWN).any()


def run_of(
    cases: tuple[Path, list[str]], initial: Path, targets: EnsembleTargets | None, workers: int = 0
) -> Run:
    folder, names = cases
    study = small_study(training={"workers": workers}, soup={"finish": {"epochs": 2}})
    return finish_run(study, 0, names, folder, initial, 0.01, targets)


@pytest.fixture
def initial(cases: tuple[Path, list[str]], tmp_path: Path) -> Path:
    from voxelsoup.models import weight_files

    study = small_study()
    path = tmp_path / "start.safetensors"
    trained = train(small_run(study, *cases), CPU)
    weight_files.save(path, trained.weights, weight_files.describe(study))
    return path


def test_a_finish_repeats_itself_and_depends_on_its_targets(
    cases: tuple[Path, list[str]], probabilities: Path, initial: Path
) -> None:
    targets = EnsembleTargets(probabilities, 0.5, (), "")
    one, again, labels = (
        train(run_of(cases, initial, asked, workers), CPU)
        for asked, workers in ((targets, 0), (targets, 2), (None, 0))
    )
    assert one.history.equals(again.history) and not one.history.equals(labels.history)
    for name, value in one.weights.items():
        assert torch.equal(again.weights[name], value)
    # A cosine ends at 0.
    assert one.history["lr"].tolist() == pytest.approx([0.01, 0.005])


def test_the_identity_of_a_finish_knows_its_targets_and_its_rate(
    cases: tuple[Path, list[str]], initial: Path
) -> None:
    fingerprints = dict.fromkeys(cases[1], "f")

    def identity(targets: EnsembleTargets | None, rate: float = 0.01) -> object:
        run = run_of(cases, initial, targets)
        changed = run.optimizer.model_copy(update={"lr": rate})
        return run_identity(replace(run, optimizer=changed), fingerprints)

    different = [
        identity(None),
        identity(EnsembleTargets(Path("a"), 0.5, (), "one")),
        identity(EnsembleTargets(Path("a"), 0.5, (), "other")),
        identity(EnsembleTargets(Path("a"), 0.7, (), "one")),
        identity(EnsembleTargets(Path("a"), 0.5, (), "one"), rate=0.02),
    ]
    assert all(one != other for i, one in enumerate(different) for other in different[:i])
    moved = identity(EnsembleTargets(Path("b"), 0.5, (), "one"))
    assert moved == different[1]


def test_the_plan_of_a_finish_has_the_settings_of_its_run(
    cases: tuple[Path, list[str]], initial: Path
) -> None:
    study = small_study(soup={"finish": {"epochs": 2}})
    run = run_of(cases, initial, EnsembleTargets(Path("a"), 0.5, (), ""))
    assert finish_target(study, 0.01) == (2, run.settings())


def test_runs_of_trials_have_no_targets_in_their_identity(cases: tuple[Path, list[str]]) -> None:
    from voxelsoup.study.trials import trials

    folder, names = cases
    with_finish, without = (
        run_identity(trial_run(trials(study)[0], 0, names, folder, None), dict.fromkeys(names, "f"))
        for study in (small_study(soup={"finish": {}}), small_study())
    )
    assert with_finish == without and "targets" not in without


def test_several_processes_are_told_the_targets(
    cases: tuple[Path, list[str]], initial: Path, tmp_path: Path
) -> None:
    run = run_of(cases, initial, EnsembleTargets(tmp_path, 0.5, ("a", "b"), "hash"))
    where = {"states": tmp_path, "events": None, "log": tmp_path / "log"}
    job = Job(run, 0, "finish", "finish", {}, {}, threads=1, **where)
    _write_plan(tmp_path / "plan.json", job, [])
    assert _read_plan(tmp_path / "plan.json")[0].run == run


def test_targets_that_are_not_there_are_named(tmp_path: Path) -> None:
    record = {"models": ["a"], "unlabelled": ["u"]}
    write_json(tmp_path / "targets.json", record)
    targets = targets_of(record, tmp_path, 0.5)
    assert targets.unlabelled == ("u",)
    assert targets.sha256 != targets_of(record | {"models": ["b"]}, tmp_path, 0.5).sha256
    with pytest.raises(InputError, match=r"(?s)x\.npy.*forcerun finish_targets"):
        targets.of("x")
