"""Regions: unions of label values that may overlap."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from voxelsoup.data.regions import label_table, to_regions

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
