"""The log of a job: a readable file, and a mistake of the user's as one message."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

from voxelsoup.common import plug_ins
from voxelsoup.common.code_version import check_started_with
from voxelsoup.common.errors import EXIT_STOPPED, ErrorDescription, InputError, Stopped, describe
from voxelsoup.common.files import read_json, write_json

FORMAT = "%(asctime)s %(message)s"
# Where the jobs of a study find what it was when it was started.
START_RECORD = "VOXELSOUP_START"


@contextmanager
def job_log(path: str | Path) -> Iterator[None]:
    """Write what a job logs to its file, and errors to the terminal too.

    An ``InputError`` ends the job with its message alone, and so does work that was stopped,
    with ``EXIT_STOPPED``; any other exception is a defect and keeps its traceback. Each is written
    beside the log as data too, until the job begins again (``read_error``).
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("")
    _error_file(path).unlink(missing_ok=True)
    with appended_log(path):
        try:
            if START_RECORD in os.environ:
                check_started_with(Path(os.environ[START_RECORD]))
                plug_ins.check_started_with(Path(os.environ[START_RECORD]))
            yield
        except Exception as error:
            if not isinstance(error, InputError | Stopped):
                _write_error(path, error)
                logging.exception("this is a defect in voxelsoup or in a library")
                raise
            sys.exit(report_end(path, error))


def report_end(log: str | Path, error: InputError | Stopped) -> int:
    """Write down why the job with this log ends, with its message alone; returns its exit code."""
    _write_error(log, error)
    stopped = isinstance(error, Stopped)
    logging.log(logging.INFO if stopped else logging.ERROR, "%s", error)
    print(f"\nvoxelsoup: {error}\n", file=sys.stderr, flush=True)
    return EXIT_STOPPED if stopped else 1


def _write_error(log: str | Path, error: Exception) -> None:
    # A full disk is reported nevertheless.
    with suppress(InputError, OSError):
        write_json(_error_file(log), asdict(describe(error)))


def _error_file(log: str | Path) -> Path:
    return Path(log).with_suffix(".error.json")


def read_error(log: str | Path) -> ErrorDescription | None:
    """What ended the last attempt of the job with this log; None if no exception did."""
    try:
        return ErrorDescription(**read_json(_error_file(log)))
    except (OSError, ValueError, TypeError):
        return None


def rename_error(log: str | Path, kind: str) -> None:
    """Say of what ended the last attempt of a job that it was of another kind, as is known now."""
    error = read_error(log)
    if error is not None:
        with suppress(InputError, OSError):
            write_json(_error_file(log), asdict(replace(error, kind=kind)))


@contextmanager
def appended_log(path: str | Path) -> Iterator[None]:
    """Append what is logged to a file, to which other processes may do the same."""
    to_file = _LogFile(path, mode="a", encoding="utf-8")
    to_file.setFormatter(logging.Formatter(FORMAT, datefmt="%H:%M:%S"))
    root = logging.getLogger()
    root.addHandler(to_file)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    # Remarks of libraries to their developers are noise in the log of a study.
    warnings.simplefilter("ignore", FutureWarning)
    warnings.simplefilter("ignore", DeprecationWarning)
    try:
        yield
    finally:
        root.removeHandler(to_file)
        to_file.close()


class _LogFile(logging.FileHandler):
    """A log file that a full disk leaves incomplete; the full disk itself is reported elsewhere."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Ignore it."""
