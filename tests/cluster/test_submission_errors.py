"""What `sbatch`, `sacctmgr` and the plugin say when they refuse a job, and what it means."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from voxelsoup.cluster.submission_errors import classify
from voxelsoup.cluster.submissions import REMINDER_S, Submissions

FAILED = "sbatch: error: Batch job submission failed: "
POLICY = (
    f"{FAILED}Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
)


@pytest.mark.parametrize(
    "said",
    [
        f"sbatch: error: AssocMaxSubmitJobLimit\n{POLICY}",
        f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{POLICY}",
        f"sbatch: error: QOSGrpSubmitJobsLimit\n{POLICY}",
        POLICY,
        f"{FAILED}Unable to contact slurm controller (connect failure)",
        f"{FAILED}Socket timed out on send/recv operation",
        f"{FAILED}Zero Bytes were transmitted or received",
        f"{FAILED}Resource temporarily unavailable",
        "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying.",
        f"{FAILED}I/O error writing script/environment to file",
        f"{FAILED}No space left on device",
        "[Errno 28] No space left on device: '/work/.snakemake/slurm_logs'",
        "[Errno 122] Disk quota exceeded",
        f"{FAILED}Required partition not available (inactive or drain)",
        "The 'sacctmgr' reported: 'Unable to test the validity of the given or guessed SLURM "
        "account 'test' with sacctmgr: sacctmgr: error: slurm_persist_conn_open_without_init: "
        "failed to open persistent connection to host:localhost:6819: Connection refused'",
    ],
)
def test_what_passes_is_waited_for(said: str) -> None:
    assert classify(said).kind == "for now"


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        (f"{FAILED}Invalid account or account/partition combination specified", "slurm_account"),
        (f"{FAILED}Invalid qos specification", "slurm-qos"),
        ("The given account x appears to be invalid. Available accounts:\ntest", "slurm_account"),
        ("You are not running a supported accounting_storage plugin", "leave `slurm_account` out"),
        ("The --account option is not allowed in the 'slurm_extra' parameter.", "slurm_extra"),
        ("sbatch: unrecognized option '--foo'", "slurm_extra"),
        (f"{FAILED}Requested node configuration is not available", "resources"),
        (f"{FAILED}Requested time limit is invalid (missing or exceeds some limit)", "runtime"),
        (f"sbatch: error: QOSMaxWallDurationPerJobLimit\n{POLICY}", "resources"),
        (f"sbatch: error: AssocMaxCpuPerJobLimit\n{POLICY}", "resources"),
        (f"{FAILED}Invalid generic resource (gres) specification", "gpu_model"),
        (f"{FAILED}Invalid feature specification", "constraint"),
        (f"{FAILED}Memory specification can not be satisfied", "resources"),
        (f"{FAILED}User's group not permitted to use this partition", "doctor"),
        ("sbatch: error: invalid partition specified: foo", "sinfo"),
        ("/bin/sh: 1: sbatch: not found", "Slurm module"),
        ("[Errno 7] Argument list too long: '/bin/sh'", "slurm-pass-command-as-script"),
    ],
)
def test_what_can_never_be_accepted_has_a_fix(said: str, fix: str) -> None:
    refusal = classify(said)
    assert refusal.kind == "for good"
    assert fix in refusal.advice


def test_anything_else_is_unknown_and_keeps_its_words() -> None:
    refusal = classify(f"{FAILED}Unspecified error")
    assert (refusal.kind, refusal.said) == ("unknown", f"{FAILED}Unspecified error")


def test_the_words_are_those_of_sbatch_and_not_the_command() -> None:
    reported = (
        f"SLURM sbatch failed. The error message was '{FAILED}Invalid qos specification'.\n"
        '    sbatch call:\n        sbatch --parsable --qos=x --wrap="..."\n'
    )
    assert classify(reported).said == f"{FAILED}Invalid qos specification"


class Door:
    """A gate that refuses as it is set to; what is to happen later waits in ``due``."""

    def __init__(self, refuses: dict[str, str]) -> None:
        self.refuses = refuses
        self.due: list[tuple[float, Callable[[], None]]] = []
        self.taken: list[str] = []
        self.failed: list[str] = []
        self.dropped: list[str] = []
        self.ending = False

    def submit(self, job: str) -> str | None:
        if job in self.refuses:
            return self.refuses[job]
        self.taken.append(job)
        return None

    def fail(self, job: str, why: str) -> None:
        self.failed.append(job)

    def drop(self, job: str) -> None:
        self.dropped.append(job)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        self.due.append((seconds, action))

    def is_ending(self) -> bool:
        return self.ending

    def pass_time(self) -> float:
        """Do what is due next; returns after how many seconds."""
        seconds, action = self.due.pop(0)
        action()
        return seconds


@pytest.fixture
def log() -> logging.Logger:
    return logging.getLogger("submissions")


def test_one_waiting_job_asks_for_all_and_less_and_less_often(log: Any, caplog: Any) -> None:
    door = Door(dict.fromkeys("abc", POLICY))
    submissions = Submissions(door, log)
    assert [submissions.submit(job) for job in "abc"] == [False] * 3
    assert [door.pass_time() for _ in range(6)] == [5, 10, 20, 40, 60, 60]
    assert len(door.due) == 1
    door.refuses = {"b": POLICY}
    door.pass_time()
    # The one that is still refused goes to the end, and the pause is the shortest again.
    assert door.taken == ["a"]
    assert door.pass_time() == 5
    assert door.taken == ["a", "c"]
    door.refuses.clear()
    door.pass_time()
    assert door.taken == ["a", "c", "b"] and not door.due
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "Slurm takes no job for now",
        "Slurm takes jobs again",
    ]


def test_another_reason_is_said_and_an_old_one_again_after_a_while(
    log: Any, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("voxelsoup.cluster.submissions.time.monotonic", lambda: clock[0])
    door = Door({"a": POLICY})
    submissions = Submissions(door, log)
    submissions.submit("a")
    door.pass_time()
    door.refuses["a"] = "Socket timed out"
    door.pass_time()
    assert len(caplog.records) == 2
    clock[0] += REMINDER_S
    door.pass_time()
    assert len(caplog.records) == 3


def test_a_refusal_for_good_drops_what_waits_and_all_that_follows(log: Any, caplog: Any) -> None:
    notes: list[tuple[str, bool]] = []
    door = Door({"a": POLICY, "b": "Invalid account", "c": "Invalid account"})
    submissions = Submissions(door, log, lambda text, ends: notes.append((text, ends)))
    for job in "abcd":
        submissions.submit(job)
    assert sorted(door.dropped) == ["a", "b", "c", "d"] and not door.taken and not door.failed
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
    assert [ends for _, ends in notes] == [False, True]


def test_an_ending_workflow_drops_what_waits(log: Any) -> None:
    door = Door({"a": POLICY, "b": POLICY})
    submissions = Submissions(door, log)
    for job in "ab":
        submissions.submit(job)
    door.ending = True
    door.pass_time()
    assert sorted(door.dropped) == ["a", "b"] and not door.due
