"""Sliding windows: those of MONAI, some rows after the other, with memory bounded by the patch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import sliding_window_inference
from torch import nn

from references.sliding_window import blended
from voxelsoup.evaluation.sliding_window import Covered, Windows, predict_logits, predict_rows

REGIONS = 3


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv3d(2, REGIONS, 3, padding=1).eval()


@torch.inference_mode()
def by_monai(
    network: nn.Module, image: torch.Tensor, patch: list[int], overlap: float, batch: int
) -> torch.Tensor:
    found = sliding_window_inference(
        image[None], patch, batch, network, overlap=overlap, mode="gaussian"
    )
    assert isinstance(found, torch.Tensor)
    return found[0]


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(st.integers(5, 40), st.integers(5, 20), st.integers(5, 20)),
    patch=st.tuples(*3 * [st.integers(4, 16)]),
    overlap=st.sampled_from([0, 0.25, 0.5, 0.6, 0.9]),
    batch=st.integers(1, 5),
)
def test_logits_match_monai(
    network: nn.Module,
    shape: tuple[int, ...],
    patch: tuple[int, ...],
    overlap: float,
    batch: int,
) -> None:
    if overlap == 0.9:
        shape = tuple(min(side, 12) for side in shape)
    image = torch.randn(2, *shape)
    found = predict_logits(network, image, REGIONS, [*patch], overlap, batch)
    expected = by_monai(network, image, [*patch], overlap, batch)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert found.shape == (REGIONS, *shape)


@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(*3 * [st.integers(3, 12)]),
    patch=st.tuples(*3 * [st.integers(3, 8)]),
    overlap=st.sampled_from([0, 0.25, 0.5, 0.7]),
)
def test_logits_match_the_papers_reference(
    network: nn.Module, shape: tuple[int, ...], patch: tuple[int, ...], overlap: float
) -> None:
    image = torch.randn(2, *shape)

    def one_window(window: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(window).float()[None])[0].double().numpy()

    expected = blended(one_window, image.double().numpy(), patch, overlap)
    found = predict_logits(network, image, REGIONS, [*patch], overlap, 3)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def rows_of(
    network: nn.Module, image: torch.Tensor, windows: Windows, reports: list[Covered]
) -> torch.Tensor:
    pieces = predict_rows(
        network,
        REGIONS,
        lambda start, stop: image[:, start:stop],
        image.shape[1:],
        windows,
        reports.append,
    )
    known = torch.full((REGIONS, *image.shape[1:]), torch.nan)
    following = 0
    for row, logits in pieces:
        assert row == following
        known[:, row : row + logits.shape[1]] = logits
        following += logits.shape[1]
    assert following == image.shape[1]
    return known


@pytest.mark.parametrize("filled", [(0, 3), (21, 22), (57, 60), (0, 0)])
def test_skipping_windows_changes_only_empty_voxels(
    network: nn.Module, filled: tuple[int, int]
) -> None:
    image = torch.zeros(2, 60, 20, 20)
    image[:, filled[0] : filled[1], 5:8] = torch.rand(1) + 1
    reports: list[Covered] = []
    patch = [16, 8, 16]
    found = rows_of(network, image, Windows(patch, 0.5, 4, every=False), reports)
    full = by_monai(network, image, patch, 0.5, 4)
    foreground = (image != 0).any(dim=0).expand_as(found)
    torch.testing.assert_close(found[foreground], full[foreground], rtol=0, atol=1e-5)
    # Where no window reached, the probability is 0.
    unreached = torch.isinf(found)
    assert (found[unreached] < 0).all() and (torch.sigmoid(found)[unreached] == 0).all()
    assert reports[-1].windows == reports[-1].total and reports[-1].skipped > 0
    assert unreached.any() and unreached.all() == (filled == (0, 0))


def test_rows_are_read_once_per_window_and_no_further_than_the_patch(network: nn.Module) -> None:
    image, asked = torch.randn(2, 50, 16, 16), []

    def read(start: int, stop: int) -> torch.Tensor:
        asked.append((start, stop))
        return image[:, start:stop]

    for _ in predict_rows(network, REGIONS, read, (50, 16, 16), Windows([16, 8, 8], 0.5, 2)):
        pass
    assert asked == [(0, 16), (8, 24), (16, 32), (24, 40), (32, 48), (34, 50)]
