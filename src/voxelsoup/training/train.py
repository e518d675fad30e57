"""One run: a model trained on the training cases of one fold."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import nn

from voxelsoup.models import devices, networks, weight_files
from voxelsoup.models.losses import training_loss
from voxelsoup.runs.divergence import Diverged, NotFinite
from voxelsoup.runs.resume_state import State, not_finite
from voxelsoup.runs.watchdog import Watchdog
from voxelsoup.study.ingredients import checkpoint_steps, name_of
from voxelsoup.training.batch_norm import estimate_batch_norm
from voxelsoup.training.data_parallel import Ranks
from voxelsoup.training.data_workers import WorkerLost
from voxelsoup.training.epochs import Epoch, Pace
from voxelsoup.training.optimizers import RunOptimizer
from voxelsoup.training.patches import PatchSource, batches, mixed_seed
from voxelsoup.training.run import Run

log = logging.getLogger(__name__)

# What is not finite, in messages.
LOSS = "the training loss"


@dataclass(frozen=True)
class Trained:
    """What a run leaves behind: the weights to evaluate, averaged at its end, and others.

    ``history`` has one row per epoch; ``beside`` maps names (see ``ingredients``) to weights.
    """

    weights: weight_files.Weights
    history: pd.DataFrame
    parameter_count: int
    beside: dict[str, weight_files.Weights]


class Checkpointer(Protocol):
    """What keeps the states of a run (see ``guard.RunGuard``)."""

    def newest(self) -> State | None:
        """The state to resume from."""

    def after_step(self, step: int, capture: Callable[[], State]) -> None:
        """Save if it is time to; may raise to end the run."""

    def after_epoch(self, rows: list[dict[str, float]]) -> None:
        """Take note of the history so far."""

    def save(self, step: int, capture: Callable[[], State]) -> None:
        """Save now."""

    def go_back(self, error: Diverged) -> None:
        """Raise the error if the run has been here before; else it trains again from ``newest``."""

    def save_alone(self, step: int, capture: Callable[[], State]) -> None:
        """Save if this process can without the others, for it ends for a reason of its own."""


class Observer(Protocol):
    """An observer (see ``events.TrainingEvents``); it changes nothing in the run."""

    def begin(self, step: int) -> None:
        """An attempt begins, after so many optimizer steps."""

    def after_epoch(self, epoch: Epoch) -> None:
        """An epoch is trained."""


def train(
    run: Run,
    device: torch.device,
    checkpointer: Checkpointer | None = None,
    observers: Sequence[Observer] = (),
    ranks: Ranks | None = None,
    watchdog: Watchdog | None = None,
) -> Trained:
    """Train a run to its end or its pause, from its beginning or from the newest state kept.

    ``ranks`` are the processes that share its batches, of which this is one; None: it is alone.
    ``watchdog`` ends the process where no step ends any more.

    Raises:
        Diverged: if its numbers are NaN or infinite, and were again after it went back.
        InputError: if the initial weights do not fit.
        Stopped: if the checkpointer ends the run before its time.
    """
    while True:
        try:
            return _train(run, device, checkpointer, observers, ranks, watchdog)
        except NotFinite as error:
            epoch = -(-error.step // run.study.training.steps_per_epoch)
            diverged = Diverged(epoch, error.step, error.what)
        # Outside, where nothing holds the weights of the first pass any more.
        if checkpointer is None:
            raise diverged
        checkpointer.go_back(diverged)


def _train(
    run: Run,
    device: torch.device,
    checkpointer: Checkpointer | None,
    observers: Sequence[Observer],
    ranks: Ranks | None,
    watchdog: Watchdog | None,
) -> Trained:
    session = Trainer(run, device, ranks)
    state = checkpointer.newest() if checkpointer else None
    if state is not None:
        session.restore(state)
    for observer in observers:
        observer.begin(session.step)
    pace = Pace(run.epochs, run.study.training.steps_per_epoch, session.step)
    with closing(_batches_left(session, checkpointer, watchdog)) as stream:
        for images, regions in stream:
            session.take_step(images, regions)
            session.keep_checkpoint()
            if session.epoch_ends:
                epoch = pace.epoch(session.end_epoch())
                log.info("%s", epoch)
                if checkpointer:
                    checkpointer.after_epoch(session.rows)
                for observer in observers:
                    observer.after_epoch(epoch)
            if checkpointer:
                checkpointer.after_step(session.step, session.capture)
    if checkpointer:
        checkpointer.save(session.step, session.capture)
    return session.result()


def _batches_left(
    session: Trainer, checkpointer: Checkpointer | None, watchdog: Watchdog | None
) -> Generator[tuple[torch.Tensor, torch.Tensor], None, None]:
    """The batches that a run has not trained on yet; to be exhausted, or closed."""
    run, ranks = session.run, session.ranks
    read = ranks.batches if ranks else batches
    stream = read(patch_source(run), session.step, run.last_step, session.device)
    with closing(watchdog.over(stream) if watchdog else stream) as left:
        try:
            yield from left
        except WorkerLost:
            # Noticed between two steps, it costs none of them.
            if checkpointer:
                checkpointer.save_alone(session.step, session.capture)
            raise


def patch_source(run: Run) -> PatchSource:
    """What the patches of a run are drawn from."""
    return PatchSource.of(run.study, run.cases, run.folder, run.seed, run.targets)


def initial_model(run: Run, device: torch.device) -> nn.Module:
    """The model that a run starts from: random by its seed, or a given model file.

    Raises:
        InputError: if the file does not fit the network.
    """
    study = run.study
    with networks.seeded(run.seed[0]):
        model = networks.build(study.network, len(study.dataset.channels), len(study.regions))
    if run.initial is not None:
        weights, _ = weight_files.load(run.initial)
        weight_files.fit(model, weights, run.initial)
    return model.to(device)


class Trainer:
    """A run in training: everything that its next step depends on."""

    def __init__(self, run: Run, device: torch.device, ranks: Ranks | None = None) -> None:
        self.run, self.device, self.ranks = run, device, ranks
        self.settings = run.study.training
        self.model = initial_model(run, device).train()
        self.memory_format = networks.memory_format(self.model, device, self.settings.channels_last)
        if self.settings.gradient_checkpointing:
            networks.checkpoint_gradients(self.model)
        forward = ranks.parallel(self.model) if ranks else self.model
        self.forward = devices.compiled(forward) if self.settings.compile else forward
        self.optimizer = RunOptimizer(self.model, run.optimizer, run.steps)
        loss_function = training_loss(self.settings, run.study.some_unknown(run.cases))
        self.loss_function = ranks.over_the_batch(loss_function) if ranks else loss_function
        precise = devices.precision_on(device, self.settings.precision) != "float16"
        self.scaler = torch.amp.GradScaler(device.type, enabled=not precise)
        self.step = 0
        self.rows: list[dict[str, float]] = []
        # Losses stay on the device until the epoch ends: fetching one waits for the device.
        self.losses: list[torch.Tensor] = []
        self.epoch_lr = self.optimizer.lr
        self.checkpoint_steps = checkpoint_steps(run.steps, run.checkpoints)
        # Before the end: a part of the state, so that a resumed run has them bit-identical.
        self.kept: dict[str, weight_files.Weights] = {}
        _seed_everything(run.seed)

    def take_step(self, images: torch.Tensor, regions: torch.Tensor) -> None:
        """One optimizer step on a batch."""
        self.optimizer.optimizer.zero_grad(set_to_none=True)
        # Every layer follows its input; weights, and so what is saved, stay as they are.
        images = networks.to_memory_format(images, self.memory_format)
        with devices.autocast(self.device, self.settings.precision):
            logits = self.forward(images)
        loss: torch.Tensor = self.loss_function(logits, regions)
        self.scaler.scale(loss).backward()
        if self.settings.gradient_clip is not None:
            self.scaler.unscale_(self.optimizer.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.gradient_clip)
        self.optimizer.step(self.scaler)
        if self.step == 0 and self.optimizer.is_schedule_free:
            # It has none before.
            self.epoch_lr = self.optimizer.lr
        self.losses.append(loss.detach())
        self.step += 1

    def keep_checkpoint(self) -> None:
        """Keep the weights if this is a checkpoint before the end."""
        if self.step in self.checkpoint_steps[:-1]:
            number = self.checkpoint_steps.index(self.step) + 1
            for kind in self.run.weights:
                averaged = kind == "averaged"
                with self.optimizer.averaged_weights() if averaged else nullcontext():
                    self.kept[name_of(kind, number)] = _copy(dict(self.model.state_dict()))

    @property
    def epoch_ends(self) -> bool:
        return self.step % self.settings.steps_per_epoch == 0

    def end_epoch(self) -> dict[str, float]:
        """Put the epoch's row into the history, and return it.

        Raises:
            NotFinite: if the loss of a step was NaN or infinite, of any of the processes.
        """
        wrong = self._step_not_finite() or 0
        wrong = self.ranks.largest(wrong) if self.ranks else wrong
        if wrong:
            raise NotFinite(wrong, LOSS)
        epoch = self.step // self.settings.steps_per_epoch
        mean = float(torch.stack(self.losses).double().mean())
        row = {"epoch": epoch, "step": self.step, "training_loss": mean, "lr": self.epoch_lr}
        self.rows.append(row)
        self.losses = []
        self.epoch_lr = self.optimizer.lr
        return row

    def _step_not_finite(self) -> int | None:
        """The first step since the last epoch ended whose loss was NaN or infinite."""
        if not self.losses:
            return None
        wrong = torch.stack(self.losses).isfinite().logical_not().nonzero()
        return self.step - len(self.losses) + 1 + int(wrong[0]) if len(wrong) else None

    def capture(self) -> State:
        """A copy of everything, on the CPU, that training on does not change.

        Raises:
            NotFinite: if the loss of a step was NaN or infinite: such a state is of no use.
        """
        wrong = self._step_not_finite()
        if wrong is not None:
            raise NotFinite(wrong, LOSS)
        copied: State = _copy(
            {
                "model": self.model.state_dict(),
                **self.optimizer.state(),
                "scaler": self.scaler.state_dict(),
                "random": _random_states(self.device),
                "rows": self.rows,
                "losses": self.losses,
                "epoch_lr": self.epoch_lr,
                "kept": self.kept,
            }
        )
        return copied

    def restore(self, state: State) -> None:
        """Resume from what ``capture`` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.restore(state)
        # Saved on a card with another precision of `auto`, it has nothing to resume from.
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.rows = state["rows"]
        # States of versions before there were checkpoints have none.
        self.kept = state.get("kept", {})
        self.losses = [loss.to(self.device) for loss in state["losses"]]
        self.step, self.epoch_lr = state["step"], state["epoch_lr"]
        _restore_random_states(state["random"], self.device)

    def result(self) -> Trained:
        """The averaged weights, those kept beside them, and the history.

        Raises:
            NotFinite: if any of these weights are.
        """
        with self.optimizer.averaged_weights():
            weights = self._settled()
        beside: dict[str, weight_files.Weights] = {}
        if "raw" in self.run.weights:
            beside[name_of("raw", len(self.checkpoint_steps))] = self._settled()
        for name, kept in self.kept.items():
            self.model.load_state_dict(kept)
            beside[name] = self._settled()
        wrong = not_finite([weights, beside])
        # Several processes end here one by one: the job looks at what their last state gives.
        if wrong is not None and self.ranks is None:
            raise NotFinite(self.step, "the weights at the end of the run")
        count = networks.count_parameters(self.model)
        return Trained(weights, pd.DataFrame(self.rows), count, beside)

    def _settled(self) -> weight_files.Weights:
        """A copy of what the model holds, with running statistics of its own."""
        estimate_batch_norm(self.model, patch_source(self.run), self.device)
        copied: weight_files.Weights = _copy(dict(self.model.state_dict()))
        return copied


def _seed_everything(seed: tuple[int, ...]) -> None:
    # Dropout and the like draw from the global random states.
    number = mixed_seed(seed)
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number % 2**32)


def _random_states(device: torch.device) -> dict[str, Any]:
    numpy: Any = np.random.get_state(legacy=True)
    kind, keys, position, has_normal, normal = numpy
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), position, has_normal, normal),
    }


def _restore_random_states(states: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
    random.setstate(states["python"])
    kind, keys, *others = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *others))


def _copy(value: Any) -> Any:
    """A deep copy with all tensors on the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        # Through a copy, which keeps a Counter a Counter.
        result = value.copy()
        for key, inner in value.items():
            result[key] = _copy(inner)
        return result
    if isinstance(value, list | tuple):
        return type(value)(_copy(inner) for inner in value)
    return value
