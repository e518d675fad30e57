"""A run: repeats itself bit-identically, and leaves the averaged weights behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import voxelsoup.training.train
from support.runs import preprocess_phantom, small_run, small_study
from voxelsoup.common.errors import InputError
from voxelsoup.evaluation.score import load_model, score_cases
from voxelsoup.models import networks, weight_files
from voxelsoup.study.sections.training import Network
from voxelsoup.study.trials import trials
from voxelsoup.training.augment import Drawn, apply
from voxelsoup.training.optimizers import RunOptimizer
from voxelsoup.training.patches import PatchSource, batches, regions_of
from voxelsoup.training.run import stem_run, trial_run
from voxelsoup.training.train import Trainer, initial_model, train

CPU = torch.device("cpu")
UNET = {"channels": [4, 8], "strides": [2], "norm": "batch"}


@pytest.fixture(scope="module")
def cases(phantom_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("preprocessed")
    return folder, preprocess_phantom(phantom_folder, folder)


def test_a_run_repeats_itself_with_and_without_workers(cases: tuple[Path, list[str]]) -> None:
    results = [
        train(small_run(small_study(training={"workers": workers}), *cases), CPU)
        for workers in (0, 0, 2)
    ]
    for other in results[1:]:
        assert other.history.equals(results[0].history)
        for name, value in results[0].weights.items():
            assert torch.equal(other.weights[name], value)


@pytest.mark.parametrize("schedule", ["schedule-free", "constant"])
def test_an_epoch_has_the_rate_of_its_first_step(
    cases: tuple[Path, list[str]], schedule: str
) -> None:
    study = small_study(optimizer={"name": "sgd", "schedule": schedule, "lr": 0.01})
    assert train(small_run(study, *cases), CPU).history["lr"].tolist()[0] == pytest.approx(0.01)


def test_gradient_checkpointing_is_bit_identical(cases: tuple[Path, list[str]]) -> None:
    plain, again = (
        train(small_run(small_study(training={"gradient_checkpointing": on}), *cases), CPU)
        for on in (False, True)
    )
    assert list(plain.weights) == list(again.weights)
    for name, value in plain.weights.items():
        assert torch.equal(again.weights[name], value)


def test_gradient_checkpointing_keeps_less_for_the_backward_pass() -> None:
    def kept(model: nn.Module) -> int:
        sizes: list[int] = []

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(torch.randn(1, 1, 16, 16, 16))
        return sum(sizes)

    arguments = {"init_filters": 2, "blocks_down": [1, 1], "blocks_up": [1, 1]}
    network = Network(size="free", arguments=arguments)
    model = networks.build(network, 1, 1)
    before = kept(model)
    networks.checkpoint_gradients(model)
    assert kept(model) < before / 2
    other = networks.build(Network(name="UNet", arguments=UNET), 1, 1)
    with pytest.raises(InputError, match="gradient_checkpointing"):
        networks.checkpoint_gradients(other)


def test_channels_last_is_the_same_but_for_rounding(cases: tuple[Path, list[str]]) -> None:
    # Plain gradient descent, for Adam makes a whole step of a gradient that is nearly nothing.
    optimizer = {"name": "sgd", "schedule": "constant", "lr": 0.01}
    plain, last = (
        train(
            small_run(small_study(training={"channels_last": on}, optimizer=optimizer), *cases), CPU
        )
        for on in (False, True)
    )
    for name, value in plain.weights.items():
        torch.testing.assert_close(last.weights[name], value, rtol=1e-3, atol=1e-5)
        assert last.weights[name].is_contiguous()


def test_a_step_never_waits_for_the_device(cases: tuple[Path, list[str]]) -> None:
    """On torch's `meta` device numbers cannot be fetched, nor mixed with those of the CPU."""
    meta = torch.device("meta")
    for supervised in (False, True):
        study = small_study(
            network={"deep_supervision": supervised}, training={"channels_last": True}
        )
        session = Trainer(small_run(study, *cases), meta)
        images, labels = torch.empty(2, 4, 16, 16, 16), torch.empty(2, 1, 16, 16, 16)
        images, labels = images.to(meta), labels.to(meta, torch.uint8)
        everything = Drawn(
            affine={0: ([0.1, 0.2, 0.3], 1.1)},
            flips={0: [0, 2], 1: [1]},
            noise={},
            blur={1: 0.7},
            intensity={0: [(1.1, 0.1)] * 4},
            contrast={0: [1.1] * 4},
            low_resolution={1: 0.6},
            gamma={0: [1.2] * 4},
        )
        apply(images, labels, everything)
        session.take_step(images, regions_of(labels, list(study.regions.values())))
        session.take_step(images, regions_of(labels, list(study.regions.values())))
        with pytest.raises((RuntimeError, NotImplementedError)):
            session.losses[0].item()


def test_settings_of_later_versions_do_not_change_earlier_runs(
    cases: tuple[Path, list[str]],
) -> None:
    plain = small_run(small_study(), *cases).settings()["training"]
    assert not {"channels_last", "compile", "gradient_checkpointing"} & set(plain)
    for key, counts in (
        ("channels_last", True), ("compile", True), ("gradient_checkpointing", False),
    ):  # fmt: skip
        changed = small_run(small_study(training={key: True}), *cases).settings()["training"]
        assert (changed != plain) == counts


@pytest.mark.parametrize("name", ["adamw", "sgd", "radam"])
def test_the_saved_and_evaluated_weights_are_the_averaged_ones(
    cases: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    kept: list[RunOptimizer] = []

    class Kept(RunOptimizer):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)
            kept.append(self)

    monkeypatch.setattr(voxelsoup.training.train, "RunOptimizer", Kept)
    settings = small_study(optimizer={"name": name, "lr": 0.01})
    trained = train(small_run(settings, *cases), CPU)
    (optimizer,) = kept
    beta = settings.optimizer.momentum
    for key, y in optimizer.model.named_parameters():
        # Defazio et al. 2024, eq. 1: y = (1 - beta) z + beta x.
        z = optimizer.optimizer.state[y]["z"].double()
        x = (y.detach().double() - (1 - beta) * z) / beta
        torch.testing.assert_close(trained.weights[key].double(), x, rtol=1e-4, atol=1e-6)
    assert any(
        not torch.equal(trained.weights[key], y) for key, y in optimizer.model.named_parameters()
    )
    file = tmp_path / "model.safetensors"
    weight_files.save(file, trained.weights, weight_files.describe(settings))
    model = load_model(file, settings, CPU)
    for key, value in model.state_dict().items():
        assert torch.equal(value, trained.weights[key])


def test_a_trial_starts_from_its_stem_with_other_patches(
    cases: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder, names = cases
    settings = small_study(stem={"epochs": 1})
    stem = stem_run(settings, 0, names, folder)
    stem_file = tmp_path / "stem.safetensors"
    weight_files.save(stem_file, train(stem, CPU).weights, {})
    trial = trial_run(trials(settings)[0], 0, names, folder, stem_file)
    model = initial_model(trial, CPU)
    weights, _ = weight_files.load(stem_file)
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name])
    assert stem.seed != trial.seed


def test_per_case_scores_cover_every_case_and_region(cases: tuple[Path, list[str]]) -> None:
    folder, names = cases
    settings = small_study()
    model = initial_model(small_run(settings, *cases), CPU)
    rows = score_cases(model, names[:2], folder, settings, CPU)
    assert list(rows.columns) == ["case", "region", "dice", "loss"]
    assert list(zip(rows["case"], rows["region"], strict=True)) == [
        (case, region) for case in names[:2] for region in settings.regions
    ]
    assert rows["dice"].between(0, 1).all()


def test_the_error_of_a_diverged_run_names_the_fix(cases: tuple[Path, list[str]]) -> None:
    settings = small_study(
        optimizer={"name": "sgd", "schedule": "constant", "lr": 1e30},
        training={"gradient_clip": None},
    )
    with pytest.raises(InputError, match=r"lower `optimizer\.lr`"):
        train(small_run(settings, *cases), CPU)


def test_batch_norm_of_a_soup_is_re_estimated(
    cases: tuple[Path, list[str]],
) -> None:
    settings = small_study(network={"size": "S", "name": "UNet", "arguments": UNET})
    trained = train(small_run(settings, *cases), CPU)
    means = [value for name, value in trained.weights.items() if name.endswith("running_mean")]
    assert means
    assert all(value.abs().sum() > 0 for value in means)


def test_a_region_that_no_case_annotates_here_teaches_nothing(
    cases: tuple[Path, list[str]],
) -> None:
    """The outputs of a region that is not annotated get no gradient; those of the others do."""
    folder, names = cases
    study = small_study(dataset={"not_annotated": {"*": ["ET"]}})
    trainer = Trainer(small_run(study, folder, names), CPU)
    source = PatchSource.of(study, names, folder, (0,))
    ((images, regions),) = batches(source, 0, 1, CPU)
    logits = trainer.model(images)
    outputs = [logits] if isinstance(logits, torch.Tensor) else list(logits)
    for output in outputs:
        output.retain_grad()
    trainer.loss_function(logits, regions).backward()
    for output in outputs:
        assert output.grad is not None
        assert not output.grad[:, 2].any() and output.grad[:, :2].any()


def test_annotations_of_some_cases_are_learned_from(cases: tuple[Path, list[str]]) -> None:
    folder, names = cases
    study = small_study(dataset={"not_annotated": {name: ["ET"] for name in names[::2]}})
    run = small_run(study, folder, names)
    partly = train(run, CPU).weights
    every = train(small_run(small_study(), folder, names), CPU).weights
    for name, value in partly.items():
        assert torch.isfinite(value).all(), name
    assert any(not torch.equal(value, every[name]) for name, value in partly.items())
    # A run without such a case is what it was.
    others = small_run(study, folder, names[1::2])
    same = small_run(small_study(), folder, names[1::2])
    expected = train(same, CPU).weights
    for name, value in train(others, CPU).weights.items():
        assert torch.equal(value, expected[name])
