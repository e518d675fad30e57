"""Batches: patches of the stored images, by number, for any number of workers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from support.runs import preprocess_phantom, small_study
from voxelsoup.data.preprocessing.store import load_case
from voxelsoup.data.regions import UNKNOWN
from voxelsoup.training.patches import Patches, PatchSource, batches, drop_channels, read_patch

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def source(phantom_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> PatchSource:
    folder = tmp_path_factory.mktemp("preprocessed")
    cases = preprocess_phantom(phantom_folder, folder)
    study = small_study(training={"augmentation": "none", "batch_size": 3})
    return PatchSource(folder, cases, study.regions, study.training, (5,))


def test_a_batch_is_its_patches(source: PatchSource) -> None:
    patches = Patches(source)
    images, labels = patches.__getitems__([4, 11, 4])
    for place, number in enumerate((4, 11, 4)):
        image, label = patches[number]
        assert torch.equal(images[place], image)
        assert torch.equal(labels[place], label)
    assert images.dtype == torch.float32 and labels.dtype == torch.uint8
    assert not torch.equal(images[0], images[1])


def test_a_patch_is_a_part_of_a_stored_case(source: PatchSource) -> None:
    image, label = Patches(source)[0]
    ((images, regions),) = batches(source, 0, 1, CPU)
    assert torch.equal(images[0], image)
    side = tuple(source.training.patch)
    found = 0
    for name in source.cases:
        case = load_case(source.folder, name)
        windows = np.lib.stride_tricks.sliding_window_view(case.image, side, axis=(1, 2, 3))
        same = (windows == image.numpy()[:, None, None, None]).all(axis=(0, 4, 5, 6))
        for start in np.argwhere(same):
            window = tuple(slice(a, a + b) for a, b in zip(start, side, strict=True))
            truth = np.stack([np.isin(case.label[window], v) for v in source.regions.values()])
            np.testing.assert_array_equal(regions[0].numpy(), truth)
            np.testing.assert_array_equal(label[0].numpy(), case.label[window])
            found += 1
    assert found == 1


def test_batches_depend_on_their_number_alone(source: PatchSource) -> None:
    whole = list(batches(source, 0, 4, CPU))
    later = list(batches(source, 2, 4, CPU))
    for (image, regions), (same_image, same_regions) in zip(whole[2:], later, strict=True):
        assert torch.equal(image, same_image)
        assert torch.equal(regions, same_regions)
    assert whole[0][0].shape[0] == 3


@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_a_patch_of_either_number_format_is_read_as_float32(tmp_path: Path, kind: str) -> None:
    np.save(tmp_path / "image.npy", np.random.default_rng(0).normal(size=(2, 9, 8, 7)).astype(kind))
    image = np.load(tmp_path / "image.npy", mmap_mode="r")
    place = np.empty((2, 4, 5, 6), np.float32)
    window = (slice(3, 7), slice(0, 5), slice(1, 7))
    read_patch(image, window, place)
    np.testing.assert_array_equal(place, image[:, 3:7, :5, 1:].astype(np.float32))


def test_regions_are_unknown_where_nobody_annotated(source: PatchSource) -> None:
    ((_, plain),) = batches(source, 0, 1, CPU)
    partly = replace(source, regions={"TC": [1], "ET": [3]}, ignored=2)
    ((_, regions),) = batches(partly, 0, 1, CPU)
    _, labels = Patches(source).__getitems__([0, 1, 2])
    unknown = (labels == 2).expand(regions.shape)
    assert unknown.any()
    assert (regions[unknown] == UNKNOWN).all()
    assert torch.equal(
        regions[~unknown], torch.cat([labels == 1, labels == 3], 1).float()[~unknown]
    )
    assert set(plain.unique().tolist()) == {0, 1}


def test_values_that_no_region_names_are_no_foreground(source: PatchSource) -> None:
    training = source.training.model_copy(update={"foreground_share": 1.0, "patch": [1, 1, 1]})
    some = replace(source, training=training, regions={"edema": [2]}, ignored=1)
    _, labels = Patches(some).__getitems__(list(range(40)))
    assert set(labels.flatten().tolist()) == {2}
    every = replace(some, regions=source.regions)
    _, labels = Patches(every).__getitems__(list(range(40)))
    assert set(labels.flatten().tolist()) == {1, 2, 3}


def test_a_share_of_the_patches_loses_one_channel_by_the_seed_alone() -> None:
    def dropped(seed: int) -> torch.Tensor:
        images = torch.ones(400, 4, 2, 2, 2)
        drop_channels(images, 0.25, [seed])
        return images.flatten(2).sum(2)

    sums = dropped(0)
    assert set(sums.unique().tolist()) == {0, 8}
    lost = (sums == 0).sum(1)
    assert set(lost.tolist()) == {0, 1} and 70 < lost.sum() < 130
    # Each channel is lost about as often.
    assert (sums == 0).sum(0).min() > 10
    assert torch.equal(sums, dropped(0)) and not torch.equal(sums, dropped(1))


def test_a_region_that_is_not_annotated_in_a_case_is_unknown_in_its_patches_alone(
    source: PatchSource,
) -> None:
    hidden = {case: ["ET"] for case in source.cases[::2]}
    partly = replace(source, not_annotated=hidden)
    plain, masked = (list(batches(one, 0, 6, CPU)) for one in (source, partly))
    kinds = set()
    for step, ((image, regions), (same_image, known)) in enumerate(zip(plain, masked, strict=True)):
        assert torch.equal(image, same_image)
        # WT and TC, which hold the label value of ET as well, are as they were.
        assert torch.equal(regions[:, :2], known[:, :2])
        for sample, number in enumerate(range(3 * step, 3 * step + 3)):
            case, _ = partly.case_of(number)
            et = known[sample, 2]
            kinds.add(case in hidden)
            assert (et == UNKNOWN).all() if case in hidden else torch.equal(et, regions[sample, 2])
    assert kinds == {True, False}
    # A process of several reads its own part of each batch.
    ((_, own),) = batches(partly, 1, 2, CPU, range(1, 3))
    assert torch.equal(own, masked[1][1][1:])


def test_values_of_regions_that_are_not_annotated_alone_are_no_foreground(
    source: PatchSource,
) -> None:
    training = source.training.model_copy(update={"foreground_share": 1.0, "patch": [1, 1, 1]})
    regions = {"edema": [2], "ET": [3]}
    hidden = {case: ["edema"] for case in source.cases}
    some = replace(source, training=training, regions=regions, not_annotated=hidden)
    _, labels = Patches(some).__getitems__(list(range(40)))
    assert 2 not in labels.flatten().tolist()
    # Of a nested region, the values belong to the region around it as well.
    nested = replace(some, regions={"WT": [2, 3], "ET": [3]}, not_annotated={"x": ["ET"]})
    _, labels = Patches(nested).__getitems__(list(range(40)))
    assert set(labels.flatten().tolist()) == {2, 3}


def test_a_study_says_which_regions_are_not_annotated(source: PatchSource) -> None:
    first, second = source.cases[:2]
    study = small_study(dataset={"not_annotated": {first: ["ET"], "Phantom-0000*": ["TC"]}})
    made = PatchSource.of(study, source.cases, source.folder, (5,))
    assert made.not_annotated == {first: ["TC", "ET"]}
    assert study.some_unknown([first, second]) and not study.some_unknown([second])
