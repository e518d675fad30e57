"""What a training is said to need of a device, against what torch's allocator hands out."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from voxelsoup.models import devices, networks
from voxelsoup.models.losses import training_loss
from voxelsoup.planning.training_memory import MemoryNeed, TrainingShape
from voxelsoup.study.sections.training import Network, Optimizer, Training
from voxelsoup.training.measured_memory import measure, train_steps
from voxelsoup.training.memory import main, optimizer_memory, training_memory

CHANNELS, REGIONS = 2, 3
FREE = {
    "init_filters": 16,
    "blocks_down": [1, 1],
    "blocks_bottleneck": 1,
    "blocks_up": [1, 1],
    "encoder_expansion_ratio": 2,
    "decoder_expansion_ratio": [2, 2],
    "bottleneck_expansion_ratio": 2,
}
NETWORKS = {
    "MedNeXt": Network(name="MedNeXt", size="free", arguments=FREE, deep_supervision=True),
    "DynUNet": Network(
        name="DynUNet",
        arguments={
            "kernel_size": [3, 3, 3],
            "strides": [1, 2, 2],
            "upsample_kernel_size": [2, 2],
            "filters": [16, 32, 64],
        },
    ),
    "UNet": Network(
        name="UNet",
        arguments={"channels": [16, 32, 64], "strides": [2, 2], "num_res_units": 2},
    ),
    "SegResNet": Network(name="SegResNet", arguments={"init_filters": 8}),
    "UNETR": Network(
        name="UNETR",
        arguments={
            "img_size": [32, 32, 32],
            "feature_size": 8,
            "hidden_size": 96,
            "mlp_dim": 192,
            "num_heads": 4,
        },
    ),
}


def shape_of(name: str, **training: Any) -> TrainingShape:
    """A training of one of the networks on two patches."""
    settings = Training(**{"patch": [32, 32, 32], "batch_size": 2} | training)
    return TrainingShape(NETWORKS[name], settings, Optimizer(), CHANNELS, REGIONS)


def peak_of_allocator(shape: TrainingShape) -> int:
    """Bytes that torch's allocator has handed out at most in a training step on the CPU.

    Without the optimizer. The first step, in which libraries set themselves up, is left out.
    """
    training = shape.training
    model = networks.build(shape.network, CHANNELS, REGIONS).train()
    if training.gradient_checkpointing:
        networks.checkpoint_gradients(model)
    images, regions = (
        torch.rand(training.batch_size, count, *training.patch) for count in (CHANNELS, REGIONS)
    )
    chosen = networks.memory_format(model, torch.device("cpu"), "auto")
    loss_function = training_loss(training)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        volumes = networks.to_memory_format(images, chosen)
        with devices.autocast(torch.device("cpu"), training.precision):
            logits = model(volumes)
        loss_function(logits, regions).backward()

    step()
    model.zero_grad(set_to_none=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    tensors = [*model.parameters(), *model.buffers(), images, regions]
    now = peak = sum(tensor.nbytes for tensor in tensors)
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


@pytest.mark.parametrize("name", NETWORKS)
def test_the_estimate_is_within_a_fifth_of_the_allocators_peak(name: str) -> None:
    shape = shape_of(name)
    need = training_memory(shape, gpu=False)
    assert need.tensors - need.optimizer == pytest.approx(peak_of_allocator(shape), rel=0.2)


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "bfloat16"},
        {"gradient_checkpointing": True},
        {"precision": "bfloat16", "gradient_checkpointing": True},
    ],
)
def test_precision_and_checkpointing_are_counted_as_they_are_trained(
    settings: dict[str, Any],
) -> None:
    shape = shape_of("MedNeXt", **settings)
    need = training_memory(shape, gpu=False)
    assert need.tensors - need.optimizer == pytest.approx(peak_of_allocator(shape), rel=0.2)
    assert need.tensors < training_memory(shape_of("MedNeXt"), gpu=False).tensors


def test_a_gpu_is_counted_without_one() -> None:
    half = training_memory(shape_of("DynUNet", precision="bfloat16"))
    auto, full = (training_memory(shape_of("DynUNet", precision=p)) for p in ("auto", "float32"))
    assert auto == half
    assert half.activations < 0.75 * full.activations
    # Group normalisation, which is computed in float32 there.
    shape = shape_of("MedNeXt", precision="bfloat16")
    assert training_memory(shape).activations > training_memory(shape, gpu=False).activations
    # As it is when blocks are computed again.
    again = shape.with_training(gradient_checkpointing=True)
    assert training_memory(again).tensors < training_memory(shape).tensors


def test_several_gpus_share_the_patches_but_not_the_loss() -> None:
    alone, shared = shape_of("UNet", batch_size=4), shape_of("UNet", batch_size=4)
    shared = TrainingShape(**vars(shared) | {"processes": 4})
    needs = training_memory(alone), training_memory(shared)
    assert needs[1].tensors < needs[0].tensors
    assert needs[0].batch / 4 < needs[1].batch < needs[0].batch


@pytest.mark.parametrize(
    ("settings", "copies"),
    [
        ({"name": "adamw"}, 2),
        ({"name": "sgd"}, 1),
        ({"name": "adamw", "schedule": "cosine"}, 2),
        ({"name": "sgd", "schedule": "cosine", "momentum": 0.0}, 0),
        ({"name": "radam"}, 2),
    ],
)
def test_an_optimizer_keeps_copies_of_the_weights(settings: dict[str, Any], copies: int) -> None:
    shape = TrainingShape(NETWORKS["UNet"], Training(), Optimizer(**settings), 1, 1)
    state, scratch = optimizer_memory(shape)
    assert state == copies
    assert 0 <= scratch <= 4


def test_the_process_answers_for_every_training_or_says_what_is_wrong_with_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown = TrainingShape(Network(name="UNot"), Training(), Optimizer(), 1, 1)
    odd = shape_of("UNet", patch=[30, 31, 32])
    asked = [shape.as_json() for shape in (shape_of("UNet"), unknown, odd)]
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(asked)))
    main()
    counted, wrong, fails = json.loads(capsys.readouterr().out)
    assert MemoryNeed(**counted["need"]) == training_memory(shape_of("UNet"))
    assert "did you mean `UNet`" in wrong["error"]["fix"]
    assert fails["error"]["where"] == "training.patch"


def test_what_is_measured_on_a_node_is_a_training_of_the_same_kind() -> None:
    shape = shape_of("MedNeXt", patch=[16, 16, 16], gradient_checkpointing=True)
    train_steps(shape, torch.device("cpu"))
    found = measure(shape)
    assert (found["card"] is None) == (not torch.cuda.is_available())
