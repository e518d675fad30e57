"""Leases: one owner at a time for a folder that several processes on several hosts can reach.

A lease is a file with a number, and the highest number holds. Taking over means to create the
next number, which the file system grants to one process only, so that there is never a moment
with two holders in agreement. The former owner sees the higher number and stops.

No clock is compared with another one: whether an owner lives is seen by its file changing
(its heartbeat), timed on the watcher's own clock.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from voxelsoup.common.errors import InputError, Stopped
from voxelsoup.common.files import writable

PREFIX = "lease."
WANTED = ".wanted"
RELEASED = ".released"
# Several beats may be missed, on a busy file server, before an owner counts as dead.
BEATS_PER_LEASE = 6
# An owner that beats but does not hand over is hung; it is fenced off after so many lease times.
PATIENCE = 10


class LeaseLost(Stopped):
    """Another process owns the folder now; this one must not write there any more."""


class LeaseTaken(Stopped):
    """Another process owns the folder, and lives."""


@dataclass(frozen=True)
class Owner:
    """The owner of a lease.

    Attributes:
        id: differs between any two processes, and between two leases of one process.
        boot: the host's boot and process namespace, within which process numbers mean something.
        started: when the process started, in clock ticks after boot; sets it apart from a later
            process of the same number.
        job: number of its SLURM job, if it is in one.
    """

    id: str
    host: str
    boot: str
    process: int
    started: int | None
    job: str | None

    @classmethod
    def this_process(cls) -> Owner:
        """The process that calls."""
        number, job = os.getpid(), os.environ.get("SLURM_JOB_ID")
        return cls(uuid.uuid4().hex, socket.gethostname(), _boot(), number, _started(number), job)

    def is_dead(self) -> bool:
        """Whether it is certain that this process has ended; only its own host knows."""
        return self.is_here() and _started(self.process) != self.started

    def is_here(self) -> bool:
        """Whether this process can see that one, alive or dead."""
        return self.started is not None and self.boot == _boot()

    def __str__(self) -> str:
        job = f", SLURM job {self.job}" if self.job else ""
        return f"process {self.process} on {self.host}{job}"


def _boot() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(process: int) -> int | None:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    # A zombie holds nothing any more. Field 22 of proc(5), counted from the third one.
    return None if fields[0] in "ZX" else int(fields[19])


@dataclass(frozen=True)
class LeaseView:
    """A lease as an observer sees it.

    Attributes:
        owner: the process that it names; None while its file is being written.
        beat: date of its last heartbeat, in seconds after 1970 by the file server's clock.
        released: whether its owner has given it back.
    """

    owner: Owner | None
    beat: float
    released: bool


def look_at(folder: str | Path) -> LeaseView | None:
    """The lease of a folder, without taking part in it; None if it was never held."""
    try:
        with os.scandir(folder) as entries:
            names = {entry.name for entry in entries if entry.name.startswith(PREFIX)}
        numbered = [name for name in names if name.removeprefix(PREFIX).isdecimal()]
        if not numbered:
            return None
        name = max(numbered, key=lambda name: int(name.removeprefix(PREFIX)))
        # Opened for the same reason as in ``_sign_of_life``.
        with open(os.path.join(folder, name), encoding="utf-8") as stream:  # noqa: PTH118, PTH123
            beat, owner = os.fstat(stream.fileno()).st_mtime, _owner_of(stream.read())
    except OSError:
        return None
    return LeaseView(owner, beat, name + RELEASED in names)


def is_alive(lease: LeaseView | None, now: float, seconds: float) -> bool:
    """Whether a living process holds a lease: the one answer for all observers.

    An owner that gave no sign of life for so many seconds before ``now`` (``server_time``) is taken
    for dead, also where its process can be seen: a stopped one cannot be distinguished from a
    hung one.
    """
    if lease is None or lease.released or (lease.owner is not None and lease.owner.is_dead()):
        return False
    return now - lease.beat <= seconds


def server_time(folder: str | Path) -> float:
    """The time by the clock that dates files in a folder, in seconds after 1970.

    Where nothing may be written there, this machine's own clock.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as stream:
            stream.write(b"now")
            stream.flush()
            os.fsync(stream.fileno())
            return os.fstat(stream.fileno()).st_mtime
    except OSError:
        return time.time()


class Lease:
    """The lease of one folder, to be held by this process.

    Use as a context: it is acquired on entering and released on leaving.
    """

    def __init__(self, folder: Path, seconds: float, wait: bool = True) -> None:
        """An owner that gives no sign of life for so many seconds is taken for dead.

        With ``wait``, a living one is asked to hand over; otherwise it is an error.
        """
        self.folder, self.seconds, self.wait = folder, seconds, wait
        self.owner = Owner.this_process()
        self.path: Path | None = None
        self.taken_from: Owner | None = None
        # As far as the last heartbeat saw: why the lease no longer holds, and whether another
        # process waits for this one to hand over.
        self.lost: str | None = None
        self.wanted = False
        self._end = threading.Event()
        self._beating: threading.Thread | None = None

    def acquire(self, keep_waiting: Callable[[], None] = lambda: None) -> None:
        """Take the lease, from a dead owner or one that hands it over.

        ``keep_waiting`` is called about once a second while waiting; it may raise to give up.

        Raises:
            LeaseTaken: if the owner lives and ``wait`` is off.
            InputError: if the folder cannot be written to.
        """
        with writable(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        while self.path is None:
            number, current = _highest(self.folder)
            if current is not None:
                self._outlast(current, keep_waiting)
            self._create(number + 1)
        for number, path in _all(self.folder):
            if number < _number(self.path):
                with suppress(OSError):
                    path.unlink()
        self._beating = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._beating.start()

    def _create(self, number: int) -> None:
        """Create the file of a number, unless another process was faster."""
        path = self.folder / f"{PREFIX}{number:06d}"
        try:
            with writable(path):
                handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return
        try:
            with writable(path), os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump(asdict(self.owner), stream)
        except InputError:
            # A file without an owner would be waited for.
            path.unlink(missing_ok=True)
            raise
        # Lower numbers are removed, so that one may be free again; the highest never is.
        if _highest(self.folder)[0] > number:
            path.unlink(missing_ok=True)
            return
        self.path = path

    def _outlast(self, path: Path, keep_waiting: Callable[[], None]) -> None:
        """Return once the owner of ``path`` has released it, is dead, or is hung."""
        began = changed = time.monotonic()
        seen = _sign_of_life(path)
        while not _beside(path, RELEASED).exists():
            owner = _read_owner(path)
            if owner is not None:
                self.taken_from = owner
                if owner.is_dead():
                    return
            now, sign = time.monotonic(), _sign_of_life(path)
            if sign is None:
                return
            beats = sign != seen
            if beats:
                seen, changed = sign, now
            # Of a process on this host one look will do.
            if not self.wait and (beats or (owner and owner.is_here() and self._is_alive())):
                raise LeaseTaken(f"{self.folder} is in use by {owner or 'another process'}")
            if now - changed > self.seconds or now - began > PATIENCE * self.seconds:
                return
            if self.wait:
                _touch(_beside(path, WANTED))
            keep_waiting()
            time.sleep(min(1.0, self.seconds / BEATS_PER_LEASE))
        self.taken_from = None

    def _is_alive(self) -> bool:
        return is_alive(look_at(self.folder), server_time(self.folder), self.seconds)

    def _beat(self) -> None:
        assert self.path is not None
        while not self._end.wait(min(10.0, self.seconds / BEATS_PER_LEASE)):
            try:
                os.utime(self.path)
            except FileNotFoundError:
                pass
            except OSError:
                # A file server that does not answer for a while; others will say if it was long.
                continue
            with suppress(OSError):
                self._look()
            if self.lost:
                return

    def _look(self) -> None:
        """See whether the lease still holds, and whether another process waits for it."""
        assert self.path is not None
        number, path = _highest(self.folder)
        if number > _number(self.path):
            successor = _read_owner(path) if path else None
            self.lost = f"{self.folder} was taken over by {successor or 'another process'}"
        elif path is None:
            self.lost = f"{self.folder} was removed, or its lease"
        self.wanted = _beside(self.path, WANTED).exists()

    def confirm(self) -> None:
        """Make sure, by looking, that the lease holds: to be called before anything is written.

        Raises:
            LeaseLost: if it does not.
        """
        if not self.lost:
            self._look()
        if self.lost:
            raise LeaseLost(self.lost)

    def release(self) -> None:
        """Let the next one have it at once."""
        self._end.set()
        if self._beating is not None:
            self._beating.join()
        if self.path is not None and self.path.exists():
            _touch(_beside(self.path, RELEASED))
        self.path = None

    def __enter__(self) -> Lease:
        if self.path is None:
            self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _all(folder: Path) -> list[tuple[int, Path]]:
    """Numbers and files of a folder's leases, with the files beside them."""
    try:
        paths = [path for path in folder.iterdir() if path.name.startswith(PREFIX)]
    except FileNotFoundError:
        return []
    return sorted((_number(path), path) for path in paths)


def _highest(folder: Path) -> tuple[int, Path | None]:
    leases = [(number, path) for number, path in _all(folder) if path.suffix[1:].isdecimal()]
    return leases[-1] if leases else (0, None)


def _number(path: Path) -> int:
    return int(path.name.removeprefix(PREFIX).partition(".")[0])


def _beside(path: Path, mark: str) -> Path:
    return path.with_name(path.name + mark)


def _touch(path: Path) -> None:
    # Only a courtesy: without it the other one waits for the heartbeat to stop.
    with suppress(OSError):
        path.touch()


def _read_owner(path: Path) -> Owner | None:
    """The owner that a lease names; None while its file is being written."""
    try:
        return _owner_of(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _owner_of(text: str) -> Owner | None:
    try:
        return Owner(**json.loads(text))
    except (ValueError, TypeError):
        return None


def _sign_of_life(path: Path) -> tuple[int, int] | None:
    """What changes with every heartbeat; None if the file is gone."""
    try:
        # Opening makes a network file system ask its server; a bare stat may be a minute old.
        with path.open("rb") as stream:
            status = os.fstat(stream.fileno())
    except FileNotFoundError:
        return None
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)
