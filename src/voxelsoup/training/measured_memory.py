"""What a training takes of a card's memory, measured there for ``voxelsoup doctor --probe``.

``main`` takes two steps of the training that a file describes, on random patches, and reports as
JSON what torch's allocator has handed out.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from voxelsoup.common.errors import InputError
from voxelsoup.models import devices, networks
from voxelsoup.models.losses import training_loss
from voxelsoup.planning.training_memory import TrainingShape
from voxelsoup.training.optimizers import RunOptimizer

# In the second, the optimizer's own memory is there from the beginning.
STEPS = 2


def train_steps(shape: TrainingShape, device: torch.device) -> None:
    """Two training steps on random patches, as ``train.Trainer`` takes them.

    Raises:
        InputError: if the network cannot be built.
        torch.OutOfMemoryError: if the card has too little memory.
    """
    training = shape.training
    model = networks.build(shape.network, shape.channels, shape.regions).to(device).train()
    if training.gradient_checkpointing:
        networks.checkpoint_gradients(model)
    optimizer = RunOptimizer(model, shape.optimizer, STEPS)
    loss_function = training_loss(training, shape.some_unknown)
    half = devices.precision_on(device, training.precision) == "float16"
    scaler = torch.amp.GradScaler(device.type, enabled=half)
    chosen = networks.memory_format(model, device, training.channels_last)
    share = training.batch_size // shape.processes
    images = torch.rand(share, shape.channels, *training.patch, device=device)
    regions = torch.zeros(share, shape.regions, *training.patch, device=device)
    images = networks.to_memory_format(images, chosen)
    for _ in range(STEPS):
        optimizer.optimizer.zero_grad(set_to_none=True)
        with devices.autocast(device, training.precision):
            logits = model(images)
        scaler.scale(loss_function(logits, regions)).backward()
        optimizer.step(scaler)


def measure(shape: TrainingShape) -> dict[str, Any]:
    """Bytes that a training takes of this node's first GPU; its ``card`` is None without one."""
    node = os.environ.get("SLURMD_NODENAME") or platform.node()
    found: dict[str, Any] = {"node": node, "card": None}
    if not torch.cuda.is_available():
        return found
    device = torch.device("cuda", 0)
    found |= {"card": devices.name(device), "memory": devices.memory(device)}
    try:
        train_steps(shape, device)
    except torch.OutOfMemoryError as error:
        found["out_of_memory"] = str(error)
    except InputError as error:
        found["error"] = error.as_record()
    free, total = torch.cuda.mem_get_info(device)
    return found | {
        "tensors": torch.cuda.max_memory_allocated(device),
        "reserved": torch.cuda.max_memory_reserved(device),
        # With what other processes hold; Slurm hands out cards that nobody else has.
        "context": total - free - torch.cuda.memory_reserved(device),
    }


def main() -> None:
    """Measure the training that the file describes, and print what was found."""
    shape = TrainingShape.from_json(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    print(json.dumps(measure(shape)))
