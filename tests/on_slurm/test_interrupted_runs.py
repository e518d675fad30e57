"""Trainings on a real Slurm cluster that are interrupted: the results are the same."""

from __future__ import annotations

import dataclasses
import os
import signal

from support import slurm
from support.disturbed_studies import EPOCHS, Disturbed
from support.studies import TARGET, epochs_trained, wait_for, wait_for_epoch, write_tiny
from voxelsoup.runs.resume_state import newest_state


def test_a_run_whose_node_dies_resumes_elsewhere(study: Disturbed, cluster: slurm.Cluster) -> None:
    study.start()
    wait_for_epoch(study.states, 5)
    # Epochs are shorter than what lies between two states.
    wait_for(lambda: newest_state(study.states) is not None)
    (job,) = study.jobs("rule_stem")
    cluster.kill_node(job.node)
    try:
        study.ends_well()
        first, second = study.jobs("rule_stem")
        assert (first.state, second.state) == ("NODE_FAIL", "COMPLETED")
        assert first.node != second.node
        (_, resumed) = study.attempts()
        assert resumed.from_step > 0
    finally:
        cluster.start_node(job.node)


def test_a_cancelled_run_resumes_as_it_began_also_if_the_study_was_edited(
    study: Disturbed, cluster: slurm.Cluster
) -> None:
    study.start()
    wait_for_epoch(study.states, 5)
    (job,) = study.jobs("rule_stem")
    # The next experiment is prepared in the same file: the attempts to come must not read it.
    write_tiny(study.folder, training={"seed": 7, "steps_per_epoch": 10})
    cluster.run("scancel", str(job.id))
    study.ends_well()
    assert study.states_of("rule_stem") == ["CANCELLED", "COMPLETED"]
    assert epochs_trained(study.states) == EPOCHS
    stops = [attempt.stop for attempt in study.attempts()]
    assert [stop and stop.message for stop in stops] == ["stopped by SIGTERM", None]


def test_after_a_killed_snakemake_the_same_command_resumes(study: Disturbed) -> None:
    study.start(TARGET)
    wait_for_epoch(study.states, 5)
    # Held still until its successor is there, so that they are certain to meet.
    process = study.attempts()[0].owner.process
    os.kill(process, signal.SIGSTOP)
    assert study.process is not None
    study.process.kill()
    study.process.wait()
    (orphan,) = study.jobs("rule_stem")
    study.start(TARGET)
    wait_for(lambda: list(study.states.glob("*.wanted")))
    os.kill(process, signal.SIGCONT)
    study.ends_well()
    study.is_complete()
    # On a busy machine, the first copy has been held still for longer than its time limit.
    ended, successor = study.states_of("rule_stem")
    assert (ended in ("FAILED", "TIMEOUT"), successor) == (True, "COMPLETED")
    assert study.jobs("rule_stem")[0] == dataclasses.replace(orphan, state=ended)
    # Never at the same time: every epoch once, the first ones by the first copy.
    assert epochs_trained(study.states) == EPOCHS
    assert len({attempt.owner.id for attempt in study.attempts() if attempt.to_epoch}) == 2
