"""Training one run with several GPUs: a process for each, started and watched by torchrun's agent.

The first process keeps the run's lease, states, record and events, as a training in one
process does; the others compute. When they have ended, the last state is the run's result for
the process that started them: resuming from it takes no step.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from voxelsoup.common.errors import EXIT_STOPPED, InputError, Stopped
from voxelsoup.common.files import read_json
from voxelsoup.common.logs import appended_log
from voxelsoup.models import devices
from voxelsoup.runs.divergence import Diverged, NotFinite
from voxelsoup.runs.guard import RunGuard
from voxelsoup.runs.resume_state import State, state_at
from voxelsoup.runs.signals import SIGNALS, Interrupted, Interruption
from voxelsoup.runs.watchdog import Watchdog
from voxelsoup.study.loading import load
from voxelsoup.study.sections.training import Optimizer
from voxelsoup.training.data_parallel import Ranks, joined
from voxelsoup.training.out_of_memory import as_refusal, explained
from voxelsoup.training.peers import Peers, ProcessLost, read_report, write_report
from voxelsoup.training.run import Job, Run
from voxelsoup.training.targets import EnsembleTargets
from voxelsoup.training.tensorboard import TrainingEvents
from voxelsoup.training.train import train

log = logging.getLogger(__name__)

PLAN = "plan.json"
# What the first process says instead of a signal's number: it ends for a reason of its own, or the
# run's numbers were not finite at a step that is added to this.
OWN_REASON = 1000
NOT_FINITE = 2000
# Between the request to end and SIGKILL: the first process may be writing a state.
SECONDS_TO_END = 120


class EndedByTheFirst(Stopped):
    """The first process ends the run and says why."""


def train_together(job: Job, processes: int) -> None:
    """Train a run to its end or its pause with several processes; its states are the result.

    Each has a GPU where there are any.

    Raises:
        InputError: if the run cannot be trained, as in one process.
        Stopped: if the run was asked to end, or a process died.
    """
    with ExitStack() as exits:
        gpus = exits.enter_context(devices.reserved(job.run.study.training.device, processes))
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="voxelsoup-ranks-")))
        _write_plan(folder / PLAN, job, gpus)
        on = f"GPUs {', '.join(map(str, gpus))}" if gpus else "CPUs"
        log.info("training with %d processes on %s", processes, on)
        _launch(folder, processes)


def _launch(folder: Path, count: int) -> None:
    """Start torchrun's agent in this process, and wait for the processes that it starts."""
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # torch warns, once per process, that it searched for unused weights and found none.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    # As `torchrun --standalone`.
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        signals_to_handle=",".join(number.name for number in SIGNALS),
        shutdown_timeout=SECONDS_TO_END,
    )
    with _quiet_agent():
        try:
            elastic_launch(config, sys.executable)("-m", "voxelsoup.training.launch", str(folder))
        except SignalException as error:
            report = read_report(folder)
            raise report or Stopped(f"stopped by {signal.Signals(error.sigval).name}") from None
        except ChildFailedError as error:
            exit_codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
            killed = min(exit_codes.values()) < 0
            raise (read_report(folder, killed=killed) or _lost(exit_codes, count)) from None


def _lost(exit_codes: dict[int, int], count: int) -> ProcessLost:
    """Name the process that died first.

    When one has died, the others fail in their next exchange, and the agent ends them by SIGTERM.
    """
    ended_by_the_agent = -signal.SIGTERM
    rank, code = min(
        exit_codes.items(), key=lambda item: (item[1] == ended_by_the_agent, item[1] > 0)
    )
    how = (
        f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    )
    return ProcessLost(
        f"process {rank} of the {count} that train this run {how}; started again, the run "
        "resumes from its last saved state"
    )


@contextmanager
def _quiet_agent() -> Iterator[None]:
    """Silence torch's agent, whose failures are reported here; give signals back to Python."""
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict]
    agents = [each for each in loggers if each.name.startswith("torch.distributed.")]
    levels = [(each, each.level) for each in agents]
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    for each in agents:
        each.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for each, level in levels:
            each.setLevel(level)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _write_plan(path: Path, job: Job, gpus: list[int]) -> None:
    run = job.run
    others = {
        name: value for name, value in vars(run).items() if name not in ("study", "optimizer")
    }
    if run.targets:
        others["targets"] = vars(run.targets)
    plan = {
        **vars(job),
        "run": others,
        "study": run.study.model_dump(mode="json"),
        "optimizer": run.optimizer.model_dump(mode="json"),
        "gpus": gpus,
        "parent": os.getpid(),
    }
    path.write_text(json.dumps(plan, default=str))


def _read_plan(path: Path) -> tuple[Job, list[int], int]:
    """What ``_write_plan`` wrote: the job, its GPUs, and the process that wrote it."""
    plan = read_json(path)
    run, gpus, parent = plan["run"], plan.pop("gpus"), plan.pop("parent")
    study, optimizer = load(plan.pop("study")), Optimizer(**plan.pop("optimizer"))
    run |= {"folder": Path(run["folder"]), "initial": run["initial"] and Path(run["initial"])}
    run |= {"seed": tuple(run["seed"]), "weights": tuple(run["weights"])}
    if run["targets"]:
        targets = run["targets"]
        targets |= {"folder": Path(targets["folder"]), "unlabelled": tuple(targets["unlabelled"])}
        run["targets"] = EnsembleTargets(**targets)
    plan["run"] = Run(**run, study=study, optimizer=optimizer)
    paths = {key: plan[key] and Path(plan[key]) for key in ("states", "events", "log")}
    return Job(**plan | paths), gpus, parent


class SharedCheckpointer:
    """Keeps the states of a run for all of its processes (a ``training.Checkpointer``).

    After every step they agree whether to continue, so that all end after the same one: whichever
    got a signal, and also where the first one ends for a reason of its own.
    """

    def __init__(
        self, ranks: Ranks, folder: Path, asked: Interruption, guard: RunGuard | None, parent: int
    ) -> None:
        """Set up; only the first process has the run's guard, and all know who started them."""
        self.ranks, self.folder, self.guard, self.parent = ranks, folder, guard, parent
        self.asked = guard.interruption if guard else asked
        self._error: Exception | None = None

    def newest(self) -> State | None:
        """The state to resume from, the same for all."""
        state = self.guard.newest() if self.guard else None
        step = self.ranks.largest(state["step"] if state else 0)
        if self.guard or not step:
            return state
        state = state_at(self.folder, step)
        if state is None:
            raise RuntimeError(f"{self.folder}: the state after step {step} cannot be read")
        return state

    def after_step(self, step: int, capture: Callable[[], State]) -> None:
        """Save if it is time to; end the run if any process has to.

        Raises:
            NotFinite: in all processes after the same step.
            Stopped: likewise.
        """
        self._try(lambda guard: guard.after_step(step, capture))
        number = self._agreed(self._signal())
        if number == 0:
            return
        if self._error is None and self.guard:
            self.asked.signal = signal.Signals(number).name
            self._try(lambda guard: guard.after_step(step, capture))
            # The others end: it was not finite where it is saved for the next attempt.
            if isinstance(self._error, NotFinite):
                self._error = Stopped(f"stopped by {self.asked.signal}, and {self._error}")
        self._end()

    def _agreed(self, number: int = 0) -> int:
        """The largest of the numbers of all processes, or why the first one ends.

        Raises:
            NotFinite: if the first process found that, in all of them.
        """
        if isinstance(self._error, NotFinite):
            number = NOT_FINITE + self._error.step
        elif self._error is not None:
            number = OWN_REASON
        number = self.ranks.largest(number)
        if number >= NOT_FINITE:
            error, self._error = self._error, None
            raise error or NotFinite(number - NOT_FINITE, "a number in the first process")
        return number

    def _end(self) -> None:
        raise self._error or EndedByTheFirst("the first process ends the run")

    def _signal(self) -> int:
        if self.asked.signal is not None:
            return signal.Signals[self.asked.signal].value
        # The system gives orphans another parent: no process is left to start their successors.
        return signal.SIGHUP if os.getppid() != self.parent else 0

    def after_epoch(self, rows: list[dict[str, float]]) -> None:
        """Take note of the history so far."""
        self._try(lambda guard: guard.after_epoch(rows))

    def save(self, step: int, capture: Callable[[], State]) -> None:
        """Save now; all processes wait for it.

        Raises:
            NotFinite: in all processes.
            Stopped: likewise.
        """
        self._try(lambda guard: guard.save(step, capture))
        if self._agreed():
            self._end()

    def go_back(self, error: Diverged) -> None:
        """Raise the error if the run has been here before: the first process knows.

        Raises:
            Stopped: in the others.
        """
        self._try(lambda guard: guard.go_back(error))
        if self._agreed():
            self._end()

    def save_alone(self, step: int, capture: Callable[[], State]) -> None:
        """Save if this is the first process; the others may be within the next step."""
        if self.guard:
            self.guard.save_alone(step, capture)

    def _try(self, act: Callable[[RunGuard], None]) -> None:
        """Let the guard act; why it wants to end is kept until all processes know."""
        if self.guard is None or self._error is not None:
            return
        try:
            act(self.guard)
        except Exception as error:
            self._error = error


def _train_share(folder: Path, rank: int, count: int) -> None:
    job, gpus, parent = _read_plan(folder / PLAN)
    run = job.run
    with ExitStack() as exits:
        asked = exits.enter_context(Interruption())
        guard = None
        if rank == 0:
            exits.enter_context(appended_log(job.log))
            guard = exits.enter_context(
                RunGuard(
                    job.states,
                    job.identity,
                    run.steps,
                    run.study.recovery,
                    run.study.on_code_change,
                )
            )
        peers = exits.enter_context(Peers(folder, rank, count))
        watchdog = exits.enter_context(_watchdog(run, peers, guard, parent))
        threads = max(1, job.threads // count)
        gpu = gpus[rank] if gpus else None
        device = devices.prepare("cuda" if gpus else "cpu", threads, gpu=gpu)
        if guard:
            guard.recorder.trains_on(devices.name(device), device.index, devices.memory(device))
            log.info("%s, %d processes on %s: %s", job, count, devices.name(device), run)
        asked.check()
        observers = [TrainingEvents(job.events)] if guard and job.events else []
        with _ends_with(peers), joined(rank, count, device) as ranks:
            checkpointer = SharedCheckpointer(ranks, job.states, asked, guard, parent)
            with explained(run, device):
                train(run, device, checkpointer, observers, ranks, watchdog)


def _as_refusal(folder: Path, error: Exception) -> Exception:
    """Torch's error for a full GPU as the job is to end with it."""
    if not isinstance(error, torch.OutOfMemoryError):
        return error
    return as_refusal(error, str(_read_plan(folder / PLAN)[0]))


@contextmanager
def _ends_with(peers: Peers) -> Iterator[None]:
    """Where an exchange fails because of another process, end with its reason."""
    try:
        yield
    except EndedByTheFirst:
        peers.leaves()
        raise
    except (InputError, Stopped):
        raise
    except Exception as error:
        raise peers.cause() or error from None


def _watchdog(run: Run, peers: Peers, guard: RunGuard | None, parent: int) -> Watchdog:
    """What ends this process where it cannot do so itself: it hangs, or waits for a dead one."""

    def trouble() -> Stopped | None:
        if guard and guard.recorder.record.state == "saving":
            return None
        if guard and os.getppid() != parent:
            return Interrupted("stopped by SIGHUP: the process that started this one is gone")
        return peers.lost()

    def end(reason: Stopped) -> None:
        if guard:
            guard.ends_now(reason)
        os._exit(_ended_by(peers.folder, peers.rank, reason))

    return Watchdog(run.study.training.watchdog, end, trouble)


def main(folder: Path) -> int | None:
    """Train one share of a run, as torchrun's variables say which.

    Returns the exit code where it ends before its time.
    """
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    try:
        _train_share(folder, rank, count)
    except Exception as error:
        return _ended_by(folder, rank, _as_refusal(folder, error))
    return None


def _ended_by(folder: Path, rank: int, error: Exception) -> int:
    """Report why a process ends; returns its exit code."""
    if isinstance(error, EndedByTheFirst):
        # The agent ends all processes when one has failed, and the first may still save.
        return 0
    if isinstance(error, ProcessLost):
        # The agent saw how that one ended.
        return 1
    write_report(folder, rank, error)
    return EXIT_STOPPED if isinstance(error, Stopped) else 1


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    # Threads of a broken group of processes would keep Python from ending.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(0) if code is None else os._exit(code)
