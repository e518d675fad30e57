"""MetaImage, NRRD and NIfTI as SimpleITK writes them, and what is refused of each."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from scipy.spatial.transform import Rotation

from voxelsoup.common.errors import InputError
from voxelsoup.data.case import Source
from voxelsoup.data.volumes.volume import SUFFIXES, read_volume, read_volumes

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


def write(path: Path, kind: str, components: int, packed: bool) -> tuple[np.ndarray, np.ndarray]:
    """A volume in a random place: its voxels (component, x, y, z) and its affine in RAS."""
    random = np.random.default_rng(len(kind) + components)
    stored = random.integers(0, 100, (5, 6, 7, components)).astype(kind)
    several = components > 1
    image = SimpleITK.GetImageFromArray(stored if several else stored[..., 0], isVector=several)
    image.SetDirection(Rotation.random(rng=random).as_matrix().ravel())
    image.SetSpacing(random.uniform(0.5, 3, 3))
    image.SetOrigin(random.normal(size=3) * 50)
    SimpleITK.WriteImage(image, str(path), packed)
    affine = np.eye(4)
    directions = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, :3] = LPS_TO_RAS @ directions
    affine[:3, 3] = LPS_TO_RAS @ image.GetOrigin()
    return stored.transpose(3, 2, 1, 0), affine


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", ["uint8", "int16", "uint16", "int32", "float32"])
def test_files_of_simpleitk_are_read_as_simpleitk_reads_them(
    tmp_path: Path, suffix: str, kind: str
) -> None:
    for components, packed in itertools.product((1, 3), (False, True)):
        path = tmp_path / f"scan{suffix}"
        voxels, affine = write(path, kind, components, packed)
        numbers = [None] if components == 1 else range(components)
        volumes = list(read_volumes([Source(path, number) for number in numbers]))
        np.testing.assert_array_equal([volume.data for volume in volumes], voxels)
        for volume in volumes:
            np.testing.assert_allclose(volume.affine, affine, atol=1e-4)


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_volume(Source(path))
    assert caught.value.where == str(path)
    return caught.value.found


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, packed: bool) -> None:
    path = tmp_path / f"scan{suffix}"
    write(path, "int16", 1, packed)
    content = path.read_bytes()
    for kept in (0, 3, 40, len(content) - 60, len(content) - 9):
        path.write_bytes(content[:kept])
        assert refused(path)


def test_voxels_in_another_file_are_not_followed(tmp_path: Path) -> None:
    for suffix, line in ((".mha", b"ElementDataFile = LOCAL"), (".nrrd", b"encoding: raw")):
        path = tmp_path / f"scan{suffix}"
        write(path, "int16", 1, packed=False)
        content = path.read_bytes()
        assert line in content
        elsewhere = (
            b"ElementDataFile = /etc/passwd"
            if suffix == ".mha"
            else b"encoding: raw\ndata file: /etc/passwd"
        )
        path.write_bytes(content.replace(line, elsewhere))
        assert "passwd" in refused(path) or "another file" in refused(path)


def test_headers_that_crash_simpleitk_are_refused_or_read(tmp_path: Path) -> None:
    """In SimpleITK 2.5.7 either of them ends the process: see the modules of the two formats."""
    write(tmp_path / "scan.mha", "int16", 1, packed=False)
    content = (tmp_path / "scan.mha").read_bytes()
    (tmp_path / "scan.mha").write_bytes(content.replace(b"NDims = 3", b"NDims = 65536"))
    assert "NDims 65536" in refused(tmp_path / "scan.mha")
    voxels, _ = write(tmp_path / "scan.nrrd", "int16", 1, packed=False)
    content = (tmp_path / "scan.nrrd").read_bytes()
    labels = b'labels: "' + b"a" * 50_000 + b'"\nencoding:'
    (tmp_path / "scan.nrrd").write_bytes(content.replace(b"encoding:", labels))
    np.testing.assert_array_equal(read_volume(Source(tmp_path / "scan.nrrd")).data, voxels[0])
