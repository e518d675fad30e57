"""One run on several processes: each trains on its share of every batch, all with the same weights.

What the optimizer sees is what it sees in one process, up to rounding: patches and augmentation
are functions of numbers, the loss is taken over the logits of the whole batch, and gradients are
summed over the processes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from voxelsoup.common.errors import InputError
from voxelsoup.models import networks
from voxelsoup.training.patches import PatchSource, batches, mixed_seed

Loss = Callable[..., torch.Tensor]

# The longest wait for another process: a state written to a slow disk may take minutes.
PATIENCE = timedelta(minutes=15)


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, as one of them sees them: its number from 0, and its device."""

    rank: int
    count: int
    device: torch.device

    def batches(
        self, source: PatchSource, first_step: int, last_step: int, device: torch.device
    ) -> Generator[tuple[torch.Tensor, torch.Tensor], None, None]:
        """This process's share of what ``patches.batches`` yields.

        Random layers draw from the seed, the step and the process, so that no two processes
        drop the same, and a resumed run drops what it would have.
        """
        share = source.training.batch_size // self.count
        own = range(self.rank * share, (self.rank + 1) * share)
        with closing(batches(source, first_step, last_step, device, own)) as stream:
            for step, batch in enumerate(stream, first_step):
                torch.manual_seed(mixed_seed([*source.seed, step, self.rank]))
                yield batch

    def parallel(self, model: nn.Module) -> nn.Module:
        """The model with gradients that are the mean of those of all processes.

        Raises:
            InputError: if the network normalises over the batch.
        """
        check_network(model, self.count)
        on_gpu = self.device.type == "cuda"
        return DistributedDataParallel(
            model,
            device_ids=[self.device] if on_gpu else None,
            gradient_as_bucket_view=True,
            # Some of MONAI's networks have weights that only some of their ways through use.
            find_unused_parameters=True,
        )

    def over_the_batch(self, loss_function: Loss) -> Loss:
        """The same loss, over the logits of all processes: Dice may pool over the batch.

        Its gradient is this process's part of that of the whole batch, times the number of
        processes, by which ``parallel`` divides.
        """

        def loss(
            logits: torch.Tensor | Sequence[torch.Tensor], regions: torch.Tensor
        ) -> torch.Tensor:
            # Zeros, ones, and -1 for what is not known travel as bytes.
            target = self._gathered(regions.to(torch.int8)).to(regions.dtype)
            if isinstance(logits, torch.Tensor):
                value = loss_function(self._gathered(logits), target)
            else:
                value = loss_function([self._gathered(part) for part in logits], target)
            return value + (self.count - 1) * (value - value.detach())

        return loss

    def _gathered(self, own: torch.Tensor) -> torch.Tensor:
        """A tensor of (batch, ...) of the shares of all; gradients flow to the own one alone."""
        sent = own.detach().contiguous()
        parts = [torch.empty_like(sent) for _ in range(self.count)]
        torch.distributed.all_gather(parts, sent)
        parts[self.rank] = own
        return torch.cat(parts)

    def largest(self, number: int) -> int:
        """The largest of the numbers that all processes give; each waits for all others."""
        # On the CPU, so that no process waits for a GPU.
        shared = torch.tensor(number, dtype=torch.int64)
        torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
        return int(shared)


@contextmanager
def joined(rank: int, count: int, device: torch.device) -> Iterator[Ranks]:
    """Join the other processes, found by torchrun's variables in the environment."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, timeout=PATIENCE)
    yield Ranks(rank, count, device)
    # Not after an error: it would wait for processes that may be gone.
    torch.distributed.destroy_process_group()


def check_network(model: nn.Module, count: int) -> None:
    """Raise an InputError for batch normalisation, whose result depends on a process's share."""
    if count > 1 and networks.has_batch_norm(model):
        raise InputError(
            "network",
            f"normalises over the batch, and {count} GPUs (`resources.training.gpu`) would each "
            "normalise over their share",
            "a network with instance, group or layer normalisation",
            "set its `norm` in `network.arguments`, or `resources.training.gpu: 1`",
        )
