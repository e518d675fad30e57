"""Many cases predicted into one folder: what is done is kept, and bad cases stop no other.

Beside the label maps, ``.voxelsoup/{case}.json`` says what each depends on: a case is predicted
again if its files, the models or the way of predicting have changed, or if its label map has.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import make_folder, read_json, sha256, writable, write_json
from voxelsoup.data.case import Case
from voxelsoup.data.index.check_cache import files_of, hash_files
from voxelsoup.data.index.checks import Expected, check_case
from voxelsoup.data.layouts.case_names import FORMER_RECORDS, RECORDS
from voxelsoup.prediction.outcomes import CaseOutcome, Outcome, files_of_prediction
from voxelsoup.prediction.predictor import PredictionSettings, Predictor
from voxelsoup.prediction.scratch import scratch_folder

# Part of a prediction's key: to be raised whenever label maps come out differently.
VERSION = 1
UNLABELLED = Expected(frozenset(), "predict")
# The challenges take *{ID}-{timepoint}.nii.gz, and of the MEN-RT task four digits and one.
BRATS_NAME = re.compile(r"(.*\D)?(\d{5}-\d{3}|\d{4}-\d)")

Naming = Literal["case", "brats"]


@dataclass(frozen=True)
class PredictionProgress:
    """Who looks on.

    Attributes:
        share: is told the case that is worked on, and which share of it is done.
        told: is told what became of each.
    """

    share: Callable[[str, float], None] = field(default=lambda case, share: None)
    told: Callable[[CaseOutcome], None] = field(default=lambda told: None)


@dataclass(frozen=True)
class OutputSettings:
    """What is written.

    Attributes:
        folder: where label maps go, as ``{case}.nii.gz``.
        probabilities: also ``probabilities/{case}.nii.gz``.
        naming: `brats` refuses names that the challenges would not take.
        overwrite: predict finished cases again.
    """

    folder: Path
    probabilities: bool = False
    naming: Naming = "case"
    overwrite: bool = False

    def labels_of(self, case: str) -> Path:
        """The label map of a case."""
        return files_of_prediction(self.folder, case)[0]

    def probabilities_of(self, case: str) -> Path | None:
        """The probabilities of a case, if they are wanted."""
        _, *found = files_of_prediction(self.folder, case, self.probabilities)
        return found[0] if found else None

    def record_of(self, case: str) -> Path:
        """What is written down of a case."""
        return self.folder / RECORDS / f"{case}.json"

    @property
    def scratch(self) -> Path:
        """The folder for what does not stay in memory: $TMPDIR, or one beside the records."""
        given = os.environ.get("TMPDIR")
        return Path(given) if given else self.folder / RECORDS


def predict_cases(
    cases: Sequence[Case],
    way: PredictionSettings,
    wanted: OutputSettings,
    device: torch.device,
    listener: PredictionProgress,
) -> list[CaseOutcome]:
    """Predict cases one after the other.

    Args:
        cases: from ``find_scans``.
        way: how.
        wanted: what to write.
        device: where to compute.
        listener: who looks on.

    Returns:
        What became of each case, in their order.

    Raises:
        InputError: if the folder cannot be made.
    """
    for folder in (wanted.folder, wanted.scratch):
        with writable(folder):
            make_folder(folder)
    # Links followed: OUTPUT may be the folder of the scans under another name.
    scans = {source.file.resolve() for case in cases for source in case.channels.values()}
    outcomes = []
    with scratch_folder(wanted.scratch) as scratch:
        predictor = Predictor(way, device, scratch)
        for case in cases:
            began = time.monotonic()
            listener.share(case.name, 0.0)
            try:
                outcome, problem = _predict(case, predictor, wanted, scans, listener), None
            except (InputError, MemoryError, torch.OutOfMemoryError) as error:
                outcome = "bad"
                problem = error if isinstance(error, InputError) else _too_large(case, error)
            told = CaseOutcome(case.name, outcome, time.monotonic() - began, problem)
            listener.told(told)
            outcomes.append(told)
    return outcomes


def _predict(
    case: Case,
    predictor: Predictor,
    wanted: OutputSettings,
    scans: Collection[Path],
    listener: PredictionProgress,
) -> Outcome:
    digest = hash_files(files_of(case))
    key = _key(case, digest, predictor.way)
    if digest and not wanted.overwrite and _is_done(case.name, key, wanted):
        return "kept"
    _make_way(case, key, wanted, scans)
    _check_name(case, wanted.naming)
    if case.problem is not None:
        raise case.problem
    check_case(case, UNLABELLED)
    labels, probabilities = wanted.labels_of(case.name), wanted.probabilities_of(case.name)
    content: dict[str, Any] = {
        "case": case.name,
        "key": key,
        "files": {name: str(source) for name, source in case.channels.items()},
        "sha256": digest,
        **predictor.way.as_record(),
        "device": str(predictor.device),
    }
    # Before the label map: what a killed process leaves is told from what others have put there.
    write_json(wanted.record_of(case.name), content)
    began = time.monotonic()
    predicted = predictor.predict(
        case.channels, labels, probabilities, lambda share: listener.share(case.name, share)
    )
    content |= {
        "labels_sha256": sha256(labels),
        "probabilities_sha256": None if probabilities is None else sha256(probabilities),
        "windows": predicted.windows,
        "skipped_windows": predicted.skipped,
        "voxels": {str(value): count for value, count in predicted.voxels.items()},
        "seconds": round(time.monotonic() - began, 2),
    }
    write_json(wanted.record_of(case.name), content)
    return "predicted"


def _make_way(case: Case, key: str, wanted: OutputSettings, scans: Collection[Path]) -> None:
    """Remove what was predicted of other files or by other models; refuse to replace anything else.

    A label map that stays where its case cannot be predicted any more would be taken for its own.
    Scans, of whichever case, are never removed: ``scans`` names the files, links followed.
    """
    record = wanted.record_of(case.name)
    written = files_of_prediction(wanted.folder, case.name, probabilities=True)
    foreign = not record.exists() and not wanted.overwrite
    for path in written:
        if path.resolve() in scans or (foreign and path.exists()):
            raise InputError(
                path,
                "is there already, and was not predicted here",
                "a folder of its own for predictions",
                "name another OUTPUT, or move the file away",
            )
    if _key_of(record) != key:
        for path in (*written, record):
            path.unlink(missing_ok=True)


def _key_of(record: Path) -> str | None:
    try:
        content = read_json(record)
    except (OSError, ValueError):
        return None
    return str(content["key"]) if isinstance(content, dict) and "key" in content else None


def _check_name(case: Case, naming: Naming) -> None:
    if naming == "brats" and not BRATS_NAME.fullmatch(case.name):
        raise InputError(
            case.name,
            "is no name that the BraTS challenges take",
            "a name that ends in the case's number and its timepoint, as BraTS-GLI-00001-000 does",
            "rename the case's folder or files, or leave --naming brats out",
        )


def _key(case: Case, digest: str, way: PredictionSettings) -> str:
    # Places within files belong to it: components of one file may be named in another order.
    parts = [source.component for source in case.channels.values()]
    content = json.dumps([VERSION, digest, parts, way.as_record()])
    return hashlib.sha256(content.encode()).hexdigest()


def _is_done(case: str, key: str, wanted: OutputSettings) -> bool:
    try:
        record = wanted.record_of(case)
        if not record.exists():
            record = wanted.folder / FORMER_RECORDS / record.name
        content = read_json(record)
        files = {wanted.labels_of(case): content["labels_sha256"]}
        probabilities = wanted.probabilities_of(case)
        if probabilities is not None:
            files[probabilities] = content["probabilities_sha256"]
        return content["key"] == key and all(
            sha256(path) == digest for path, digest in files.items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _too_large(case: Case, error: Exception) -> InputError:
    return InputError(
        next(iter(case.channels.values())).file,
        f"does not fit into memory: {str(error).splitlines()[0] if str(error) else 'none is left'}",
        "a volume, and windows, that fit into the memory of the machine and its GPU",
        "take a smaller --window-batch, --device cpu, or a machine with more memory",
    )
