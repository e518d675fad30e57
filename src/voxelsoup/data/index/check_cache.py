"""Verdicts on cases, kept from one run of the index to the next.

A file of one JSON object per line. Lines are only appended while cases are checked, so that an
index that was killed goes on where it stood; of several lines of one case the last one holds.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import sha256, writable, write_text
from voxelsoup.data.case import Case, IndexedCase, Source
from voxelsoup.data.index.checks import VERSION, Expected, Findings, check_case
from voxelsoup.data.volumes.volume import TooLarge, joint_hash

Signature = list[list[int]]


@dataclass(frozen=True)
class CheckResult:
    """What was found of one case, and what that depends on.

    Attributes:
        case: the case's name.
        question: hash over all that the verdict depends on beside the contents of the files.
        signature: size, dates of change (ns) and inode of each file, in the order of
            ``files_of``; None if one cannot be read, which may be another thing next time.
        sha256: ``joint_hash`` of all files, in the same order; empty if one cannot be read.
        outcome: what the check has found, or why the case cannot be used.
    """

    case: str
    question: str
    signature: Signature | None
    sha256: str
    outcome: Findings | InputError


def judge(case: Case, expected: Expected, root: Path, earlier: CheckResult | None) -> CheckResult:
    """The verdict on a case: the earlier one if its files still hold the same, else a new one.

    Args:
        case: the case.
        expected: what it is checked against.
        root: folder of the data set.
        earlier: the verdict of an earlier run, if there is one.
    """
    question = question_of(case, expected, root)
    # Before anything is read: whatever changes a file from now on changes its signature.
    signature = signature_of(case)
    known = earlier if earlier and earlier.sha256 and earlier.question == question else None
    if known and hash_files(files_of(case)) == known.sha256:
        return replace(known, signature=signature)
    # Problems are returned, so that those of all cases can be listed at once.
    try:
        findings, content = check_case(case, expected)
    except TooLarge as problem:
        # Told from the header: to hash the file would be to read it. And who has more memory
        # asks again.
        return CheckResult(case.name, question, None, "", problem)
    except InputError as problem:
        content = hash_files(files_of(case)) if signature else ""
        return CheckResult(case.name, question, signature if content else None, content, problem)
    return CheckResult(case.name, question, signature, content, findings)


def is_current(verdict: CheckResult | None, case: Case, expected: Expected, root: Path) -> bool:
    """Whether a verdict holds without a look into the files.

    The date of a file's last change of state (ctime) is among what is compared: a tool may put
    the date of its content back, but not this one.
    """
    return (
        verdict is not None
        and verdict.signature is not None
        and verdict.question == question_of(case, expected, root)
        and verdict.signature == signature_of(case)
    )


def question_of(case: Case, expected: Expected, root: Path) -> str:
    """A hash over what a verdict depends on beside contents: names, labels and the checks."""
    asked = {
        "version": VERSION,
        "channels": {name: _below(str(s), root) for name, s in case.channels.items()},
        "label": _below(str(case.label), root) if case.label else None,
        "labels": sorted(expected.labels),
        "unlabelled": expected.unlabelled,
    }
    return _digest(asked)


def files_of(case: Case | IndexedCase) -> list[Path]:
    """The files of a case, each once: channels in their order, then the label map."""
    sources: list[Source] = [*case.channels.values()]
    if case.label is not None:
        sources.append(case.label)
    return list(dict.fromkeys(source.file for source in sources))


def signature_of(case: Case) -> Signature | None:
    """Size, dates of change and inode of a case's files; None if one cannot be looked at."""
    signature = []
    for file in files_of(case):
        try:
            status = file.stat()
        except (OSError, ValueError):
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        signature.append([status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino])
    return signature


def hash_files(files: Iterable[Path]) -> str:
    """A hash over the contents of files, in their order; empty if one cannot be read."""
    try:
        return joint_hash(map(sha256, files))
    except OSError:
        return ""


def read_verdicts(path: Path, root: Path) -> dict[str, CheckResult]:
    """Read the kept verdicts: case name -> the newest one; damaged lines are left out.

    Args:
        path: the file; one that is not there holds none.
        root: folder of the data set, below which most problems lie.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    verdicts = {}
    for line in lines:
        try:
            verdict = _from_line(line, root)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        verdicts[verdict.case] = verdict
    return verdicts


def write_verdicts(path: Path, verdicts: Iterable[CheckResult], root: Path) -> None:
    """Write these verdicts and no others, whole or not at all."""
    write_text(path, "".join(_to_line(verdict, root) for verdict in verdicts))


@contextmanager
def appending(path: Path) -> Iterator[TextIO]:
    """Open the file of verdicts to append to it with ``append``."""
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as stream:
            # A killed run may have left a line without its end.
            stream.write("\n")
            yield stream


def append(stream: TextIO, verdict: CheckResult, root: Path) -> None:
    """Append one verdict, for good even if this process is killed right after."""
    stream.write(_to_line(verdict, root))
    stream.flush()


def _to_line(verdict: CheckResult, root: Path) -> str:
    outcome = verdict.outcome
    content: dict[str, Any] = {
        "case": verdict.case,
        "question": verdict.question,
        "signature": verdict.signature,
        "sha256": verdict.sha256,
    }
    if isinstance(outcome, InputError):
        # Below the data set's folder, which may have moved when the verdict is read.
        where = [_below(outcome.where, root), outcome.found, outcome.expected, outcome.fix]
        content["problem"] = where
    else:
        content["findings"] = asdict(outcome)
    return json.dumps({"digest": _digest(content), "verdict": content}) + "\n"


def _from_line(line: str, root: Path) -> CheckResult:
    whole = json.loads(line)
    content = whole["verdict"]
    if whole["digest"] != _digest(content):
        raise ValueError("the line is not as it was written")
    outcome: Findings | InputError
    if "problem" in content:
        where, found, expected, fix = content["problem"]
        outcome = InputError(str(root / where), found, expected, fix)
    else:
        findings = content["findings"]
        x, y, z = findings["shape"]
        dx, dy, dz = findings["spacing"]
        outcome = Findings(
            (x, y, z),
            (dx, dy, dz),
            findings["labels"],
            tuple(findings["notes"]),
            findings["voxels"],
        )
    return CheckResult(
        content["case"], content["question"], content["signature"], content["sha256"], outcome
    )


def _below(path: str, root: Path) -> str:
    """A path as seen from the data set's folder, if it lies below it."""
    return str(Path(path).relative_to(root)) if Path(path).is_relative_to(root) else path


def _digest(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
