"""Check results of cases, kept from one run of the index to the next.

A file of one JSON object per line. Lines are only appended while cases are checked, so that an
index that was killed resumes where it stopped; of several lines of a case the last one counts.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from pydantic import TypeAdapter

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import json_sha256, sha256, writable, write_text
from voxelsoup.data.case import Case, IndexedCase
from voxelsoup.data.index.checks import VERSION, Expected, Findings, check_case
from voxelsoup.data.volumes.volume import TooLarge, joint_hash
from voxelsoup.study.sections.data import Accept

Signature = list[list[int]]
FINDINGS = TypeAdapter(Findings)


@dataclass(frozen=True)
class CheckResult:
    """What was found of one case, and what that depends on.

    Attributes:
        question: hash over all that the result depends on besides the contents of the files.
        signature: size, dates of change (ns) and inode of each file, in the order of
            ``files_of``; None if one cannot be read, which may be otherwise next time.
        sha256: ``joint_hash`` of all files, in the same order; empty if one cannot be read.
        outcome: what the check has found, or why the case cannot be used.
    """

    case: str
    question: str
    signature: Signature | None
    sha256: str
    outcome: Findings | InputError


def check_if_changed(
    case: Case, earlier: CheckResult | None, expected: Expected, root: Path
) -> CheckResult:
    """The earlier result of a case if its files still hold the same, else a new one."""
    question = question_of(case, expected, root)
    # Before anything is read: whatever changes a file from now on changes its signature.
    signature = signature_of(case)
    known = earlier if earlier and earlier.sha256 and earlier.question == question else None
    if known and hash_files(files_of(case)) == known.sha256:
        return replace(known, signature=signature)
    # Problems are returned, so that those of all cases can be listed together.
    try:
        findings, content = check_case(case, expected)
    except TooLarge as problem:
        # Known from the header, without reading the file; with more memory it is checked again.
        return CheckResult(case.name, question, None, "", problem)
    except InputError as problem:
        content = hash_files(files_of(case)) if signature else ""
        return CheckResult(case.name, question, signature if content else None, content, problem)
    return CheckResult(case.name, question, signature, content, findings)


def is_current(result: CheckResult | None, case: Case, expected: Expected, root: Path) -> bool:
    """Whether a result still holds, without a look into the files.

    The date of a file's last change of state (ctime) is compared too: a tool may put the date of
    the content back, but not this one.
    """
    return (
        result is not None
        and result.signature is not None
        and result.question == question_of(case, expected, root)
        and result.signature == signature_of(case)
    )


def question_of(case: Case, expected: Expected, root: Path) -> str:
    """A hash over what a result depends on besides contents: names, labels and the checks."""
    asked: dict[str, Any] = {
        "version": VERSION,
        "channels": {name: _below(str(s), root) for name, s in case.channels.items()},
        "label": _below(str(case.label), root) if case.label else None,
        "labels": sorted(expected.labels),
        "unlabelled": expected.unlabelled,
        **({} if expected.ignored is None else {"ignored": expected.ignored}),
        **({} if expected.stripped else {"stripped": False}),
    }
    if expected.accept != Accept():
        asked["accept"] = expected.accept.model_dump(mode="json")
        asked["missing"] = dict(case.missing)
    if expected.background:
        asked["background"] = {str(v): why for v, why in expected.background.items()}
    return json_sha256(asked)


def files_of(case: Case | IndexedCase) -> list[Path]:
    """The files of a case, each once: channels in their order, then label maps."""
    sources = [*case.channels.values(), *([case.label] if case.label else [])]
    if isinstance(case, IndexedCase) and case.consensus:
        sources += case.consensus[1]
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


def read_results(path: Path, root: Path) -> dict[str, CheckResult]:
    """The kept results: case name -> the newest one; damaged lines are left out."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    results = {}
    for line in lines:
        try:
            result = _from_line(line, root)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        results[result.case] = result
    return results


def write_results(path: Path, results: Iterable[CheckResult], root: Path) -> None:
    """Keep these results and no others."""
    write_text(path, "".join(_to_line(result, root) for result in results))


@contextmanager
def appending(path: Path) -> Iterator[TextIO]:
    """Open the file of results for ``append``."""
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as stream:
            # A killed run may have left a line without its end.
            stream.write("\n")
            yield stream


def append(stream: TextIO, result: CheckResult, root: Path) -> None:
    """Append one result, which stays even if this process is killed right after."""
    stream.write(_to_line(result, root))
    stream.flush()


def _to_line(result: CheckResult, root: Path) -> str:
    outcome = result.outcome
    content: dict[str, Any] = {
        "case": result.case,
        "question": result.question,
        "signature": result.signature,
        "sha256": result.sha256,
    }
    if isinstance(outcome, InputError):
        # Below the data set's folder, which may have moved when the result is read.
        where = [_below(outcome.where, root), outcome.found, outcome.expected, outcome.fix]
        content["problem"] = where
    else:
        content["findings"] = asdict(outcome)
    return json.dumps({"digest": json_sha256(content), "verdict": content}) + "\n"


def _from_line(line: str, root: Path) -> CheckResult:
    stored = json.loads(line)
    content = stored["verdict"]
    if stored["digest"] != json_sha256(content):
        raise ValueError("the line is not as it was written")
    outcome: Findings | InputError
    if "problem" in content:
        where, found, expected, fix = content["problem"]
        outcome = InputError(str(root / where), found, expected, fix)
    else:
        outcome = FINDINGS.validate_python(content["findings"])
    return CheckResult(
        content["case"], content["question"], content["signature"], content["sha256"], outcome
    )


def _below(path: str, root: Path) -> str:
    """A path as seen from the data set's folder, if it lies below it."""
    return str(Path(path).relative_to(root)) if Path(path).is_relative_to(root) else path
