"""Many cases predicted into one folder: what is done is kept, and bad cases stop no other.

Beside the label maps, ``.voxelsoup/{case}.json`` says what each depends on: a case is predicted
again if its files, the models or the settings have changed, or if its label map has.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import make_folder, read_json, sha256, writable, write_json
from voxelsoup.data.case import Case
from voxelsoup.data.index.check_cache import files_of, hash_files
from voxelsoup.data.index.checks import UNLABELLED, Expected, check_case, without_absent
from voxelsoup.data.layouts.case_names import FORMER_RECORDS, RECORDS
from voxelsoup.models import devices
from voxelsoup.prediction.outcomes import CaseOutcome, Outcome, files_of_prediction
from voxelsoup.prediction.predictor import PredictionSettings, Predictor
from voxelsoup.prediction.scans import record_of, refuse_other_inputs
from voxelsoup.runs.lease import Owner

# Part of a prediction's key: to be raised whenever label maps come out differently.
VERSION = 2
EXPECTED = Expected(frozenset(), "predict")
# The challenges take *{ID}-{timepoint}.nii.gz, and of the MEN-RT task four digits and one.
BRATS_NAME = re.compile(r"(.*\D)?(\d{5}-\d{3}|\d{4}-\d)")

SCRATCH, OWNER = "voxelsoup-scratch-", "owner.json"

Naming = Literal["case", "brats"]


@dataclass(frozen=True)
class PredictionProgress:
    """What is called while cases are predicted: ``advanced`` with the present case and the share of
    it that is done, ``finished`` with the outcome of each case.
    """

    advanced: Callable[[str, float], None] = field(default=lambda case, share: None)
    finished: Callable[[CaseOutcome], None] = field(default=lambda outcome: None)


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

    def files_of(self, case: str) -> tuple[Path, Path | None]:
        """The label map of a case, and its probabilities if they are asked for."""
        labels, *more = files_of_prediction(self.folder, case, self.probabilities)
        return labels, more[0] if more else None

    def record_of(self, case: str) -> Path:
        """What the prediction of a case depends on and took."""
        return record_of(self.folder, case)

    @property
    def scratch(self) -> Path:
        """The folder for what does not stay in memory: $TMPDIR, or one beside the records."""
        given = os.environ.get("TMPDIR")
        return Path(given) if given else self.folder / RECORDS


def predict_cases(
    cases: Sequence[Case],
    settings: PredictionSettings,
    output: OutputSettings,
    device: torch.device,
    progress: PredictionProgress,
) -> list[CaseOutcome]:
    """Predict cases (``scans.find_scans``) one after the other; returns an outcome for each.

    Raises InputError if the folder cannot be made, or another scan's label map is in the place of
    one (``scans.refuse_other_inputs``).
    """
    if not output.overwrite:
        refuse_other_inputs(cases, output.folder)
    for folder in (output.folder, output.scratch):
        with writable(folder):
            make_folder(folder)
    # Links followed: OUTPUT may be the folder of the scans under another name.
    scans = {source.file.resolve() for case in cases for source in case.channels.values()}
    outcomes = []
    with scratch_folder(output.scratch) as scratch:
        predictor = Predictor(settings, device, scratch)
        for case in cases:
            began = time.monotonic()
            progress.advanced(case.name, 0.0)
            notes: tuple[str, ...] = ()
            problem = None
            try:
                result, notes = _predict(case, predictor, output, scans, progress)
            except (InputError, MemoryError, RuntimeError) as error:
                result = "bad"
                if isinstance(error, InputError):
                    problem = error
                elif devices.ran_out_of_memory(error):
                    problem = _too_large(case, error)
                else:
                    raise
            seconds = time.monotonic() - began
            outcomes.append(CaseOutcome(case.name, result, seconds, problem, notes))
            progress.finished(outcomes[-1])
    return outcomes


def _predict(
    case: Case,
    predictor: Predictor,
    output: OutputSettings,
    scans: Collection[Path],
    progress: PredictionProgress,
) -> tuple[Outcome, tuple[str, ...]]:
    """What became of a case, and the notes of its check."""
    accept = predictor.settings.accept
    if accept.missing_channels:
        case = without_absent(case)
    digest = hash_files(files_of(case))
    key = _key(case, digest, predictor.settings)
    if digest and not output.overwrite and _is_done(case.name, key, output):
        return "kept", ()
    _clear_place(case, key, output, scans)
    _check_name(case, output.naming)
    if case.problem is not None:
        raise case.problem
    findings = check_case(case, replace(EXPECTED, accept=accept))[0]
    case = case.lacking(findings.accepted.get("missing_channels", []))
    notes = tuple(note for note in findings.notes if note != UNLABELLED)
    labels, probabilities = output.files_of(case.name)
    content: dict[str, Any] = {
        "case": case.name,
        "key": key,
        "directory": str(Path.cwd()),
        "files": {name: str(source) for name, source in case.channels.items()},
        "sha256": digest,
        **predictor.settings.as_record(),
        "device": str(predictor.device),
    }
    # Before the label map, so that what a killed process leaves is known as its own.
    write_json(output.record_of(case.name), content)
    began = time.monotonic()
    predicted = predictor.predict(
        case.channels,
        labels,
        probabilities,
        lambda share: progress.advanced(case.name, share),
        case.missing,
    )
    content |= {
        "labels_sha256": sha256(labels),
        "probabilities_sha256": None if probabilities is None else sha256(probabilities),
        "windows": predicted.windows,
        "skipped_windows": predicted.skipped,
        "voxels": {str(value): count for value, count in predicted.voxels.items()},
        "seconds": round(time.monotonic() - began, 2),
    }
    write_json(output.record_of(case.name), content)
    return "predicted", notes


def _clear_place(case: Case, key: str, output: OutputSettings, scans: Collection[Path]) -> None:
    """Remove an outdated prediction; refuse to replace anything that was not predicted here.

    A label map of another model must not stay where its case can no longer be predicted. Scans of
    any case are never removed: ``scans`` names their files, links followed.
    """
    record = output.record_of(case.name)
    written = files_of_prediction(output.folder, case.name, probabilities=True)
    foreign = not record.exists() and not output.overwrite
    for path in written:
        if path.resolve() in scans or (foreign and path.exists()):
            raise InputError(
                path,
                "already exists and was not predicted here",
                "a separate folder for predictions",
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
            "is not a name that the BraTS challenges accept",
            "a name that ends in the case's number and its timepoint, as BraTS-GLI-00001-000 does",
            "rename the case's folder or files, or leave --naming brats out",
        )


def _key(case: Case, digest: str, settings: PredictionSettings) -> str:
    # Places within files belong to it: components of one file may be named in another order.
    parts: list[object] = [source.component for source in case.channels.values()]
    parts += sorted(case.missing)
    content = json.dumps([VERSION, digest, parts, settings.as_record()])
    return hashlib.sha256(content.encode()).hexdigest()


def _is_done(case: str, key: str, output: OutputSettings) -> bool:
    try:
        record = output.record_of(case)
        if not record.exists():
            record = output.folder / FORMER_RECORDS / record.name
        content = read_json(record)
        labels, probabilities = output.files_of(case)
        files = {labels: content["labels_sha256"]}
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


@contextmanager
def scratch_folder(place: Path) -> Iterator[Path]:
    """A folder below ``place`` for what does not fit into memory; removed at the end.

    A killed process leaves its folder, which may hold a large scan: the next one on the same
    machine removes it. Whether a process of another machine lives cannot be seen from here.
    """
    for left in place.glob(f"{SCRATCH}*"):
        if _is_abandoned(left):
            shutil.rmtree(left, ignore_errors=True)
    owner = Owner.this_process()
    folder = place / f"{SCRATCH}{owner.id}"
    try:
        with writable(folder):
            folder.mkdir()
            write_json(folder / OWNER, asdict(owner))
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    try:
        return Owner(**read_json(folder / OWNER)).is_dead()
    except (OSError, ValueError, TypeError):
        return False
