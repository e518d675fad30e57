"""Reading volumes: what is accepted, and with which words everything else is refused."""

from __future__ import annotations

import gzip
import resource
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segsoup.cases.case import Source
from segsoup.errors import InputError
from segsoup.files import sha256
from segsoup.volumes import read_label, read_volume, write_volume

AFFINE = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 2, 0], [0, 0, 0, 1]])


def save(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-900, 900, shape).astype(np.int16)


def refused(path: Path, component: int | None = None) -> InputError:
    with pytest.raises(InputError) as caught:
        read_volume(Source(path, component))
    assert caught.value.where == str(path)
    assert caught.value.mend in str(caught.value)
    return caught.value


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_what_is_written_is_read_back_by_us_and_by_nibabel(tmp_path: Path, suffix: str) -> None:
    ours, theirs = tmp_path / "ours.nii.gz", tmp_path / f"theirs{suffix}"
    write_volume(ours, noise(7, 6, 5), AFFINE)
    save(theirs, noise(7, 6, 5))
    for path in (ours, theirs):
        volume = read_volume(Source(path))
        np.testing.assert_array_equal(volume.data, noise(7, 6, 5))
        np.testing.assert_array_equal(volume.affine, AFFINE)
        assert volume.spacing == (1, 1, 2)
    np.testing.assert_array_equal(nib.load(ours).affine, AFFINE)


def test_the_same_volume_is_written_to_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.nii.gz", "other.nii.gz"):
        write_volume(tmp_path / name, noise(7, 6, 5), AFFINE)
    assert sha256(tmp_path / "one.nii.gz") == sha256(tmp_path / "other.nii.gz")


def test_stored_scaling_is_applied(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), AFFINE)
    image.header.set_slope_inter(0.5, 10)
    nib.save(image, tmp_path / "scaled.nii.gz")
    expected = nib.load(tmp_path / "scaled.nii.gz").get_fdata()
    np.testing.assert_allclose(read_volume(Source(tmp_path / "scaled.nii.gz")).data, expected)


def test_a_4d_singleton_is_a_volume(tmp_path: Path) -> None:
    path = save(tmp_path / "four.nii.gz", noise(7, 6, 5, 1))
    assert read_volume(Source(path)).data.shape == (7, 6, 5)


def test_a_component_of_a_4d_file(tmp_path: Path) -> None:
    path = save(tmp_path / "four.nii.gz", noise(7, 6, 5, 3))
    for component in range(3):
        found = read_volume(Source(path, component)).data
        np.testing.assert_array_equal(found, noise(7, 6, 5, 3)[..., component])
    assert "no channel 3" in refused(path, 3).found
    assert "7x6x5x3" in refused(path).found


def test_two_dimensions(tmp_path: Path) -> None:
    assert "7x6" in refused(save(tmp_path / "flat.nii.gz", noise(7, 6))).found


def test_a_missing_file(tmp_path: Path) -> None:
    problem = refused(tmp_path / "none.nii.gz")
    assert problem.found == "no such file"
    assert "add the file" in problem.mend


@pytest.mark.parametrize("kept", [0, 5, 100, 0.5, 0.98])
def test_a_truncated_gzip(tmp_path: Path, kept: float) -> None:
    whole = save(tmp_path / "whole.nii.gz", noise(32, 32, 24)).read_bytes()
    path = tmp_path / "cut.nii.gz"
    path.write_bytes(whole[: int(kept * len(whole)) if 0 < kept < 1 else int(kept)])
    assert "again" in refused(path).mend


def test_a_damaged_gzip(tmp_path: Path) -> None:
    content = bytearray(save(tmp_path / "whole.nii.gz", noise(32, 32, 24)).read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "damaged.nii.gz").write_bytes(content)
    assert "cannot be read" in refused(tmp_path / "damaged.nii.gz").found


def test_a_truncated_plain_file(tmp_path: Path) -> None:
    content = save(tmp_path / "whole.nii", noise(32, 32, 24)).read_bytes()
    (tmp_path / "cut.nii").write_bytes(content[:9000])
    assert "again" in refused(tmp_path / "cut.nii").mend


@pytest.mark.parametrize("content", [b"no scan" * 100, gzip.compress(b"no scan" * 100, mtime=0)])
def test_something_else(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "strange.nii.gz").write_bytes(content)
    assert "cannot be read" in refused(tmp_path / "strange.nii.gz").found


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite(tmp_path: Path, value: float) -> None:
    voxels = noise(7, 6, 5).astype(np.float32)
    voxels[3, 3, 3] = value
    assert "not finite" in refused(save(tmp_path / "scan.nii.gz", voxels)).found


def test_whole_labels_stored_as_floating_point(tmp_path: Path) -> None:
    labels = np.abs(noise(7, 6, 5)) % 4
    path = save(tmp_path / "seg.nii.gz", labels.astype(np.float64))
    found = read_label(Source(path)).data
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize(("value", "said"), [(1.5, "1.5"), (-1, "-1"), (256, "256")])
def test_labels_that_are_none(tmp_path: Path, value: float, said: str) -> None:
    labels = np.zeros((4, 4, 4), np.float32)
    labels[1, 2, 3] = value
    path = save(tmp_path / "seg.nii.gz", labels)
    with pytest.raises(InputError, match=f"holds the label value {said}") as caught:
        read_label(Source(path))
    assert caught.value.where == str(path)


@pytest.mark.parametrize("lost", [1, 4, 8, 9])
def test_a_gzip_that_lost_its_last_bytes(tmp_path: Path, lost: int) -> None:
    whole = save(tmp_path / "whole.nii.gz", noise(32, 32, 24)).read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[:-lost])
    assert "again" in refused(tmp_path / "cut.nii.gz").mend


@pytest.mark.parametrize("position", [-6, -2])
def test_a_gzip_with_a_wrong_checksum_or_length(tmp_path: Path, position: int) -> None:
    content = bytearray(save(tmp_path / "whole.nii.gz", noise(9, 9, 9)).read_bytes())
    content[position] ^= 255
    (tmp_path / "damaged.nii.gz").write_bytes(content)
    assert "damaged" in refused(tmp_path / "damaged.nii.gz").found


@pytest.mark.parametrize("padding", [b"\0" * 512, gzip.compress(b"", mtime=0)])
def test_what_some_tools_put_behind_a_gzip(tmp_path: Path, padding: bytes) -> None:
    path = save(tmp_path / "scan.nii.gz", noise(9, 9, 9))
    path.write_bytes(path.read_bytes() + padding)
    np.testing.assert_array_equal(read_volume(Source(path)).data, noise(9, 9, 9))


def test_both_byte_orders_and_nifti_2(tmp_path: Path) -> None:
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        for order in "<>":
            image = kind(noise(7, 6, 5), AFFINE, kind.header_class(endianness=order))
            image.set_data_dtype(np.int16)
            nib.save(image, tmp_path / "scan.nii.gz")
            found = read_volume(Source(tmp_path / "scan.nii.gz"))
            np.testing.assert_array_equal(found.data, noise(7, 6, 5))
            np.testing.assert_array_equal(found.affine, AFFINE)


def with_header(path: Path, offset: int, form: str, *values: float) -> Path:
    content = bytearray(nib.Nifti1Image(noise(32, 32, 24), AFFINE).to_bytes())
    struct.pack_into("<" + form, content, offset, *values)
    path.write_bytes(gzip.compress(bytes(content)))
    return path


@pytest.mark.parametrize(
    ("offset", "form", "values", "said"),
    [
        (42, "hhh", (32767, 32767, 32767), "more than the file can hold"),
        (42, "hhh", (2000, 2000, 1000), "more than the file can hold"),
        (42, "h", (-5,), "has shape"),
        (40, "h", (9,), "header is damaged"),
        (70, "h", (999,), "header is damaged"),
        (70, "h", (128,), "no plain numbers"),
        (70, "h", (32,), "no plain numbers"),
        (108, "f", (float("nan"),), "header is damaged"),
        (108, "f", (1e30,), "more than the file can hold"),
        (112, "f", (float("inf"),), "scaled by infinity"),
        (280, "f", (float("nan"),), "affine"),
        (280, "12f", (0.0,) * 12, "affine"),
    ],
)
def test_headers_that_lie(
    tmp_path: Path, offset: int, form: str, values: tuple[float, ...], said: str
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    problem = refused(with_header(tmp_path / "scan.nii.gz", offset, form, *values))
    assert said in problem.found
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_numbers_too_large_for_float32(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii.gz", np.full((4, 4, 4), 1e300))
    assert "not finite" in refused(path).found
