"""Reading volumes: accepted files, and the messages about all others."""

from __future__ import annotations

import gzip
import resource
import struct
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import sha256
from voxelsoup.data.case import Source
from voxelsoup.data.volumes import volume as volume_module
from voxelsoup.data.volumes.volume import (
    BEGINNING,
    TooLarge,
    read_header,
    read_label,
    read_volume,
    read_volumes,
    without_suffix,
    write_volume,
)

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
    assert caught.value.fix in str(caught.value)
    return caught.value


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_written_volumes_are_read_back_by_us_and_by_nibabel(tmp_path: Path, suffix: str) -> None:
    ours, theirs = tmp_path / "ours.nii.gz", tmp_path / f"theirs{suffix}"
    write_volume(ours, noise(7, 6, 5), AFFINE)
    save(theirs, noise(7, 6, 5))
    for path in (ours, theirs):
        volume = read_volume(Source(path))
        np.testing.assert_array_equal(volume.data, noise(7, 6, 5))
        np.testing.assert_array_equal(volume.affine, AFFINE)
        assert volume.spacing == (1, 1, 2)
    np.testing.assert_array_equal(nib.load(ours).affine, AFFINE)


@pytest.mark.parametrize("name", ["scan.NII.GZ", "scan.Nii", "scan.MHA", "scan.NRRD"])
def test_endings_in_capitals_are_read(tmp_path: Path, name: str) -> None:
    plain = tmp_path / name.lower()
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(noise(5, 6, 7)), str(plain))
    plain.rename(tmp_path / name)
    np.testing.assert_array_equal(read_volume(Source(tmp_path / name)).data, noise(5, 6, 7).T)
    assert without_suffix(name) == "scan"


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


def test_a_2d_image_is_refused(tmp_path: Path) -> None:
    assert "7x6" in refused(save(tmp_path / "flat.nii.gz", noise(7, 6))).found


def test_a_missing_file_is_refused_with_the_nearest_names(tmp_path: Path) -> None:
    problem = refused(tmp_path / "none.nii.gz")
    assert problem.found == "no such file"
    assert "add the file" in problem.fix


@pytest.mark.parametrize("kept", [0, 5, 100, 0.5, 0.98])
def test_a_truncated_gzip_file_is_refused(tmp_path: Path, kept: float) -> None:
    whole = save(tmp_path / "whole.nii.gz", noise(32, 32, 24)).read_bytes()
    path = tmp_path / "cut.nii.gz"
    path.write_bytes(whole[: int(kept * len(whole)) if 0 < kept < 1 else int(kept)])
    assert "again" in refused(path).fix


def test_a_damaged_gzip_file_is_refused(tmp_path: Path) -> None:
    content = bytearray(save(tmp_path / "whole.nii.gz", noise(32, 32, 24)).read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "damaged.nii.gz").write_bytes(content)
    assert "cannot be read" in refused(tmp_path / "damaged.nii.gz").found


def test_a_truncated_plain_nifti_file_is_refused(tmp_path: Path) -> None:
    content = save(tmp_path / "whole.nii", noise(32, 32, 24)).read_bytes()
    (tmp_path / "cut.nii").write_bytes(content[:9000])
    assert "again" in refused(tmp_path / "cut.nii").fix


@pytest.mark.parametrize("content", [b"no scan" * 100, gzip.compress(b"no scan" * 100, mtime=0)])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "strange.nii.gz").write_bytes(content)
    assert "cannot be read" in refused(tmp_path / "strange.nii.gz").found


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    voxels = noise(7, 6, 5).astype(np.float32)
    voxels[3, 3, 3] = value
    assert "not finite" in refused(save(tmp_path / "scan.nii.gz", voxels)).found


def test_integer_labels_stored_as_floating_point_are_read(tmp_path: Path) -> None:
    labels = np.abs(noise(7, 6, 5)) % 4
    path = save(tmp_path / "seg.nii.gz", labels.astype(np.float64))
    found = read_label(Source(path)).data
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize(("value", "said"), [(1.5, "1.5"), (-1, "-1"), (256, "256")])
def test_values_that_are_not_labels_are_refused(tmp_path: Path, value: float, said: str) -> None:
    labels = np.zeros((4, 4, 4), np.float32)
    labels[1, 2, 3] = value
    path = save(tmp_path / "seg.nii.gz", labels)
    with pytest.raises(InputError, match=f"holds the label value {said}") as caught:
        read_label(Source(path))
    assert caught.value.where == str(path)


@pytest.mark.parametrize("lost", [1, 4, 8, 9])
def test_a_gzip_file_without_its_last_bytes_is_refused(tmp_path: Path, lost: int) -> None:
    whole = save(tmp_path / "whole.nii.gz", noise(32, 32, 24)).read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[:-lost])
    assert "again" in refused(tmp_path / "cut.nii.gz").fix


@pytest.mark.parametrize("position", [-6, -2])
def test_a_gzip_file_with_a_wrong_checksum_or_length_is_refused(
    tmp_path: Path, position: int
) -> None:
    content = bytearray(save(tmp_path / "whole.nii.gz", noise(9, 9, 9)).read_bytes())
    content[position] ^= 255
    (tmp_path / "damaged.nii.gz").write_bytes(content)
    assert "damaged" in refused(tmp_path / "damaged.nii.gz").found


@pytest.mark.parametrize("padding", [b"\0" * 512, gzip.compress(b"", mtime=0)])
def test_zeros_behind_a_gzip_stream_are_accepted(tmp_path: Path, padding: bytes) -> None:
    path = save(tmp_path / "scan.nii.gz", noise(9, 9, 9))
    path.write_bytes(path.read_bytes() + padding)
    np.testing.assert_array_equal(read_volume(Source(path)).data, noise(9, 9, 9))


def test_both_byte_orders_and_nifti_2_are_read(tmp_path: Path) -> None:
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
def test_headers_that_contradict_their_file_are_refused(
    tmp_path: Path, offset: int, form: str, values: tuple[float, ...], said: str
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    problem = refused(with_header(tmp_path / "scan.nii.gz", offset, form, *values))
    assert said in problem.found
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_corrected_headers_print_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # Voxel sizes below 0, beside an sform that says where the voxels lie.
    path = with_header(tmp_path / "scan.nii.gz", 80, "ff", -1, -1)
    np.testing.assert_array_equal(read_volume(Source(path)).data, noise(32, 32, 24))
    assert not caplog.records


def test_voxels_too_large_for_float32_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii.gz", np.full((4, 4, 4), 1e300))
    assert "not finite" in refused(path).found


def itk_affine(path: Path) -> np.ndarray:
    """The affine (RAS+) as SimpleITK has it."""
    image = SimpleITK.ReadImage(str(path))
    to_ras = np.diag([-1.0, -1.0, 1.0])
    affine = np.eye(4)
    affine[:3, :3] = to_ras @ (np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing())
    affine[:3, 3] = to_ras @ image.GetOrigin()
    return affine


@pytest.mark.parametrize("form", ["sform", "qform"])
@pytest.mark.parametrize(
    ("unit", "millimetres"), [("mm", 1), ("unknown", 1), ("meter", 1e3), ("micron", 1e-3)]
)
def test_units_are_those_of_simpleitk(
    tmp_path: Path, form: str, unit: str, millimetres: float
) -> None:
    affine = AFFINE.copy()
    affine[:3] /= millimetres
    image = nib.Nifti1Image(noise(7, 6, 5), affine)
    image.set_sform(affine, int(form == "sform"))
    image.set_qform(affine, int(form == "qform"))
    image.header.set_xyzt_units(unit)
    path = tmp_path / "scan.nii.gz"
    nib.save(image, path)
    volume = read_volume(Source(path))
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-4)
    np.testing.assert_allclose(volume.affine, itk_affine(path), atol=1e-4)
    np.testing.assert_allclose(read_header(Source(path)).affine, volume.affine)


def test_an_implausible_unit_is_ignored(tmp_path: Path) -> None:
    """Where SimpleITK reads a head of 240 metres, 1 mm was meant."""
    image = nib.Nifti1Image(noise(7, 6, 5), AFFINE)
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "scan.nii.gz")
    assert itk_affine(tmp_path / "scan.nii.gz")[2, 2] == 2000
    assert read_volume(Source(tmp_path / "scan.nii.gz")).spacing == (1, 1, 2)


@pytest.mark.parametrize("unit", ["mm", "um", "m"])
def test_units_in_nrrd_are_those_of_simpleitk(tmp_path: Path, unit: str) -> None:
    path = tmp_path / "scan.nrrd"
    image = SimpleITK.GetImageFromArray(noise(5, 6, 7))
    image.SetSpacing((1, 2, 3))
    SimpleITK.WriteImage(image, str(path), False)
    units = f'space units: "{unit}" "{unit}" "{unit}"\nencoding'.encode()
    path.write_bytes(path.read_bytes().replace(b"encoding", units, 1))
    np.testing.assert_array_equal(read_volume(Source(path)).affine, itk_affine(path))


def test_several_gzip_members_are_one_file(tmp_path: Path) -> None:
    """As bgzip and `cat a.gz b.gz` write them."""
    content = nib.Nifti1Image(noise(32, 32, 24), AFFINE).to_bytes()
    path = tmp_path / "scan.nii.gz"
    for cuts in ((200,), (352,), (1000, 30_000), (len(content) - 1,)):
        parts = np.split(np.frombuffer(content, np.uint8), cuts)
        members = [gzip.compress(part.tobytes()) for part in parts]
        path.write_bytes(b"".join(members))
        np.testing.assert_array_equal(read_volume(Source(path)).data, noise(32, 32, 24))
        path.write_bytes(b"".join(members[:-1]))
        assert "cannot be read" in refused(path).found


def test_volumes_of_one_file_are_read_at_once_and_in_order(tmp_path: Path) -> None:
    voxels = noise(7, 6, 5, 3)
    four = save(tmp_path / "four.nii.gz", voxels)
    one = save(tmp_path / "one.nii", voxels[..., 0] + 1)
    sources = [Source(four, 2), Source(four, 0), Source(one), Source(four, 1)]
    found = list(read_volumes(sources))
    expected = [voxels[..., 2], voxels[..., 0], voxels[..., 0] + 1, voxels[..., 1]]
    for volume, source, data in zip(found, sources, expected, strict=True):
        np.testing.assert_array_equal(volume.data, data)
        assert volume.sha256 == sha256(source.file)
        assert volume.components == (1 if source.file == one else 3)
    # Views on one unpacked file, and another one for the source behind its neighbour.
    bases = [np.lib.array_utils.byte_bounds(volume.data)[0] for volume in found]
    assert abs(bases[0] - bases[1]) == 2 * voxels[..., 0].nbytes
    assert list(read_volumes([])) == []


@pytest.mark.parametrize("shape", [(7, 6, 5, 1), (7, 6, 5, 1, 1), (7, 6, 1), (7, 1, 5, 1)])
def test_sides_of_one_voxel_are_read(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = save(tmp_path / "scan.nii.gz", noise(*shape))
    np.testing.assert_array_equal(read_volume(Source(path)).data, noise(*shape).reshape(shape[:3]))
    assert read_header(Source(path)).shape[:3] == shape[:3]


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_a_single_component_along_a_fourth_axis(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"scan{suffix}"
    image = SimpleITK.GetImageFromArray(noise(5, 6, 7)[..., None], isVector=True)
    SimpleITK.WriteImage(image, str(path))
    volume = read_volume(Source(path))
    np.testing.assert_array_equal(volume.data, noise(5, 6, 7).transpose())


@pytest.mark.parametrize("kind", [np.int16, np.uint16, np.int32, np.uint32, np.float32, np.float64])
def test_labels_of_any_type(tmp_path: Path, kind: type) -> None:
    labels = np.arange(60).reshape(3, 4, 5) * 4
    path = save(tmp_path / "seg.nii.gz", labels.astype(kind))
    np.testing.assert_array_equal(read_label(Source(path)).data, labels)


def test_labels_are_rounded_after_scaling(tmp_path: Path) -> None:
    """As a tool stores 0 to 3 that takes floating point to the whole range of int16."""
    labels = np.arange(64).reshape(4, 4, 4) % 4
    image = nib.Nifti1Image(np.rint(labels * 32767 / 3).astype(np.int16), AFFINE)
    image.header.set_slope_inter(3 / 32767, 0)
    nib.save(image, tmp_path / "seg.nii.gz")
    stored = read_volume(Source(tmp_path / "seg.nii.gz")).data
    assert not np.array_equal(stored, labels)
    np.testing.assert_array_equal(read_label(Source(tmp_path / "seg.nii.gz")).data, labels)
    image.header.set_slope_inter(2.99 / 32767, 0)
    nib.save(image, tmp_path / "seg.nii.gz")
    with pytest.raises(InputError, match=r"label value 0\.996"):
        read_label(Source(tmp_path / "seg.nii.gz"))


def test_memory_estimate_includes_scaling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, scaled = tmp_path / "plain.nii", tmp_path / "scaled.nii"
    save(plain, noise(32, 32, 24))
    scaled.write_bytes(plain.read_bytes())
    with scaled.open("r+b") as stream:
        stream.seek(112)
        stream.write(struct.pack("<f", 0.5))
    free = 6 * 32 * 32 * 24
    monkeypatch.setattr(volume_module, "available_memory", lambda: free)
    assert read_volume(Source(plain)).data.dtype == np.int16
    with pytest.raises(TooLarge, match="GB of memory are needed"):
        read_volume(Source(scaled))


@pytest.mark.parametrize("slope", [1, 0.5])
@pytest.mark.parametrize("kind", [np.int16, np.float64])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_reading_takes_no_more_memory_than_it_was_held_against(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, kind: type, slope: float
) -> None:
    path = tmp_path / f"scan{suffix}"
    image = nib.Nifti1Image(np.ones((128, 128, 128), kind), AFFINE)
    image.header.set_slope_inter(slope, 0)
    nib.save(image, path)
    read_volume(Source(path))
    tracemalloc.start()
    try:
        read_volume(Source(path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The first megabyte of a file is read for its header; buffers are small beside voxels.
    monkeypatch.setattr(volume_module, "available_memory", lambda: peak - BEGINNING - 200_000)
    with pytest.raises(TooLarge):
        read_volume(Source(path))
