"""What a training needs of its device's memory, counted without computing anything.

One training step runs on tensors without contents: `meta` tensors that pass for those of a CPU
(torch's ``FakeTensorMode``; only builds for CUDA know its tensors), so that automatic mixed
precision applies. What it casts on GPUs alone is cast by ``_AsOnGpu``. A mode sees every operation
and counts the storages that are alive; autograd frees them as in a real step. To what torch's
allocator hands out it adds what it cannot see: copies that the kernels of convolutions make of
their inputs. tests/training/test_memory.py compares it with the allocator.

``main`` is the process of its own that ``planning.training_memory`` starts, which needs no torch.
"""

from __future__ import annotations

import json
import sys
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from monai.networks.blocks.mednext_block import MedNeXtBlock
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from voxelsoup.common.errors import InputError
from voxelsoup.models import devices, networks
from voxelsoup.models.losses import stages_of, training_loss
from voxelsoup.planning.training_memory import MemoryNeed, TrainingShape
from voxelsoup.training.optimizers import make_optimizer

# Kernels of convolutions have blocks of so many channels, and fill up a copy of a tensor that has
# fewer (oneDNN: nCdhw16c; on GPUs it is an upper bound).
BLOCK = 16
CONVOLUTION = torch.ops.aten.convolution.default
CONVOLUTION_BACKWARD = torch.ops.aten.convolution_backward.default
# What autocast computes in float32 on GPUs and not on CPUs, of what networks and losses use
# (torch's ATen/autocast_mode.h, AT_FORALL_FP32 and AT_FORALL_FP32_SET_OPT_DTYPE).
FLOAT32_ON_GPU = {
    functional.layer_norm, functional.group_norm, functional.interpolate, functional.softplus,
    functional.softmax, torch.softmax, torch.Tensor.softmax, torch.sum, torch.Tensor.sum,
    torch.exp, torch.Tensor.exp, torch.pow, torch.Tensor.pow, torch.rsqrt, torch.Tensor.rsqrt,
}  # fmt: skip
# Numbers of the tensor that an optimizer's own memory is measured with.
SAMPLE = 2**16


def training_memory(shape: TrainingShape, gpu: bool = True) -> MemoryNeed:
    """Count what one step of a training needs on a GPU, or on a CPU.

    It is the largest of all moments of a step, of which the parts are those of that very moment.

    Raises:
        InputError: if the network cannot be built, or fails on the patch.
    """
    state, scratch = optimizer_memory(shape)
    step = _Step(shape, gpu)
    step.run()
    weights = step.counted.of["weights"]
    largest = dict(step.counted.at_peak)
    optimizer = round(state * weights)
    # All gradients are there then, and no activation any more.
    updating = {
        "weights": weights,
        "gradients": step.gradients,
        "batch": step.counted.of["batch"],
        "working": round(scratch * weights),
    }
    if sum(updating.values()) > sum(largest.values()):
        largest = updating
    if shape.processes > 1:
        # Gradients travel in buckets of their own.
        largest["working"] = largest.get("working", 0) + weights
    return MemoryNeed(**largest, optimizer=optimizer)


class _Step:
    """One training step on tensors without contents; as ``train.Trainer.take_step``."""

    def __init__(self, shape: TrainingShape, gpu: bool) -> None:
        self.shape, self.gpu = shape, gpu
        # Shapes are computed from some tensors, which stay real ones.
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.counted = LiveBytes()
        self.gradients = 0
        outline = networks.outline(shape.network, shape.channels, shape.regions).to("meta")
        networks.check_outputs(outline, shape.channels, shape.regions, shape.training.patch)
        self.model = self._without_contents(outline).train()
        if shape.training.gradient_checkpointing:
            # In the backward pass, in which blocks are computed again, no mode is active.
            for block in self.model.modules():
                if isinstance(block, MedNeXtBlock):
                    vars(block)["forward"] = _AsOnGpu(gpu).within(block.forward)
            networks.checkpoint_gradients(self.model)

    def run(self) -> None:
        """Forward and backward pass."""
        shape, training = self.shape, self.shape.training
        share, patch = training.batch_size // shape.processes, training.patch
        with self.fake:
            images = torch.empty(share, shape.channels, *patch)
            regions = torch.empty(training.batch_size, shape.regions, *patch)
        device = torch.device("cuda" if self.gpu else "cpu")
        chosen = networks.memory_format(self.model, device, training.channels_last)
        loss_function = training_loss(training, shape.some_unknown)
        with self.counted:
            self.counted.add(list(self.model.parameters()) + list(self.model.buffers()), "weights")
            self.counted.add([images, regions], "batch")
            images = networks.to_memory_format(images, chosen)
            with self._autocast(), _AsOnGpu(self.gpu):
                logits = self.model(images)
            if shape.processes > 1:
                # The loss is that of all logits, gathered from all GPUs.
                logits = tuple(torch.cat([one] * shape.processes) for one in stages_of(logits))
            loss = loss_function(logits, regions)
            self.counted.kind = "working"
            loss.backward()

    def _autocast(self) -> AbstractContextManager[object]:
        """Automatic mixed precision as the device has it."""
        precision = self.shape.training.precision
        if precision == "auto":
            precision = "bfloat16" if self.gpu else "float32"
        return devices.autocast(torch.device("cpu"), precision)

    def _without_contents(self, model: nn.Module) -> nn.Module:
        """The model with weights on the device that take no memory; shared ones stay shared."""
        made: dict[torch.Tensor, torch.Tensor] = {}
        for module in model.modules():
            for tensors in (module._parameters, module._buffers):
                for name, tensor in tensors.items():
                    if tensor is not None:
                        made.setdefault(tensor, self._like(tensor))
                        tensors[name] = made[tensor]  # type: ignore[assignment]
        return model

    def _like(self, tensor: torch.Tensor) -> torch.Tensor:
        with self.fake:
            empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
        if not isinstance(tensor, nn.Parameter):
            return empty
        weight = nn.Parameter(empty, tensor.requires_grad)
        if weight.requires_grad:
            weight.register_post_accumulate_grad_hook(self._note_gradient)
        return weight

    def _note_gradient(self, weight: torch.Tensor) -> None:
        """A part of the working memory turns out to be a gradient, which stays."""
        assert weight.grad is not None
        size = weight.grad.nbytes
        self.gradients += size
        self.counted.of["gradients"] = self.gradients
        self.counted.of["working"] -= size


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages that are alive, by what they are for, and notes the peak.

    Attributes:
        kind: what storages that are made now are for.
        of: kind -> bytes now.
        at_peak: the same at the moment when they were most.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kind = "activations"
        self.of = dict.fromkeys(("weights", "gradients", "batch", "activations", "working"), 0)
        self.at_peak = dict(self.of)
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def add(self, values: Any, kind: str) -> None:
        """Count the storages of tensors that are not counted yet."""
        for tensor in tree_leaves(values):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage(), kind)

    def _add(self, storage: torch.UntypedStorage, kind: str) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return

        def gone(_: object) -> None:
            del self._alive[key]
            self.of[kind] -= size

        self._alive[key] = weakref.ref(storage, gone)
        self.of[kind] += size

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = operation(*args, **kwargs or {})
        self.add(result, self.kind)
        copies = _copies_of(operation, args)
        if sum(self.of.values()) + copies > sum(self.at_peak.values()):
            self.at_peak = self.of | {"working": self.of["working"] + copies}
        return result


def _copies_of(operation: Any, args: Any) -> int:
    """Bytes that a convolution's kernel takes beside its results: its inputs laid out anew.

    Of its images the larger one, in whole blocks of channels, and the weights and their gradient.
    """
    if operation is CONVOLUTION:
        image, weight = args[:2]
        return _in_blocks(image) + weight.nbytes
    if operation is CONVOLUTION_BACKWARD:
        gradient, image, weight = args[:3]
        return max(_in_blocks(gradient), _in_blocks(image)) + 2 * weight.nbytes
    return 0


def _in_blocks(image: torch.Tensor) -> int:
    channels = image.shape[1]
    return image.nbytes // channels * BLOCK * -(-channels // BLOCK)


class _AsOnGpu(TorchFunctionMode):
    """Within autocast, computes in float32 what GPUs compute so, and CPUs do not."""

    def __init__(self, gpu: bool) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if self.gpu and function in FLOAT32_ON_GPU and torch.is_autocast_enabled("cpu"):
            args, kwargs = tree_map_only(torch.Tensor, _in_float32, (args, kwargs or {}))
        return function(*args, **kwargs or {})

    def within(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that is always called within this mode."""

        def called(*args: Any) -> Any:
            with self:
                return function(*args)

        return called


def _in_float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.dtype in devices.PRECISIONS.values() else tensor


def optimizer_memory(shape: TrainingShape) -> tuple[float, float]:
    """What an optimizer keeps, and takes for a while in a step, in multiples of the weights.

    It is measured with a small tensor; several tensors at a time, as on GPUs.
    """
    weight = nn.Parameter(torch.zeros(SAMPLE))
    optimizer = make_optimizer([weight], shape.optimizer)
    for group in optimizer.param_groups:
        group["foreach"] = True
    if shape.optimizer.schedule == "schedule-free":
        optimizer.train()  # type: ignore[attr-defined]
    counted = LiveBytes()
    for mode in (None, counted):
        weight.grad = torch.ones(SAMPLE)
        if mode is None:
            optimizer.step()
        else:
            with mode:
                optimizer.step()
    kept = [one for one in tree_leaves(dict(optimizer.state)) if isinstance(one, torch.Tensor)]
    state = sum(one.nbytes for one in kept if one.numel() == SAMPLE)
    return state / weight.nbytes, sum(counted.at_peak.values()) / weight.nbytes


def main() -> None:
    """Answer for every training that is asked about on standard input, as JSON."""
    answers: list[dict[str, Any]] = []
    for asked in json.load(sys.stdin):
        try:
            answers.append({"need": training_memory(TrainingShape.from_json(asked)).as_json()})
        except InputError as error:
            answers.append({"error": error.as_record()})
    print(json.dumps(answers))
