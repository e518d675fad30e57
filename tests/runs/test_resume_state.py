"""Saved states: written atomically, damage is found, and reading them runs no code."""

from __future__ import annotations

import collections
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from voxelsoup.runs.resume_state import KEPT, newest_state, not_finite, prune_states, save_state


def state(step: int) -> dict[str, object]:
    return {
        "step": step,
        "model": {"weight": torch.full((5, 7), float(step))},
        "rows": [{"epoch": 1, "training_loss": 0.1}],
        "schedule": {"milestones": collections.Counter({3: 1})},
        "random": (3, (1, 2, 3), None),
    }


def test_a_state_survives_a_round_trip(tmp_path: Path) -> None:
    save_state(tmp_path, 12, state(12))
    found = newest_state(tmp_path)
    assert found is not None
    assert torch.equal(found.pop("model")["weight"], torch.full((5, 7), 12.0))
    assert found == {key: value for key, value in state(12).items() if key != "model"}


def test_the_newest_states_are_kept_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".000000001.state.x1.state").write_bytes(b"what a killed process left")
    for step in (5, 9, 11, 100):
        save_state(tmp_path, step, state(step))
    assert len(list(tmp_path.iterdir())) == KEPT
    found = newest_state(tmp_path)
    assert found is not None
    assert found["step"] == 100


def test_without_states_there_is_none(tmp_path: Path) -> None:
    assert newest_state(tmp_path) is None
    save_state(tmp_path, 1, state(1))
    prune_states(tmp_path, 0)
    assert newest_state(tmp_path) is None
    assert newest_state(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ([1.0, 2.0], None),
        ([], None),
        ([1.0, torch.nan], "optimizer.state.0.exp_avg"),
        ([-torch.inf, 1.0], "optimizer.state.0.exp_avg"),
    ],
)
def test_the_first_tensor_that_is_not_finite_is_named(
    value: list[float], found: str | None
) -> None:
    moments = {"exp_avg": torch.tensor(value), "step": torch.tensor(3)}
    content = {
        **state(1),
        "optimizer": {"state": {0: moments}, "param_groups": [{"lr": 0.1, "lr_max": -torch.inf}]},
    }
    assert not_finite(content) == found


def test_a_state_that_an_earlier_version_wrote_with_nan_is_passed_over(tmp_path: Path) -> None:
    save_state(tmp_path, 1, state(1))
    save_state(tmp_path, 2, state(2) | {"model": {"weight": torch.tensor([torch.nan])}})
    found = newest_state(tmp_path)
    assert found is not None
    assert found["step"] == 1


@given(place=st.floats(0, 1, exclude_max=True), cut=st.booleans(), flip=st.integers(1, 255))
def test_a_damaged_state_falls_back_to_the_one_before(
    tmp_path_factory: pytest.TempPathFactory, place: float, cut: bool, flip: int
) -> None:
    folder = tmp_path_factory.mktemp("states")
    save_state(folder, 1, state(1))
    path = save_state(folder, 2, state(2))
    content = bytearray(path.read_bytes())
    position = int(place * len(content))
    if cut:
        del content[position:]
    else:
        content[position] ^= flip
    path.write_bytes(content)
    found = newest_state(folder)
    assert found is not None
    assert found["step"] == 1
    assert not path.exists()


class Trap:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def test_reading_a_state_runs_no_code(tmp_path: Path) -> None:
    save_state(tmp_path, 1, {"trap": Trap(tmp_path / "sprung")})
    assert newest_state(tmp_path) is None
    assert not (tmp_path / "sprung").exists()
