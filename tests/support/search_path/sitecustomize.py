"""Python runs this as it starts: a process may be forked from one that has imported much.

Only where ``FORKED_FROM`` names that one's socket; see ``support.forked``.
"""

from __future__ import annotations

import os
import sys

FORKED_FROM = "VOXELSOUP_TESTS_FORKED_FROM"


def _fork(address: str) -> None:
    """Have the other process do what this one was started for, and end as it does."""
    # Other processes import nothing here.
    import json
    import signal
    import socket
    from pathlib import Path

    asked = {
        "arguments": sys.orig_argv[1:],
        "folder": str(Path.cwd()),
        "environment": dict(os.environ),
        "path": sys.path,
    }
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [b"\0"], [0, 1, 2])
        connection.sendall(json.dumps(asked).encode() + b"\n")
        with connection.makefile("r") as answers:
            process = int(next(answers))

            def pass_on(number: int, frame: object) -> None:
                os.kill(process, number)

            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
                signal.signal(number, pass_on)
            code = int(next(answers))
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _may_be_forked(arguments: list[str]) -> bool:
    """Scripts and modules; programs of `-c`, and Python with options of its own, may not."""
    return bool(arguments) and (arguments[0] == "-m" or not arguments[0].startswith("-"))


if FORKED_FROM in os.environ and _may_be_forked(sys.orig_argv[1:]):
    _fork(os.environ[FORKED_FROM])
