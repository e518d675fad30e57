"""Questions that need torch, asked of a process of their own, whose answers are kept.

What asks stays free of torch, which takes seconds and hundreds of megabytes; where the answer is
known it takes no time at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

# Where a traceback ends with what was wrong; messages may have more lines.
ERROR = re.compile(r"[\w.]*(Error|Exception)\b")


class NoAnswer(Exception):
    """The process failed; says why in a line."""


def without_extras(module: str, *arguments: str) -> list[str]:
    """The command that runs a module's ``main`` without what MONAI imports for other parts."""
    program = (
        "from voxelsoup.common.monai_import import hide_extras_from_monai; "
        f"hide_extras_from_monai(); from {module} import main; main()"
    )
    return [sys.executable, "-c", program, *arguments]


def ask(module: str, question: Any) -> Any:
    """What a module's ``main`` prints last, as JSON, of a question that it reads as JSON.

    Raises:
        NoAnswer: if it fails.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        without_extras(module),
        input=json.dumps(question),
        capture_output=True,
        text=True,
        env=environment,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        errors = [line for line in lines if ERROR.match(line)] or lines
        raise NoAnswer((errors or [f"exit code {done.returncode}"])[-1])
    return json.loads(done.stdout.splitlines()[-1])


def kept_at(kind: str, identity: Any) -> Path:
    """Where the answer of a kind is kept for the user: named by all that it depends on."""
    text = json.dumps(identity, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:24]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return cache / "voxelsoup" / kind / f"{digest}.json"
