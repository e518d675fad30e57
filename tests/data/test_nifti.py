"""Qform and sform: what programs go by, label maps that have them, and files where they disagree.

The oracles are SimpleITK and nibabel, over random affines and all pairs of codes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from scipy.spatial.transform import Rotation

from support.checks import nonempty
from voxelsoup.common.errors import InputError
from voxelsoup.data.case import Case, Source
from voxelsoup.data.index.checks import Expected, check_case
from voxelsoup.data.volumes.alignment import align
from voxelsoup.data.volumes.volume import read_header, read_volume, write_volume

SHAPE = (5, 6, 7)
SCAN = np.random.default_rng(0).integers(1, 900, SHAPE).astype(np.int16)
LABEL = (np.arange(SCAN.size).reshape(SHAPE) % 3).astype(np.uint8)
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
EXPECTED = Expected(frozenset({1, 2}), "refuse")


def placed(
    random: np.random.Generator, sheared: bool = False, sizes: Any = (0.7, 1.1, 2.3)
) -> np.ndarray:
    """A random affine, left- or right-handed."""
    turn = Rotation.random(rng=random).as_matrix() * random.choice([-1, 1], 3)
    axes = turn * sizes
    if sheared:
        axes[:, 1] += 0.1 * axes[:, 0]
    return np.asarray(nib.affines.from_matvec(axes, random.uniform(-90, 90, 3)))


def save(
    path: Path,
    voxels: np.ndarray,
    qform: np.ndarray,
    qcode: int,
    sform: np.ndarray,
    scode: int,
    unit: str = "mm",
    kind: Any = nib.Nifti1Image,
) -> Path:
    header = kind.header_class()
    header.set_data_dtype(voxels.dtype)
    header.set_data_shape(voxels.shape)
    header.set_sform(sform, scode)
    header.set_qform(qform, qcode)
    header["qform_code"], header["sform_code"] = qcode, scode
    header.set_xyzt_units(unit)
    nib.save(kind(voxels, None, header), path)
    return path


def itk_affine(path: Path) -> np.ndarray | None:
    """The affine (RAS+) by SimpleITK; None where it refuses the file."""
    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError:
        return None
    axes = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    return np.asarray(nib.affines.from_matvec(LPS_TO_RAS @ axes, LPS_TO_RAS @ image.GetOrigin()))


def draw_in_itk(scan: Path, path: Path, label: np.ndarray = LABEL) -> Path:
    """A label map as ITK's programs save it: with the geometry that ITK has of the scan."""
    image = SimpleITK.GetImageFromArray(label.T)
    image.CopyInformation(SimpleITK.ReadImage(str(scan)))
    SimpleITK.WriteImage(image, str(path))
    return path


def headers(folder: Path) -> Iterator[Path]:
    """Scans of all pairs of codes, one or two forms, with and without shear."""
    random = np.random.default_rng(1)
    for qcode, scode, sheared in itertools.product(range(4), range(4), (False, True)):
        qform, sform = placed(random), placed(random, sheared, random.uniform(0.6, 3, 3))
        name = f"q{qcode}-s{scode}-{'sheared' if sheared else 'square'}"
        yield save(folder / f"{name}-two.nii", SCAN, qform, qcode, sform, scode)
        yield save(folder / f"{name}-one.nii.gz", SCAN, qform, qcode, qform, scode)


def test_the_forms_of_a_header_are_those_of_nibabel_and_simpleitk(tmp_path: Path) -> None:
    readable = 0
    for path in headers(tmp_path):
        forms = read_header(Source(path)).forms
        assert forms is not None
        used = next(iter(forms.affines.values()))
        np.testing.assert_allclose(used, nib.load(path).affine, atol=1e-4, err_msg=path.name)
        expected = itk_affine(path)
        if expected is not None:
            readable += 1
            found = forms.affines[forms.itk]
            np.testing.assert_allclose(found, expected, atol=1e-3, err_msg=path.name)
    # ITK refuses sheared sforms that are alone, and nothing else.
    assert readable == 64 - 3


def test_a_label_map_lies_on_its_scan_in_nibabel_and_simpleitk(tmp_path: Path) -> None:
    written = tmp_path / "label.nii.gz"
    for path in nonempty(headers(tmp_path)):
        write_volume(written, LABEL, read_header(Source(path)))
        scan, label = nib.load(path), nib.load(written)
        np.testing.assert_array_equal(np.asarray(label.dataobj), LABEL)
        assert label.get_data_dtype() == np.uint8
        for field in ("qform_code", "sform_code", "xyzt_units", "pixdim"):
            np.testing.assert_array_equal(label.header[field], scan.header[field], path.name)
        np.testing.assert_array_equal(label.affine, scan.affine, path.name)
        np.testing.assert_array_equal(label.get_qform(), scan.get_qform(), path.name)
        np.testing.assert_array_equal(label.get_sform(), scan.get_sform(), path.name)
        one, other = itk_affine(path), itk_affine(written)
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            np.testing.assert_array_equal(one, other, path.name)


@pytest.mark.parametrize("unit", ["meter", "mm", "micron", "unknown"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_a_label_map_has_the_units_of_its_scan(tmp_path: Path, unit: str, kind: Any) -> None:
    affine = placed(np.random.default_rng(2))
    affine[:3] /= {"meter": 1e3, "micron": 1e-3}.get(unit, 1)
    path = save(tmp_path / "scan.nii.gz", SCAN, affine, 1, affine, 2, unit, kind)
    write_volume(tmp_path / "label.nii.gz", LABEL, read_header(Source(path)))
    label = nib.load(tmp_path / "label.nii.gz")
    assert label.header.get_xyzt_units()[0] == unit
    np.testing.assert_allclose(label.affine, nib.load(path).affine, rtol=1e-6)
    # NIfTI-2 is not read by SimpleITK; the label map of its scan is.
    found = itk_affine(tmp_path / "label.nii.gz")
    assert found is not None
    assert (expected := itk_affine(path)) is None or np.allclose(found, expected, rtol=1e-6)
    assert (expected is None) == (kind is nib.Nifti2Image)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_a_label_map_of_another_format_has_its_affine_in_both_forms(
    tmp_path: Path, suffix: str
) -> None:
    path, written = tmp_path / f"scan{suffix}", tmp_path / "label.nii.gz"
    random = np.random.default_rng(3)
    for number in range(10):
        nifti = save(tmp_path / f"{number}.nii.gz", SCAN, placed(random), 1, np.eye(4), 0)
        SimpleITK.WriteImage(SimpleITK.ReadImage(str(nifti)), str(path))
        write_volume(written, LABEL, read_header(Source(path)))
        label, expected = nib.load(written), itk_affine(path)
        assert expected is not None
        assert (label.header["qform_code"], label.header["sform_code"]) == (1, 1)
        for found in (label.get_qform(), label.get_sform(), itk_affine(written)):
            np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_label_map_of_a_sheared_volume_of_another_format_has_the_sform_alone(
    tmp_path: Path,
) -> None:
    image = SimpleITK.GetImageFromArray(SCAN.T)
    image.SetDirection((1, 0.1, 0, 0, 1, 0, 0, 0, 1))
    SimpleITK.WriteImage(image, str(tmp_path / "scan.nrrd"))
    write_volume(tmp_path / "label.nii.gz", LABEL, read_header(Source(tmp_path / "scan.nrrd")))
    label = nib.load(tmp_path / "label.nii.gz")
    assert (label.header["qform_code"], label.header["sform_code"]) == (0, 1)
    np.testing.assert_allclose(label.affine, itk_affine(tmp_path / "scan.nrrd"), atol=1e-6)


@pytest.mark.parametrize("codes", [(1, 2), (1, 1), (3, 4), (2, 1), (0, 0)])
@pytest.mark.parametrize("sheared", [False, True])
def test_a_label_drawn_in_itk_is_accepted_on_a_scan_whose_forms_disagree(
    tmp_path: Path, codes: tuple[int, int], sheared: bool
) -> None:
    for seed in range(5):
        random = np.random.default_rng(seed)
        forms = placed(random), placed(random, sheared)
        scan = save(tmp_path / "scan.nii.gz", SCAN, forms[0], codes[0], forms[1], codes[1])
        label = draw_in_itk(scan, tmp_path / "label.nii.gz")
        case = Case("one", {"t1": Source(scan)}, Source(label))
        notes = "; ".join(check_case(case, EXPECTED)[0].notes)
        assert "t1: the " in notes
        assert "of its header are up to" in notes
        volume, reference = read_volume(Source(label)), read_volume(Source(scan))
        turned, note = align(volume, reference, label, scan)
        np.testing.assert_array_equal(turned.data, LABEL)
        np.testing.assert_array_equal(turned.affine, reference.affine)
        # Where ITK goes by the sform as well, there is nothing to choose.
        by_sform = np.allclose(volume.affine, reference.affine, atol=1e-3)
        assert by_sform == (codes[1] == 1 and not sheared)
        assert (note is None) == by_sform
        assert by_sform or f"label: {note}" in notes
        if codes[0]:
            assert by_sform or f"goes by its sform, and {scan.name} by its qform" in str(note)


def test_a_label_that_fits_no_form_of_its_scan_is_refused(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    qform, sform = placed(random), placed(random)
    scan = save(tmp_path / "scan.nii.gz", SCAN, qform, 1, sform, 2)
    other = placed(random)
    label = save(tmp_path / "label.nii.gz", LABEL, other, 1, other, 1)
    with pytest.raises(InputError, match=r"compared with scan\.nii\.gz"):
        align(read_volume(Source(label)), read_volume(Source(scan)), label, scan)


def test_a_registration_in_the_headers_sform_is_not_passed_over(tmp_path: Path) -> None:
    """Two scans of one session: the same qform, and one sform that a registration has moved."""
    random = np.random.default_rng(5)
    qform, first, second = (placed(random) for _ in range(3))
    one = save(tmp_path / "one.nii.gz", SCAN, qform, 1, first, 2)
    other = save(tmp_path / "other.nii.gz", SCAN, qform, 1, second, 2)
    with pytest.raises(InputError, match="agrees by its qform alone") as caught:
        align(read_volume(Source(other)), read_volume(Source(one)), other, one)
    assert "give both files the header of one.nii.gz" in caught.value.fix


def test_forms_that_mirror_each_other_are_not_guessed(tmp_path: Path) -> None:
    """A label drawn in ITK fits this scan by both forms, and would be mirrored by one of them."""
    plain = np.diag([1.0, 1, 1, 1])
    mirrored = np.diag([-1.0, 1, 1, 1])
    mirrored[0, 3] = SHAPE[0] - 1
    scan = save(tmp_path / "scan.nii.gz", SCAN, plain, 1, mirrored, 2)
    label = draw_in_itk(scan, tmp_path / "label.nii.gz")
    with pytest.raises(InputError, match="in two ways") as caught:
        align(read_volume(Source(label)), read_volume(Source(scan)), label, scan)
    assert "set both forms" in caught.value.fix
    # A label map with the scan's own header needs no turn.
    write_volume(label, LABEL, read_header(Source(scan)))
    aligned, note = align(read_volume(Source(label)), read_volume(Source(scan)), label, scan)
    np.testing.assert_array_equal(aligned.data, LABEL)
    assert note is None


def test_a_broken_form_that_is_not_used_is_passed_over(tmp_path: Path) -> None:
    affine = placed(np.random.default_rng(6))
    path = save(tmp_path / "scan.nii", SCAN, affine, 1, affine, 1)
    content = bytearray(path.read_bytes())
    # Parts of a quaternion cannot be larger than 1.
    content[256:268] = np.full(3, 7, np.float32).tobytes()
    path.write_bytes(content)
    forms = read_header(Source(path)).forms
    assert forms is not None
    assert list(forms.affines) == ["sform"]
    np.testing.assert_allclose(read_volume(Source(path)).affine, affine, atol=1e-4)
