"""Records of predictions, a case each, and the table that they become."""

from __future__ import annotations

from pathlib import Path

import pytest

from voxelsoup.common.errors import BadCases, InputError
from voxelsoup.prediction.outcomes import CaseOutcome, refuse_bad, write_outcomes


def test_records_from_before_the_renaming_are_read(tmp_path: Path) -> None:
    problem = InputError("a.nii", "is odd", "even", "add one")
    now = CaseOutcome("b", "bad", 1.0, problem).as_record()
    before = {"mend" if key == "fix" else key: value for key, value in now.items()} | {"case": "a"}
    write_outcomes(tmp_path / "predictions.tsv", [now, before])
    with pytest.raises(BadCases) as caught:
        refuse_bad(tmp_path / "predictions.tsv")
    assert {name: p.fix for name, p in caught.value.problems.items()} == dict.fromkeys(
        "ab", "add one"
    )
