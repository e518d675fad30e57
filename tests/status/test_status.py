"""The status of runs: of real ones, trained, stopped, killed and half written."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from support.runs import SETTINGS, preprocess_phantom
from support.studies import wait_for
from support.watched_study import RATES, Study, training
from voxelsoup.commands.cli import main
from voxelsoup.common import provenance
from voxelsoup.common.errors import NO_LARGER_CARD, ErrorDescription, InputError, describe
from voxelsoup.common.files import read_json, writable, write_json, write_text
from voxelsoup.common.logs import job_log
from voxelsoup.evaluation.case_scores import mean_dice, read_rows, write_rows
from voxelsoup.runs import record as record_module
from voxelsoup.runs.failures import SlurmJob, end_of_attempt
from voxelsoup.runs.guard import RunGuard
from voxelsoup.runs.invocation import (
    INVOCATION,
    Invocation,
    note_submissions,
    write_invocation,
)
from voxelsoup.runs.lease import Lease, LeaseTaken, LeaseView, Owner
from voxelsoup.runs.record import RECORD, Attempt, Recorder, RunRecord, read_record
from voxelsoup.runs.resume_state import State
from voxelsoup.runs.run_state import Circumstances, Queue, RunFacts, plan, run_condition
from voxelsoup.runs.signals import Interrupted
from voxelsoup.runs.snapshot import write_snapshot
from voxelsoup.status import terminal
from voxelsoup.status.filters import checked
from voxelsoup.status.rows import HeadJob, RunRow, StudyStatus
from voxelsoup.status.slurm_jobs import parse_queue, why_pending

HERE = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def cases(phantom_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("preprocessed")
    return folder, preprocess_phantom(phantom_folder, folder)


@pytest.fixture(autouse=True)
def every_epoch_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs take milliseconds here, and are recorded once a second at most."""
    monkeypatch.setattr(record_module, "SECONDS_BETWEEN_EPOCHS", 0.0)


@pytest.fixture
def study(tmp_path: Path, cases: tuple[Path, list[str]]) -> Study:
    return Study(tmp_path, cases)


def at_step(step: int, happens: Callable[[RunGuard], object]) -> Callable[..., RunGuard]:
    """A real guard in whose run something happens after a step."""

    class Disturbed(RunGuard):
        def after_step(self, number: int, capture: Callable[[], State]) -> None:
            if number == step:
                happens(self)
            super().after_step(number, capture)

    return Disturbed


def interrupt(_: RunGuard) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def fail(_: RunGuard) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


# --- states -----------------------------------------------------------------------------------


def test_a_run_waits_runs_and_is_done(study: Study) -> None:
    stem = study.names[0]
    assert [row.state for row in study.reader.look().rows] == ["waiting"] * 3
    seen: list[RunRow] = []
    study.train(stem, at_step(7, lambda guard: seen.append(study.row(stem))))
    (running,) = seen
    assert (running.state, running.epoch, running.epochs) == ("running", 2, 3)
    assert (running.host, running.gpu, running.attempt) == (socket.gethostname(), "cpu", 1)
    done = study.row(stem)
    assert (done.state, done.epoch, done.detail) == ("done", 3, "")
    history = pd.read_csv(study.states(stem) / "history.csv")
    assert done.training_loss == pytest.approx(history["training_loss"].iloc[-1])
    assert done.epochs_per_hour is not None and done.epochs_per_hour > 0
    assert done.started is not None and done.estimated_end is None


def test_the_state_is_being_saved_while_it_is(study: Study) -> None:
    stem, seen = study.names[0], []

    class Looked(RunGuard):
        def _write(self, step: int, state: State) -> None:
            seen.append(study.row(stem).state)
            super()._write(step, state)

    study.train(stem, Looked)
    assert seen == ["saving"]


def test_a_stopped_run_is_cancelled_and_then_resumed(study: Study) -> None:
    name = study.names[1]
    with pytest.raises(SystemExit):
        study.train(name, at_step(4, interrupt))
    stopped = study.row(name)
    assert (stopped.state, stopped.detail, stopped.epoch) == ("failed", "cancelled", 1)
    seen: list[RunRow] = []
    study.train(name, at_step(5, lambda guard: seen.append(study.row(name))))
    assert (seen[0].state, seen[0].detail) == ("resumed", "resumed after epoch 1.333")
    assert seen[0].attempt == 2
    record = read_record(study.states(name))
    assert record is not None
    assert [attempt.to_epoch for attempt in record.attempts] == [1, 2]
    assert record.attempts[0].stop is not None and record.attempts[1].stop is None


def test_a_failed_run_waits_for_its_next_attempt_as_long_as_there_is_one(study: Study) -> None:
    name = study.names[1]
    snakemake = study.snakemake_lives(retries=1)
    with pytest.raises(torch.OutOfMemoryError):
        study.train(name, at_step(1, fail))
    row = study.row(name)
    assert (row.state, row.detail) == (
        "waiting",
        "out of memory on the GPU; attempt 2 of 2 follows",
    )
    # Until it is known that there is no larger card.
    log = Path(study.known(name).newest_log)
    log.parent.mkdir(parents=True, exist_ok=True)
    write_json(log.with_suffix(".error.json"), asdict(ErrorDescription(NO_LARGER_CARD, "full")))
    assert study.row(name).state == "failed"
    log.with_suffix(".error.json").unlink()
    seen: list[RunRow] = []

    def look_and_fail(guard: RunGuard) -> None:
        seen.append(study.row(name))
        fail(guard)

    with pytest.raises(torch.OutOfMemoryError):
        study.train(name, at_step(1, look_and_fail))
    assert (seen[0].state, seen[0].detail) == ("retrying", "2 of 2")
    row = study.row(name)
    assert (row.state, row.detail) == ("failed", "out of memory on the GPU")
    assert "training.batch_size" in row.fix
    # Another Snakemake tries again.
    snakemake.release()
    snakemake = study.snakemake_lives(retries=0)
    row = study.row(name)
    assert (row.state, row.detail) == ("waiting", "earlier: out of memory on the GPU")
    snakemake.release()
    assert study.row(name).state == "failed"


def test_a_killed_run_is_lost_at_once_where_its_process_can_be_seen(study: Study) -> None:
    with training(study) as process:
        row = study.row("fold0/stem")
        assert row.state == "running"
        assert row.estimated_end is not None
        assert row.estimated_end > datetime.now(UTC) + timedelta(seconds=10)
        process.kill()
        process.join()
        row = study.row("fold0/stem")
        assert row.state == "lost"
        assert row.detail == f"died: process {process.pid} on {socket.gethostname()}"
        assert row.epoch > 1


def test_a_run_whose_heartbeat_stopped_is_lost_after_the_time_of_a_lease(study: Study) -> None:
    with training(study, lease_seconds=2) as process:
        os.kill(process.pid, signal.SIGSTOP)
        wait_for(lambda: study.row("fold0/stem").state == "lost", seconds=20)
        assert "no sign of life since" in study.row("fold0/stem").detail
        os.kill(process.pid, signal.SIGCONT)
        wait_for(lambda: study.row("fold0/stem").state == "running", seconds=20)


def answers(study: Study, name: str, capsys: pytest.CaptureFixture[str]) -> dict[str, bool]:
    """The answer of every command: whether a trial of the study is at work."""
    capsys.readouterr()
    trial, lease_seconds = name.removeprefix("fold0/"), study.settings.recovery.lease_seconds
    assert main(["status", str(study.file), "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert main(["trials", str(study.file), "--json"]) == 0
    listed = {one["id"]: one for one in json.loads(capsys.readouterr().out)["trials"]}
    assert rows[name]["state"] == listed[trial]["state"] in ("running", "lost")
    # A study that does not name the trial.
    other = study.folder / "other.yaml"
    content = yaml.safe_load(study.file.read_text())
    other.write_text(yaml.safe_dump(content | {"sweep": {"grid": {"optimizer.lr": [0.5]}}}))
    assert main(["prune", str(other)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if trial in line]
    run, states = study.run(name), str(study.states(name))
    planned = plan(states, run.epochs, run.settings(), lease_seconds)
    successor = Lease(study.states(name), lease_seconds, wait=False)
    try:
        successor.acquire()
        taken = False
        successor.release()
    except LeaseTaken:
        taken = True
    return {
        "status": rows[name]["state"] == "running",
        "trials": listed[trial]["state"] == "running",
        "prune": "in use" in line,
        "plan": planned.startswith("takes over from process"),
        "lease": taken,
    }


def test_a_stopped_process_is_lost_in_every_command(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    name = study.names[1]
    with training(study, lease_seconds=2, name=name) as process:
        assert set(answers(study, name, capsys).values()) == {True}
        os.kill(process.pid, signal.SIGSTOP)
        wait_for(lambda: study.row(name).state == "lost", seconds=20)
        assert set(answers(study, name, capsys).values()) == {False}
        # The successor has had the lease meanwhile: what was stopped ends and writes nothing more.
        os.kill(process.pid, signal.SIGCONT)
        process.join(60)
        assert process.exitcode == 75


def test_a_run_elsewhere_is_judged_by_its_heartbeat_alone(study: Study) -> None:
    stem = study.names[0]
    states = study.states(stem)
    here = Owner.this_process()
    elsewhere = replace(here, host="a001", boot="another", process=1)
    Recorder(states, elsewhere, steps=9).start()
    lease = states / "lease.000001"
    write_json(lease, vars(elsewhere))
    assert study.row(stem).state == "running"
    late = time.time() - 61
    os.utime(lease, (late, late))
    assert study.row(stem).state == "lost"
    assert "on a001" in study.row(stem).detail


def test_the_files_of_a_run_may_be_cut_off_anywhere(study: Study) -> None:
    study.train(study.names[0])
    known = study.known(study.names[0])
    write_text(Path(known.folder, "selection.csv"), "case,region,dice,loss\nc,WT,0.5,0.7\n")
    files = [Path(known.states, RECORD), Path(known.folder, "run.json")]
    files += [Path(known.states, "history.csv"), Path(known.folder, "selection.csv")]
    files += sorted(Path(known.states).glob("lease.*"))
    for file in files:
        whole = file.read_bytes()
        for length in sorted({0, 1, len(whole) // 2, max(0, len(whole) - 1)}):
            file.write_bytes(whole[:length])
            row = next(iter(study.reader.look(curves=True).rows))
            assert row.state in ("done", "waiting"), (file, length)
        file.write_bytes(whole)
    assert study.row(study.names[0]).state == "done"


def test_status_leaves_a_study_unchanged(study: Study) -> None:
    study.train(study.names[0])

    def everything() -> dict[str, int]:
        return {str(p): p.stat().st_mtime_ns for p in study.folder.rglob("*") if p.is_file()}

    before = everything()
    study.reader.look(curves=True)
    assert everything() == before


def test_results_without_a_record_are_done_all_the_same(study: Study) -> None:
    study.train(study.names[0])
    for file in study.states(study.names[0]).iterdir():
        file.unlink()
    row = study.row(study.names[0])
    assert (row.state, row.epoch, row.gpu) == ("done", 3, "cpu")
    assert row.training_loss is not None and row.started is not None


def test_a_run_that_is_to_be_longer_is_not_done(study: Study) -> None:
    study.train(study.names[0])
    longer = Study(study.folder, study.cases, stem={"epochs": 5})
    row = longer.row(study.names[0])
    assert (row.state, row.epoch, row.epochs) == ("waiting", 3, 5)


def test_the_record_of_a_run_is_its_owners_alone(study: Study) -> None:
    """A run that was taken over writes nothing there any more."""
    stem = study.names[0]
    successor = replace(Owner.this_process(), id="successor")

    def take_over(guard: RunGuard) -> None:
        Recorder(guard.folder, successor, guard.steps).start()
        write_json(guard.folder / "lease.000009", vars(successor))

    with pytest.raises(SystemExit):
        study.train(stem, at_step(3, take_over))
    record = read_record(study.states(stem))
    assert record is not None
    assert (record.state, record.attempts[-1].owner.id) == ("running", "successor")


def test_a_full_disk_loses_the_record_and_not_the_run(study: Study, caplog: Any) -> None:
    stem = study.names[0]
    # A folder in the file's place: it can be neither written nor replaced.
    blocked = study.states(stem) / RECORD
    (blocked / "inside").mkdir(parents=True)
    study.train(stem)
    assert "could not be written" in caplog.text
    assert study.row(stem).state == "done"


# --- scores -----------------------------------------------------------------------------------


def test_the_score_is_the_mean_dice_of_the_best_model_so_far(
    tmp_path: Path, cases: tuple[Path, list[str]]
) -> None:
    training = SETTINGS["training"] | {"checkpoints": 2}
    study = Study(tmp_path, cases, training=training, soup={"weights": ["averaged", "raw"]})
    known = study.known(study.names[1])
    chance = torch.Generator().manual_seed(0)
    best = best_loss = 0.0
    for model in ["", "averaged-1", "raw-1", "raw-2"]:
        rows = []
        for case in ("one", 'a "quoted", one', "three"):
            loss = float(torch.rand((), generator=chance))
            for region in ("TC", "WT", "ET"):
                dice = float(torch.rand((), generator=chance))
                rows.append({"case": case, "region": region, "dice": dice, "loss": loss})
        if model == "raw-1":
            rows = [row for row in rows if '"' not in str(row["case"])]
        path = Path(known.folder, model, "selection.csv")
        write_rows(path, pd.DataFrame(rows))
        written = read_rows(path)
        score = mean_dice(written)
        if score > best:
            best, best_loss = score, float(written.drop_duplicates("case")["loss"].mean())
        row = study.row(study.names[1])
        assert row.selection_score == pytest.approx(best, abs=1e-12)
        assert row.selection_loss == pytest.approx(best_loss, abs=1e-12)
    # A model that the study does not name is not one of its run.
    assert study.row(study.names[2]).selection_score is None


def test_a_finish_is_a_row_like_any_other_with_its_score_once_the_rates_were_compared(
    tmp_path: Path, cases: tuple[Path, list[str]]
) -> None:
    study = Study(tmp_path, cases, soup={"finish": {"epochs": 2, "rates": RATES}})
    names = [f"fold0/finish/{start}/{rate}" for start in ("greedy", "best") for rate in RATES]
    assert study.names[-4:] == names
    assert {study.row(name).state for name in names} == {"waiting"}
    for name in names:
        result = {"epochs": 2, "device": "cpu", "machine": provenance.machine()}
        result |= {"started": provenance.now(), "ended": provenance.now()}
        write_json(Path(study.known(name).folder, "run.json"), result)
    row = study.row(names[0])
    assert (row.state, row.epoch, row.epochs) == ("done", 2, 2)
    assert (row.selection_score, row.detail) == (None, "")
    tried = [
        {"lr": rate, "selection_score": score, "taken_from": f"finish/greedy/{rate}"}
        for rate, score in zip(RATES, (0.8, 0.9), strict=True)
    ]
    plain = [{key: one[key] for key in ("lr", "selection_score")} for one in tried]
    soups = Path(study.settings.results, "fold0/soups")
    write_json(soups / "finished/recipe.json", {"finish": {"lr": RATES[1], "tried": plain}})
    write_json(soups / "finished-best/recipe.json", {"finish": {"lr": RATES[1], "tried": tried}})
    rows = [study.row(name) for name in names]
    assert [row.selection_score for row in rows] == [0.8, 0.9, 0.8, 0.9]
    as_greedy = [f"as finish/greedy/{rate}" for rate in RATES]
    assert [row.detail for row in rows] == ["", "chosen", as_greedy[0], f"chosen, {as_greedy[1]}"]


def test_the_score_is_over_the_cases_in_which_a_region_is_annotated(
    tmp_path: Path, cases: tuple[Path, list[str]]
) -> None:
    study = Study(tmp_path, cases, dataset=SETTINGS["dataset"] | {"not_annotated": {"b": ["TC"]}})
    rows = pd.DataFrame(
        [
            {"case": case, "region": region, "dice": dice, "loss": loss}
            for case, loss, dice_scores in (
                ("a", 0.5, {"TC": 0.25, "WT": 0.5, "ET": 1.0}),
                ("b", 0.25, {"WT": 0.75, "ET": 0.5}),
            )
            for region, dice in dice_scores.items()
        ]
    )
    write_rows(Path(study.known(study.names[1]).folder, "selection.csv"), rows)
    row = study.row(study.names[1])
    assert row.selection_score == pytest.approx(mean_dice(rows), abs=1e-12)
    assert row.selection_loss == pytest.approx(0.375, abs=1e-12)


# --- failures ---------------------------------------------------------------------------------


def test_a_loss_that_is_nan_is_reported_with_its_fix(
    tmp_path: Path, cases: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    study = Study(tmp_path, cases, optimizer={"name": "sgd", "schedule": "constant", "lr": 1e30})
    stem = study.names[0]
    with pytest.raises(SystemExit):
        study.train(stem)
    row = study.row(stem)
    assert (row.state, row.detail) == ("failed", "diverged")
    assert "lower `optimizer.lr`" in row.fix
    capsys.readouterr()
    assert main(["status", str(study.file), "fold0/stem"]) == 0
    shown = capsys.readouterr().out
    assert "why: diverged" in shown and "fix: lower `optimizer.lr`" in shown
    assert "the training loss is NaN or infinite" in shown
    assert "went back once" in shown
    epochs, settings = study.known(stem).epochs, study.run(stem).settings()
    states = str(study.states(stem))
    assert plan(states, epochs, settings, 60) == "is known to diverge at epoch 1, step 2"
    settings["optimizer"] = settings["optimizer"] | {"lr": 0.01}
    assert plan(states, epochs, settings, 60) == f"trains {epochs} epochs"


def test_a_trial_that_the_study_goes_on_without_is_shown_as_diverged(
    tmp_path: Path, cases: tuple[Path, list[str]]
) -> None:
    study = Study(tmp_path, cases, optimizer={"name": "sgd", "schedule": "constant"})
    name = study.names[1]
    diverged = {"epochs": study.known(name).epochs, "diverged": {"epoch": 2, "step": 5}}
    times = dict.fromkeys(("started", "ended"), provenance.now())
    write_json(Path(study.known(name).folder, "run.json"), diverged | times)
    row = study.row(name)
    assert (row.state, row.detail, row.epoch) == ("diverged", "at epoch 2, step 5", 1)
    status = study.reader.look()
    assert terminal.summary(status) == "0 of 3 done, 2 waiting, 1 diverged"


def test_a_defect_is_reported_with_its_line(study: Study) -> None:
    stem = study.names[0]
    training = study.settings.training.model_copy(update={"precision": "no such precision"})
    study.settings = study.settings.model_copy(update={"training": training})
    with pytest.raises(KeyError):
        study.train(stem)
    row = study.row(stem)
    assert row.state == "failed"
    assert re.match(r"error at devices\.py line \d+: ", row.detail)


def ended(error: BaseException, **changes: Any) -> Attempt:
    """An attempt that ended with an exception just now."""
    now = provenance.now()
    attempt = Attempt(started=now, owner=Owner.this_process(), ended=now, stop=describe(error))
    return replace(attempt, **changes)


def no_space() -> BaseException:
    try:
        with writable(Path("results")):
            raise OSError(28, "No space left on device")
    except InputError as error:
        return error


@pytest.mark.parametrize(
    ("error", "words", "fix"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "out of memory on the GPU", "bfloat16"),
        (RuntimeError("CUDA error: out of memory"), "out of memory on the GPU", "patch"),
        (MemoryError(), "out of main memory", "resources.training.mem_mb"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
            "out of main memory",
            "resources.training.mem_mb",
        ),
        (no_space(), "disk full", "free some space"),
        (Interrupted("stopped by SIGTERM"), "cancelled", "start again"),
        (InputError("a.npy", "is broken", "a whole file", "copy it"), "a.npy: is broken", "copy"),
    ],
)
def test_the_end_of_an_attempt_is_explained_in_words(
    error: BaseException, words: str, fix: str
) -> None:
    failure = end_of_attempt(ended(error), None)
    assert failure is not None
    assert failure.words == words
    assert fix in failure.fix


def test_slurms_state_explains_an_interrupted_attempt() -> None:
    attempt = ended(Interrupted("stopped by SIGTERM"))
    for state, words in (
        ("TIMEOUT", "time limit"),
        ("CANCELLED", "cancelled"),
        ("PREEMPTED", "preempted by another job"),
    ):
        failure = end_of_attempt(attempt, SlurmJob("1", state))
        assert failure is not None and failure.words == words
    # Without Slurm's record the time limit explains it.
    failure = end_of_attempt(replace(attempt, time_limit=attempt.ended), None)
    assert failure is not None and failure.words == "time limit"


def test_a_job_that_fails_before_its_training_leaves_the_reason_as_data(
    study: Study,
) -> None:
    log = Path(study.known(study.names[0]).log)
    with pytest.raises(SystemExit), job_log(log):
        raise InputError("fold0.json", "has no cases", "some cases", "make it again")
    row = study.row(study.names[0])
    assert (row.state, row.detail, row.fix) == (
        "failed",
        "fold0.json: has no cases",
        "make it again",
    )
    with pytest.raises(KeyError), job_log(log):
        raise KeyError("weights")
    row = study.row(study.names[0])
    assert row.state == "failed"
    assert re.fullmatch(r"error at test_status\.py line \d+: 'weights'", row.detail)
    with pytest.raises(SystemExit), job_log(log):
        raise Interrupted("stopped by SIGTERM")
    assert study.row(study.names[0]).state == "waiting"
    # Its next attempt begins, and has not failed.
    with job_log(log):
        assert study.row(study.names[0]).state == "waiting"
        assert sorted(log.parent.iterdir()) == [log]


def test_a_newer_job_of_a_run_counts_more_than_its_last_attempt() -> None:
    began = datetime.now(UTC) - timedelta(minutes=5)
    snakemake = Invocation("study.yaml", "slurm", 2, began.isoformat(), "login", 1, ["name"])
    owner = replace(Owner.this_process(), job="7")
    attempt = ended(Interrupted("stopped by SIGTERM"), owner=owner)
    record = RunRecord("stopped", attempt.started, steps=9, attempts=[attempt])
    facts = RunFacts("fold0/stem", 3, False, record, LeaseView(owner, time.time(), released=True))

    def described(*jobs: SlurmJob) -> tuple[str, str]:
        queue = Queue({job.id: job for job in jobs}, {"fold0/stem": jobs[-1]})
        condition = run_condition(facts, Circumstances(time.time(), 60, snakemake, True, queue))
        return condition.state, condition.detail

    timeout = SlurmJob("7", "TIMEOUT")
    assert described(timeout) == ("waiting", "time limit; attempt 2 of 3 follows")
    pending = SlurmJob("8", "PENDING", waits_for="others come first")
    assert described(timeout, pending) == ("queued", "attempt 2 of 3, others come first")
    requeued = replace(pending, id="7", waits_for="its start time has not come")
    assert described(requeued) == ("queued", "attempt 2 of 3, its start time has not come")
    assert described(timeout, replace(pending, state="RUNNING")) == ("retrying", "2 of 3, starting")
    # No failure of the run: it goes on beyond the attempts that are allowed.
    preempted = SlurmJob("7", "PREEMPTED")
    assert described(preempted) == ("waiting", "preempted by another job; it is submitted again")
    failed = replace(pending, state="NODE_FAIL")
    assert described(timeout, failed) == ("waiting", "node failure; attempt 3 of 3 follows")


def test_squeue_is_read_with_separators_in_comments() -> None:
    printed = "7|PENDING|gpu|Priority|rule_run_a|b fold0/stem fold1/3b2a69b9\n\nslurm: no\n"
    (job,) = parse_queue(printed).values()
    assert (job.id, job.waits, job.partition) == ("7", True, "gpu")
    assert job.runs == ("fold0/stem", "fold1/3b2a69b9")
    assert job.waits_for == "others come first"
    assert why_pending("ReqNodeNotAvail, UnavailableNodes:a1") == "its nodes are down or reserved"
    assert why_pending("QOSMaxJobsPerUserLimit") == (
        "a limit of your account (QOSMaxJobsPerUserLimit)"
    )
    assert why_pending("SomethingNew") == "SomethingNew"


# --- what is chosen ---------------------------------------------------------------------------


def made_up(number: int, **changes: Any) -> RunRow:
    parameters = {"optimizer.lr": RATES[number % 2], "training.loss": "dice"}
    row = RunRow(0, f"{number:08x}", parameters, "waiting", epochs=10)
    return replace(row, **changes)


ROWS = [
    RunRow(0, "stem", {}, "done", epoch=3, epochs=3, selection_score=0.7),
    made_up(1, state="running", epoch=4, selection_score=0.8, host="a2"),
    made_up(2, state="resumed", epoch=6, selection_score=0.9, host="a1"),
    made_up(3, state="failed", detail="out of memory on the GPU", epoch=1, fold=2),
    made_up(4),
]


def chosen(
    sort: str = "", states: str = "", folds: str = "", where: tuple[str, ...] = ()
) -> list[int]:
    """Which of ``ROWS`` are shown, in their order."""
    return [ROWS.index(row) for row in checked(sort, states, folds, where, ROWS).of(ROWS)]


def test_runs_are_filtered() -> None:
    assert chosen() == [0, 1, 2, 3, 4]
    assert chosen(states="running,failed") == [1, 2, 3]
    assert chosen(states="resumed") == [2]
    assert chosen(folds="2") == [3]
    assert chosen(where=("optimizer.lr=0.01",)) == [2, 4]
    assert chosen(where=("lr=1e-2", "loss=dice"), folds="0") == [2, 4]


def test_runs_are_sorted_and_what_is_unknown_comes_last() -> None:
    assert chosen(sort="score") == [0, 1, 2, 3, 4]
    assert chosen(sort="-score") == [2, 1, 0, 3, 4]
    assert chosen(sort="-epoch") == [2, 1, 0, 3, 4]
    assert chosen(sort="optimizer.lr") == [2, 4, 1, 3, 0]
    assert chosen(sort="host") == [2, 1, 0, 3, 4]
    assert chosen(sort="state") == [3, 2, 1, 4, 0]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"states": "runing"}, "waiting, queued, running"),
        ({"folds": "1"}, "one of 0, 2"),
        ({"sort": "speeed"}, "optimizer.lr"),
        ({"where": ("lr=0.5",)}, "one of 0.02, 0.01"),
        ({"where": ("batch=1",)}, "one of optimizer.lr, training.loss"),
        ({"where": ("lr",)}, "KEY=VALUE"),
    ],
)
def test_a_wrong_choice_names_the_possible_ones(options: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=re.escape(named)):
        chosen(**options)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nowhere"], "fold0/stem"),
        (["fold0"], "is several runs"),
        (["--watch", "0"], "seconds above 0"),
        (["--limit", "0"], "1 or more"),
        (["fold0/stem", "--state", "done"], "leave out the other options"),
        (["fold0/stem", "fold0/other"], "one run at most"),
    ],
)
def test_a_wrong_option_gives_one_message(
    study: Study, capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    assert main(["status", str(study.file), *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("voxelsoup: ") and named in captured.err


# --- what is shown ----------------------------------------------------------------------------


def status_of(rows: list[RunRow], **changes: Any) -> StudyStatus:
    now = datetime.now(UTC).astimezone()
    return StudyStatus("study.yaml", "results", now, rows, 0.0, 0.0, **changes)


def test_the_summary_counts_runs_and_predicts_the_end() -> None:
    end = datetime.now(UTC).astimezone() + timedelta(days=2)
    status = replace(status_of(ROWS, estimated_end=end), gpu_hours=212.4)
    assert terminal.summary(status) == (
        f"1 of 5 done, 2 running, 1 waiting, 1 failed · 212 GPU hours · ends about {end:%a %H:%M}"
    )


@pytest.mark.parametrize(
    ("state", "node", "detail", "line"),
    [
        ("RUNNING", "c1", "", "running on c1 since {since}; follow it: tail -F results/head.log"),
        ("PENDING", "", "others come first", "pending (others come first); follow it: tail -F "),
        ("stopped", "", "", "stopped; log: results/head.log"),
    ],
)
def test_a_submitted_study_says_where_its_snakemake_runs(
    state: str, node: str, detail: str, line: str
) -> None:
    since = datetime.now(UTC).astimezone() if node else None
    log = str(Path("results/head.log").absolute())
    status = status_of(ROWS, head=HeadJob("4711", state, node, since, detail, log))
    expected = f"head job 4711: {line.format(since=f'{since:%H:%M}' if since else '')}"
    assert terminal.head_line(status).startswith(expected)
    assert terminal.plain_table(status, ROWS).splitlines()[1] == terminal.head_line(status)


def test_runs_on_several_gpus_take_the_hours_of_all(
    tmp_path: Path, cases: tuple[Path, list[str]]
) -> None:
    study = Study(tmp_path, cases, resources={"training": {"gpu": 2}})
    study.device = "NVIDIA H100", 0
    study.train(study.names[0])
    looked = study.reader.look()
    assert 0 < looked.gpu_hours == 2 * looked.hours


def test_the_plain_table_is_complete(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    study.train(study.names[0])
    capsys.readouterr()
    assert main(["status", str(study.file)]) == 0
    summary, _, head, *lines = capsys.readouterr().out.splitlines()
    assert summary.startswith("1 of 3 done, 2 waiting")
    assert {"run", "id", "state", "loss", "started", "remark"} <= set(head.split())
    # All trials have the same seed: it distinguishes none.
    called = ["fold 0, stem", "fold 0, lr 0.01", "fold 0, lr 0.02"]
    for line, label, name in zip(lines, called, study.names, strict=True):
        assert re.match(rf"{re.escape(label)} +{name} ", line)
    assert not any("\x1b" in line for line in lines)


def test_json_is_for_scripts(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    study.train(study.names[0])
    capsys.readouterr()
    assert main(["status", str(study.file), "--json", "--state", "done"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["counts"] == {"done": 1, "waiting": 2}
    (row,) = status["rows"]
    assert (row["name"], row["epoch"]) == ("fold0/stem", 3)
    assert datetime.fromisoformat(row["started"]).tzinfo is not None
    assert main(["status", str(study.file), "--json", study.names[0]]) == 0
    run = json.loads(capsys.readouterr().out)
    assert len(run["losses"]) == 3
    assert run["record"]["attempts"][0]["owner"]["process"] == os.getpid()


def test_one_run_is_shown_with_all_its_details(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    name = study.names[1]
    with pytest.raises(SystemExit):
        study.train(name, at_step(4, interrupt))
    study.train(name)
    capsys.readouterr()
    # By the beginning of its id, and by the path of its results.
    for called in (name[:-2], study.known(name).folder):
        assert main(["status", str(study.file), called]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith(f"fold 0, lr 0.01  {name}  done")
        assert re.search(r"optimizer\.lr +0\.01", shown)
        assert re.search(r"^1 .* 0 to 1 .* cancelled", shown, re.MULTILINE)
        assert re.search(r"^2 .* 1 to 2 .* finished", shown, re.MULTILINE)
        assert "█" in shown and "epoch 2 of 2   loss" in shown


class Terminal:
    """The command in a real terminal of a size."""

    def __init__(self, width: int, height: int, *arguments: str) -> None:
        self.process, self.file = pty.fork()
        if self.process == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
            command = [sys.executable, "-m", "voxelsoup.commands.cli", "status", *arguments]
            environment = {"TERM": "xterm-256color", "PYTHONPATH": str(HERE.parent / "src")}
            # Its size is asked of the terminal alone.
            kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
            os.execve(sys.executable, command, kept | environment)
        self.shown = b""

    @property
    def seen(self) -> str:
        """What it has shown so far, without colours; a letter may be on its way still."""
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.shown.decode(errors="ignore"))

    def read(self, until: Callable[[str], bool] = lambda seen: False) -> str:
        """What it has shown so far, without colours, once that is enough or it has ended."""
        with suppress(OSError):
            while not until(self.seen):
                content = os.read(self.file, 65536)
                if not content:
                    break
                self.shown += content
        return self.seen.replace("\r", "")

    def end(self) -> int:
        """Its exit code."""
        self.read()
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_a_terminal_shows_what_fits_and_never_wraps(study: Study, width: int) -> None:
    study.train(study.names[0])
    seen = Terminal(width, 30, str(study.file)).read()
    *_, head, first, second, third = seen.splitlines()
    assert max(map(len, (head, first, second, third))) <= width, seen
    for line, called, state in zip(
        (first, second, third),
        ("fold 0, stem ", "fold 0, lr 0.01 ", "fold 0, lr 0.02 "),
        ("done", "waiting", "waiting"),
        strict=True,
    ):
        assert line.startswith(called) and state in line
    assert ("started" in head) == (width >= 120)
    assert "3/3" in first


def test_watching_refreshes_in_place_until_it_is_ended(
    tmp_path: Path, cases: tuple[Path, list[str]]
) -> None:
    grid = {"optimizer.lr": [round(0.001 * n, 3) for n in range(1, 41)]}
    study = Study(tmp_path, cases, sweep={"grid": grid})
    shown = Terminal(100, 20, str(study.file), "--watch", "0.2")
    shown.read(lambda seen: "more runs are not shown" in seen)
    assert "0 of 41 done, 41 waiting" in shown.seen
    assert "28 more runs are not shown" in shown.seen
    study.train(study.names[0])
    shown.read(lambda seen: "1 of 41 done, 40 waiting" in seen)
    os.kill(shown.process, signal.SIGINT)
    assert shown.end() == 0
    assert "Traceback" not in shown.seen
    # What was seen last stays.
    assert "1 of 41 done" in shown.seen.splitlines()[-18]


def test_watching_without_a_terminal_prints_again_and_again(study: Study) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "voxelsoup.commands.cli",
            "status",
            study.file,
            "--json",
            "--watch",
            "0.1",
        ],
        env=os.environ | {"PYTHONPATH": str(HERE.parent / "src")},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for _ in range(3):
        assert json.loads(process.stdout.readline())["counts"] == {"waiting": 3}
    process.terminate()
    assert process.wait(timeout=60) == 0


def test_status_survives_a_closed_pipe_and_an_ascii_terminal(study: Study) -> None:
    status = f"{sys.executable} -m voxelsoup.commands.cli status"
    command = f"{status} {study.file} --json --watch 0.01 | head -1"
    environment = os.environ | {"PYTHONPATH": str(HERE.parent / "src"), "PYTHONIOENCODING": "ascii"}
    piped = ["bash", "-o", "pipefail", "-c", command]
    result = subprocess.run(piped, env=environment, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
    printed = command.replace("--json --watch 0.01 | head -1", "fold0/stem")
    study.train(study.names[0])
    result = subprocess.run(printed.split(), env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert "?" in result.stdout


def test_status_reports_a_study_without_results(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", str(study.file)]) == 0
    assert "there is no folder" in capsys.readouterr().out


def test_snakemakes_start_is_written_down_with_the_names_of_its_jobs(tmp_path: Path) -> None:
    for number in range(12):
        write_invocation(tmp_path, "study.yaml", "slurm", 2, f"name{number}")
    written = read_json(tmp_path / INVOCATION)
    assert written["slurm_names"] == [f"name{number}" for number in range(2, 12)]
    assert (written["retries"], written["process"]) == (2, os.getpid())


def test_what_slurm_refuses_is_shown_as_long_as_it_holds_the_study_up(study: Study) -> None:
    states = Path(study.settings.results, ".state")
    lease = study.snakemake_lives(retries=2)
    note_submissions(states, "3 waiting to be submitted: QOSMaxSubmitJobPerUserLimit", False)
    assert study.reader.look().note.endswith("submitted: QOSMaxSubmitJobPerUserLimit")
    # One that was killed while it waited submits nothing any more.
    lease.release()
    assert study.reader.look().note == ""
    note_submissions(states, "ended: Invalid qos specification", True)
    assert study.reader.look().note == "Slurm: ended: Invalid qos specification"
    note_submissions(states, "", False)
    assert study.reader.look().note == ""


def test_the_help_names_all_options() -> None:
    from voxelsoup.commands.status import add_options

    parser = argparse.ArgumentParser()
    add_options(parser)
    for option in ("--sort", "--state", "--fold", "--where", "--limit", "--watch", "--json"):
        assert option in parser.format_help()


def test_a_study_that_was_edited_after_its_start_is_said(
    cases: tuple[Path, list[str]], tmp_path: Path
) -> None:
    study = Study(tmp_path, cases)
    write_snapshot(Path(study.settings.results), {}, [study.file])
    assert study.reader.look().note == ""
    study.file.write_text(study.file.read_text() + "# the next experiment\n")
    assert re.match(
        "study.yaml was changed after the start of .*, whose jobs go by the study as it was",
        study.reader.look().note,
    )
