"""A run ends soon, with one message and without leftovers, whatever ends it.

``bench/run_ends.py`` tries all of them; here every end meets each number of workers, and one as
well as two processes (of which ``test_launch`` has NaN).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from support.run_ends import end_of_run
from support.runs import preprocess_phantom

COVERING = [
    ("error", 0, 1), ("error", 2, 2), ("error", 6, 1),
    ("NaN", 0, 1), ("NaN", 2, 1), ("NaN", 6, 1),
    ("TERM", 0, 2), ("TERM", 2, 1), ("TERM", 6, 1),
    ("USR1", 0, 1), ("USR1", 2, 2), ("USR1", 6, 1),
    ("worker killed", 2, 1), ("worker killed", 6, 2),
    ("parent killed", 0, 1), ("parent killed", 2, 2), ("parent killed", 6, 1),
]  # fmt: skip


@pytest.fixture(scope="module")
def cases(phantom_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("preprocessed")
    preprocess_phantom(phantom_folder, folder)
    return folder


@pytest.mark.parametrize(("end", "workers", "ranks"), COVERING)
def test_a_run_ends_soon_with_one_message_and_without_leftovers(
    cases: Path, tmp_path: Path, end: str, workers: int, ranks: int
) -> None:
    ended = end_of_run(end, workers, ranks, cases, tmp_path)
    assert not ended.fault(end), f"{ended.fault(end)}: {ended.printed}"
    # What had been trained is not lost.
    assert ended.saved > 0 or end in ("error", "NaN")
