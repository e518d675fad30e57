"""The version of the code by what changes numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from voxelsoup.common import code_version
from voxelsoup.common.code_version import (
    DECIDING,
    REMOVED,
    SAME_NUMBERS,
    as_of_now,
    changed_modules,
    check_started_with,
    hash_of_code,
    module_hashes,
)
from voxelsoup.common.errors import CodeChanged

CODE = '''
from typing import Any

def loss(x: float, power: int = 2) -> float:
    """The loss."""
    scale: float = 3.0
    return scale * x**power
'''


@pytest.mark.parametrize(
    "reworded",
    [
        CODE.replace("The loss.", "What is minimised."),
        CODE.replace("    return", "    # Why.\n    return"),
        CODE.replace("x: float", "x: int").replace("-> float", "-> Any"),
        CODE.replace("scale: float", "scale: int"),
        CODE.replace("from typing import Any", "from collections.abc import Iterator"),
        CODE.replace("scale * x**power", "(scale\n        * (x ** power))"),
        CODE.replace(
            "import Any", "import Any\nfrom voxelsoup.common.plug_ins import uses_plug_in"
        ),
        CODE.replace("    return", '    if uses_plug_in("losses", x):\n        x += 1\n    return'),
    ],
    ids=[
        *("docstring", "comment", "annotations", "type of a variable", "imported types", "layout"),
        *("how plug-ins are found", "what is done with plug-ins alone"),
    ],
)
def test_what_is_said_about_code_is_no_part_of_it(reworded: str) -> None:
    assert reworded != CODE
    assert hash_of_code(reworded) == hash_of_code(CODE)


@pytest.mark.parametrize(
    ("old", "new"),
    [("3.0", "3.1"), ("power: int = 2", "power: int = 3"), ("x**power", "x**-power"), ("x", "y")],
)
def test_what_code_computes_is_its_hash(old: str, new: str) -> None:
    assert hash_of_code(CODE.replace(old, new)) != hash_of_code(CODE)


def test_changed_modules_are_named_by_their_last_parts() -> None:
    before = {"models.losses": "1", "training.train": "2", "training.affine": "3"}
    now = {"models.losses": "9", "training.train": "2", "training.epochs": "3"}
    assert changed_modules(before, now) == ["affine", "epochs", "losses"]
    assert changed_modules({"plug-in a.b": "1"}, {"plug-in a.b": "2"}) == ["plug-in a.b"]


def test_results_of_code_that_changed_no_number_are_those_of_today() -> None:
    now = module_hashes(DECIDING)
    before = now | {module: next(iter(known)) for module, known in SAME_NUMBERS.items()}
    before |= dict.fromkeys(REMOVED, "any")
    assert before != now and as_of_now(before) == now
    assert changed_modules(before, now) == []
    assert changed_modules(before | {"soups.scorer": "other"}, now) == ["scorer"]


def test_a_job_with_other_code_than_its_start_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "start.json"
    record.write_text(json.dumps({"code": code_version.version()}))
    check_started_with(record)

    started = {"files": "others", "modules": module_hashes(DECIDING)}
    record.write_text(json.dumps({"code": started}))
    # Only a comment differs.
    check_started_with(record)

    started["modules"] |= {"models.losses": "other"}
    record.write_text(json.dumps({"code": started}))
    with pytest.raises(CodeChanged, match="after the study was started: losses"):
        check_started_with(record)
