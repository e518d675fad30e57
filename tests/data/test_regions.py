"""Regions are unions of labels, and become one label map in a stated order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxelsoup.common.errors import InputError
from voxelsoup.data.regions import (
    label_order,
    label_table,
    parse_label_order,
    to_labels,
    to_regions,
)

BRATS = {"TC": [1, 3], "WT": [1, 2, 3], "ET": [3]}
label_values = st.lists(st.integers(1, 255), min_size=1, max_size=4, unique=True)


@given(
    st.dictionaries(st.sampled_from(["TC", "WT", "ET"]), label_values, min_size=1),
    st.lists(st.integers(0, 255), min_size=8, max_size=8),
)
def test_a_region_is_the_union_of_its_labels(regions: dict[str, list[int]], voxels: list[int]):
    label = np.array(voxels, dtype=np.uint8).reshape(2, 2, 2)
    expected = np.stack([np.isin(label, values) for values in regions.values()])
    found = to_regions(label, label_table(regions))
    assert found.dtype == bool
    np.testing.assert_array_equal(found, expected)


def test_regions_keep_their_order_and_overlap() -> None:
    label = np.array([[[0, 1, 2, 3]]], dtype=np.uint8)
    found = to_regions(label, label_table({"TC": [1, 3], "WT": [1, 2, 3], "ET": [3]}))
    assert found[:, 0, 0].astype(int).tolist() == [[0, 1, 0, 1], [0, 1, 1, 1], [0, 0, 0, 1]]


def test_larger_regions_write_first_and_smaller_ones_overwrite_them() -> None:
    assert list(label_order(BRATS).items()) == [("WT", 2), ("TC", 1), ("ET", 3)]
    after_treatment = {"RC": [4], "ET": [3], "TC": [1, 3], "WT": [1, 2, 3]}
    found = list(label_order(after_treatment).items())
    assert found == [("WT", 2), ("TC", 1), ("RC", 4), ("ET", 3)]
    assert label_order({"anterior": [1], "posterior": [2]}) == {"anterior": 1, "posterior": 2}


@given(
    st.recursive(st.just([]), lambda inner: st.lists(inner, min_size=1, max_size=3), max_leaves=8),
    st.randoms(use_true_random=False),
)
def test_a_label_map_comes_back_from_its_regions(tree: list, random) -> None:  # type: ignore[no-untyped-def]
    """Any regions that lie within one another or beside one another, in any order."""
    regions: dict[str, list[int]] = {}

    def grow(branch: list) -> list[int]:  # type: ignore[type-arg]
        own = len(regions) + 1
        name = f"r{own}"
        regions[name] = []
        regions[name] = [own, *(label for twig in branch for label in grow(twig))]
        return regions[name]

    grow(tree)
    shuffled = dict(random.sample(list(regions.items()), len(regions)))
    label = np.arange(len(regions) + 1, dtype=np.uint8).reshape(-1, 1, 1)
    masks = to_regions(label, label_table(shuffled))
    found = to_labels(masks, list(shuffled), label_order(shuffled))
    np.testing.assert_array_equal(found, label)
    assert found.dtype == np.uint8


@pytest.mark.parametrize(
    ("regions", "complaint"),
    [
        ({"A": [1, 2], "B": [2, 3]}, "`A` shares only some of its label values as `B`"),
        ({"A": [1], "B": [1]}, "`A` holds the same label values as `B`"),
        ({"A": [1, 2]}, r"`A` holds \{1, 2\} besides those of the regions inside it"),
        ({"A": [1, 2], "B": [1], "C": [2]}, "`A` holds no label value beside"),
    ],
)
def test_an_ambiguous_label_order_is_refused_and_may_be_stated(
    regions: dict[str, list[int]], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        label_order(regions)
    assert "--label-order" in caught.value.fix
    stated = ",".join(f"{name}={labels[-1]}" for name, labels in regions.items())
    found = parse_label_order(stated, regions)
    assert list(found.items()) == [(name, labels[-1]) for name, labels in regions.items()]


@pytest.mark.parametrize("stated", ["WT=2,TC=1", "WT=2,TC=1,ET=3,ET=3", "WT=4,TC=1,ET=3", "WT"])
def test_a_stated_order_names_every_region_once_with_a_value_of_its_own(stated: str) -> None:
    with pytest.raises(InputError, match="--label-order"):
        parse_label_order(stated, BRATS)


def test_later_regions_overwrite_earlier_ones() -> None:
    masks = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 1]], bool).reshape(3, 4, 1, 1)
    found = to_labels(masks, list(BRATS), {"WT": 2, "TC": 1, "ET": 3})
    assert found.ravel().tolist() == [3, 1, 2, 3]
