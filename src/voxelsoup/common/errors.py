"""The exceptions that users meet, and errors described as data."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# What an InputError is made of, and what results from before the project's renaming call its fix.
PARTS = ("where", "found", "expected", "fix")
FORMER_FIX = "mend"


class InputError(Exception):
    """Something the user gave is not usable; the message says what, where and how to fix it.

    Scripts and commands print the message alone, without a traceback: a traceback means a
    defect in voxelsoup, an ``InputError`` means something that the user can put right.
    """

    def __init__(self, where: str | Path, found: str, expected: str, fix: str) -> None:
        """``where`` is the file, or the file and key, that holds the mistake."""
        self.where = str(where)
        self.found = found
        self.expected = expected
        self.fix = fix
        super().__init__(f"{self.where}: {found}\n  expected: {expected}\n  fix: {fix}")

    @classmethod
    def from_record(cls, record: Mapping[str, str]) -> InputError:
        """Read back what ``as_record`` wrote; further keys are ignored."""
        fix = record["fix"] if "fix" in record else record[FORMER_FIX]
        return InputError(record["where"], record["found"], record["expected"], fix)

    def as_record(self) -> dict[str, str]:
        """Its parts, for a row of a table or a JSON file."""
        return {part: getattr(self, part) for part in PARTS}

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, str, str]]:
        """Let the exception travel between processes: pickle would call it with the message."""
        return InputError, (self.where, self.found, self.expected, self.fix)


class CodeChanged(InputError):
    """The code was changed under a running study."""


class GpuMemoryFull(InputError):
    """A training did not fit into the memory of its GPU; another attempt may find more of it."""


class CardTooSmall(GpuMemoryFull):
    """A training did not fit although it had its GPU for itself: it needs a larger one."""


# What `CardTooSmall` is once it is known that there is no larger one.
NO_LARGER_CARD = "NoLargerCard"
# Errors by their names, as they are written down, that another attempt would end with too.
FINAL = (CodeChanged.__name__, "Diverged", NO_LARGER_CARD)


class Stopped(Exception):
    """Work that ends early although nothing is wrong: it is to be done again later.

    Scripts print the message alone and end with ``EXIT_STOPPED``, so that a workflow manager
    takes the job for failed and repeats it.
    """


# sysexits.h: EX_TEMPFAIL, a failure that a later try may not meet.
EXIT_STOPPED = 75


class BadCases(InputError):
    """Several cases of a data set cannot be used; lists every one with its reason."""

    def __init__(self, where: str | Path, problems: dict[str, InputError], fix: str) -> None:
        """Build one message out of ``problems``, case name -> what is wrong with it."""
        listing = "\n".join(
            f"  - {case}: {problem.where}: {problem.found} (expected: {problem.expected})"
            for case, problem in problems.items()
        )
        reasons = sorted({problem.fix for problem in problems.values()})
        super().__init__(
            where,
            f"{len(problems)} case(s) cannot be used\n{listing}",
            "every case readable and consistent",
            "; ".join([*reasons, fix]),
        )
        self.problems = problems


@dataclass(frozen=True)
class ErrorDescription:
    """An exception as data.

    Attributes:
        where: the innermost line of voxelsoup or of a script above it, as ``augment.py line 33``.
    """

    kind: str
    message: str
    where: str = ""
    fix: str = ""


def describe(error: BaseException) -> ErrorDescription:
    """An exception as data."""
    # Others may have been given one (``training.out_of_memory``).
    fix = getattr(error, "fix", "")
    message = f"{error.where}: {error.found}" if isinstance(error, InputError) else str(error)
    kind = type(error).__name__
    return ErrorDescription(kind, message or kind, _place(error), fix)


def _place(error: BaseException) -> str:
    """The innermost line of an exception's traceback in voxelsoup or in a script."""
    return place_of(traceback.extract_tb(error.__traceback__))


def place_of(stack: traceback.StackSummary) -> str:
    """The innermost line of a stack in voxelsoup or in a script, as ``augment.py line 33``."""
    # All that a job's script does happens within its log (`logs.job_log`).
    log = str(Path(__file__).with_name("logs.py"))
    frames = [f for f in stack if f.filename != log]
    package = str(Path(__file__).parents[1])
    own = [frame for frame in frames if frame.filename.startswith(package)]
    others = [f for f in frames if "site-packages" not in f.filename and "<" not in f.filename]
    chosen = (own or others)[-1:]
    return "".join(f"{Path(frame.filename).name} line {frame.lineno}" for frame in chosen)
