"""Averages: exact, in the stored type, and of any number of files in the same memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from references.soups import exact_mean
from voxelsoup.common.errors import InputError
from voxelsoup.models import weight_files
from voxelsoup.soups.averaging import RunningSum, WeightedModel, average, equal_parts

numbers = st.floats(-10, 10, width=32)
models = st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=1, max_size=6)


def write(folder: Path, rows: list[list[float]], kind: torch.dtype = torch.float32) -> list[Path]:
    paths = []
    for number, row in enumerate(rows):
        weights = {"w": torch.tensor(row).to(kind), "steps": torch.tensor([7 + number])}
        paths.append(folder / f"{number}.safetensors")
        weight_files.save(paths[-1], weights, {})
    return paths


def mixed(paths: list[Path], weights: list[float]) -> list[WeightedModel]:
    return [
        WeightedModel(path, path.name, weight) for path, weight in zip(paths, weights, strict=True)
    ]


@given(models)
def test_mean_is_the_exact_mean_rounded_once(rows: list[list[float]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = write(Path(folder), rows)
        found = average(equal_parts([(path, path.name) for path in paths]))
    for position, value in enumerate(found["w"].tolist()):
        exact = exact_mean([row[position] for row in rows])
        nearest = np.float32(float(exact))
        # Rounding to float64 first may put a tie on the other side.
        assert abs(np.float32(value) - nearest) <= np.spacing(abs(nearest))
    assert found["w"].dtype == torch.float32
    # Step counters cannot be averaged: the first model's are kept.
    assert found["steps"].tolist() == [7]


@given(models, st.randoms())
def test_average_does_not_depend_on_the_order_of_summing(rows: list[list[float]], random) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = write(Path(folder), rows)
        at_once = average(equal_parts([(path, path.name) for path in paths]))["w"]
        random.shuffle(paths)
        total = RunningSum()
        for path in paths[1:]:
            total.add(path)
        stepwise = total.average_with(paths[0]) if paths[1:] else average(mixed(paths, [1.0]))
    torch.testing.assert_close(stepwise["w"], at_once, rtol=2e-7, atol=1e-12)


@given(st.lists(numbers, min_size=3, max_size=3), st.integers(1, 7))
def test_the_mean_of_equal_models_is_that_model(row: list[float], count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = write(Path(folder), [row] * count)
        found = average(equal_parts([(path, path.name) for path in paths]))["w"]
    assert torch.equal(found, torch.tensor(row))


def test_average_honours_unequal_weights(tmp_path: Path) -> None:
    paths = write(tmp_path, [[1.0, 2.0, 4.0], [3.0, 2.0, 0.0]])
    found = average(mixed(paths, [0.25, 0.75]))["w"]
    assert found.tolist() == [2.5, 2.0, 1.0]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_average_keeps_the_stored_type(tmp_path: Path, kind: torch.dtype) -> None:
    paths = write(tmp_path, [[1.0, 2.0, 4.0], [3.0, 2.0, 0.0]], kind)
    found = average(equal_parts([(path, path.name) for path in paths]))["w"]
    assert found.dtype == kind
    assert found.tolist() == [2.0, 2.0, 2.0]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (path,) = write(tmp_path, [[1.0, 2.0, 3.0]])
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"0\.safetensors.*cannot be read"):
        average(mixed([path], [1.0]))
