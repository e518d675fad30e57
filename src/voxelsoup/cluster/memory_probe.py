"""A training of a study, measured on a node with a card: what ``voxelsoup doctor --probe`` says."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from voxelsoup.cluster import node_probe
from voxelsoup.cluster.partitions import Check, Submission
from voxelsoup.common.errors import InputError
from voxelsoup.common.separate_process import without_extras
from voxelsoup.planning.training_memory import (
    MemoryNeed,
    TrainingShape,
    gib,
    largest_need,
)
from voxelsoup.study.study import Study
from voxelsoup.study.trials import Trial

MODULE = "voxelsoup.training.measured_memory"
# Longer than the first kernels of a large network take on a cold node.
MINUTES = 10


def check_measured_memory(
    study: Study,
    trials: Sequence[Trial],
    partition: str,
    submission: Submission,
    options: list[str],
    results: Path,
    seconds: float,
) -> Iterator[Check]:
    """Train two steps of the study's largest training on a partition, and compare the estimate.

    ``submission`` is what the study will submit there; ``options`` are those of ``srun`` with a
    GPU. So many ``seconds`` are waited for a free node.
    """
    what = f"partition {partition}: a training is measured on its GPU"
    try:
        shape, need = largest_need(study, trials)
        report = _on_node(shape, options, submission, results, seconds)
    except InputError as error:
        where = f"partition {partition}"
        yield Check(what, InputError(where, error.found, error.expected, error.fix))
        return
    yield _judge(what, shape, need, report)


def _on_node(
    shape: TrainingShape,
    options: list[str],
    submission: Submission,
    results: Path,
    seconds: float,
) -> dict[str, Any]:
    new = not results.exists()
    folder = results / f".doctor-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True)
        asked = folder / "training.json"
        asked.write_text(json.dumps(shape.as_json()), encoding="utf-8")
        command = without_extras(MODULE, str(asked.absolute()))
        mem_mb = int(submission.resources["mem_mb"])
        minutes = min(MINUTES, int(submission.resources["runtime"]))
        return node_probe.run_on_node(options, command, seconds, mem_mb, minutes)
    except OSError as error:
        raise InputError(
            results,
            f"cannot be written here: {error.strerror}",
            "a folder that you may write to",
            "correct `results` in the study, or the folder's permissions",
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if new and results.is_dir() and not any(results.iterdir()):
            results.rmdir()


def _judge(what: str, shape: TrainingShape, need: MemoryNeed, report: dict[str, Any]) -> Check:
    where = f"node {report['node']}"
    if report["card"] is None:
        problem = InputError(
            where,
            "torch sees no GPU there, so that nothing was measured",
            "a node with a card, and a torch that is built for it",
            "the check of this partition above says why; the estimate is "
            f"{gib(need.total)} GiB for {shape}",
        )
        return Check(what, problem)
    if "error" in report:
        return Check(what, InputError.from_record(report["error"]))
    card = f"{report['card']} with {gib(report['memory'])} GiB"
    took = (
        f"{gib(report['tensors'])} GiB of tensors ({gib(need.tensors)} estimated), "
        f"{gib(report['reserved'])} reserved by torch, {gib(report['context'])} for CUDA"
    )
    if "out_of_memory" in report:
        problem = InputError(
            where,
            f"a training of {shape} does not fit into {card}: {took} when its memory was full",
            "a training that the card holds",
            "`voxelsoup check STUDY --profile PROFILE` says what would fit",
        )
        return Check(what, problem)
    return Check(f"{what}: {shape} on {card} ({report['node']}): {took}")
