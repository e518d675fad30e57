"""Volumes of one case on one voxel grid, however each of them was stored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np

from voxelsoup.common.errors import InputError
from voxelsoup.data.volumes.volume import Volume
from voxelsoup.data.volumes.voxel_layout import shape_text

# In voxel sides. SimpleITK's 1e-6 refuses what float32 headers and repeated conversion round
# away, which moves no voxel; half a voxel is a real shift, and so are the tenths that are left
# where one channel was resampled and not the others.
LARGEST_SHIFT = 0.05
# In mm: rounding that needs no message.
NOTED_SHIFT = 1e-3
# How the note of a volume begins whose own header does not count.
BY_VOXELS = "taken voxel by voxel, without its header"
PLACEMENT = (
    "; if the voxels are on one grid whatever the headers say, accept it: `dataset.accept: "
    "{placement: voxels}` in a study, `--placement voxels` to predict and to evaluate"
)


def align(
    volume: Volume, reference: Volume, file: Path, first: Path, by_voxels: bool = False
) -> tuple[Volume, str | None]:
    """Turn a volume's voxels onto the grid of another.

    Axes are permuted and flipped, no voxel is interpolated or copied. Which axis is which is read
    from the volume's affine in the voxel indices of the reference, so that scans at 45 degrees,
    whose axes have no certain name, are left as they are stored where the grids agree.

    Where headers state two forms (NIfTI's qform and sform) and the grids do not agree by those that
    are used, they may agree by others: a label map that was drawn in ITK on a scan whose forms
    disagree lies where the scan's qform does.

    Args:
        volume: from ``file``.
        reference: from ``first``, the case's first file.
        by_voxels: where headers do not agree, take a volume of the same shape as it is stored.

    Returns:
        The volume (x, y, z as in the reference, with the reference's affine), and in words what
        had to be handled, or None.

    Raises:
        InputError: if the shapes differ, a corner is displaced by more than ``LARGEST_SHIFT`` of
            the smallest voxel side whichever forms are taken, or two forms would turn the voxels in
            different ways.
    """
    try:
        return _aligned(volume, reference, file, first)
    except InputError as error:
        if volume.data.shape != reference.data.shape:
            raise
        if by_voxels:
            return replace(volume, affine=reference.affine), f"{BY_VOXELS}, which {error.found}"
        raise InputError(error.where, error.found, error.expected, error.fix + PLACEMENT) from error


def is_by_voxels(note: str | None) -> bool:
    """Whether a note of ``align`` says that a volume's own header did not count."""
    return note is not None and note.startswith(BY_VOXELS)


def _aligned(
    volume: Volume, reference: Volume, file: Path, first: Path
) -> tuple[Volume, str | None]:
    pairs = list(product(_named(volume), _named(reference)))
    fits = [_fit(volume.data.shape, one, reference.data.shape, two) for (_, one), (_, two) in pairs]
    taken = next((number for number, fit in enumerate(fits) if fit.refusal is None), None)
    if taken is None:
        raise _refusal(f"has {fits[0].refusal}, compared with {first.name}", file)
    fit, ((form, affine), (other, _)) = fits[taken], pairs[taken]
    if taken and disagreement(volume) and disagreement(reference):
        # A registration that was written into one of the headers would be passed over.
        raise _refusal(
            f"has {fits[0].refusal} by its {pairs[0][0][0]}, compared with {first.name}, and "
            f"agrees by its {form} alone",
            file,
            "register or resample the files of the case to one grid; if their voxels are on one "
            f"already, give both files the header of {first.name}",
        )
    turns = {fit.turn.tobytes() for fit in fits if fit.refusal is None}
    if len(turns) > 1 and (taken or not fit.is_unturned):
        raise _refusal(
            f"fits {first.name} in two ways: their qforms and sforms disagree, and turn its voxels "
            "differently",
            file,
            "set both forms of each file to the one that is right",
        )
    notes = []
    if taken:
        away = f"{fits[0].refusal} by its {pairs[0][0][0]} and the {pairs[0][1][0]} of {first.name}"
        notes.append(
            f"goes by its {form}, and {first.name} by its {other}, where they agree ({away})"
        )
    if not fit.is_unturned:
        stored = _name(affine)
        notes.append(f"stored in the orientation {stored}, turned to {_name(pairs[taken][1][1])}")
    if fit.shift > NOTED_SHIFT:
        notes.append(f"has {fit.drift}")
    data = nib.orientations.apply_orientation(volume.data, fit.turn)
    return replace(volume, data=data, affine=reference.affine), "; ".join(notes) or None


def disagreement(volume: Volume) -> str | None:
    """In words, by which form a volume goes, where those of its header place it differently."""
    if volume.forms is None:
        return None
    (used, affine), *_ = volume.forms.affines.items()
    far = {
        name: _largest_shift(affine, form, volume.data.shape)
        for name, form in volume.forms.affines.items()
    }
    if not max(far.values()) > LARGEST_SHIFT * min(volume.spacing):
        return None
    other = max(far, key=lambda name: far[name])
    itk = volume.forms.itk
    itk = f"ITK goes by its {itk}" if itk != used else "so does ITK"
    return (
        f"the {used} and the {other} of its header are up to {far[other]:.3g} mm apart: goes by "
        f"the {used}, as in nibabel and FSL, and {itk}"
    )


@dataclass(frozen=True)
class _Fit:
    """How a grid lies on another: the turn of its axes (as nibabel's orientations), the largest
    shift of a corner in mm, and why it does not lie there.
    """

    turn: np.ndarray
    shift: float = 0.0
    drift: str = ""
    refusal: str | None = None

    @property
    def is_unturned(self) -> bool:
        return np.array_equal(self.turn, [[0, 1], [1, 1], [2, 1]])


def _named(volume: Volume) -> list[tuple[str, np.ndarray]]:
    return [("affine", volume.affine)] if volume.forms is None else [*volume.forms.affines.items()]


def _fit(
    shape: tuple[int, ...], affine: np.ndarray, onto: tuple[int, ...], reference: np.ndarray
) -> _Fit:
    turn = nib.orientations.io_orientation(np.linalg.inv(reference) @ affine)
    if np.isnan(turn).any():
        return _Fit(turn, refusal="axes that differ")
    turned = tuple(shape[int(axis)] for axis in np.argsort(turn[:, 0]))
    if turned != onto:
        stored = "" if turned == shape else f" (stored as {shape_text(shape)})"
        return _Fit(
            turn, refusal=f"shape {shape_text(turned)}{stored} instead of {shape_text(onto)}"
        )
    affine = affine @ nib.orientations.inv_ornt_aff(turn, shape)
    shift = _largest_shift(affine, reference, onto)
    share = shift / float(nib.affines.voxel_sizes(reference).min())
    drift = f"an affine that differs by up to {shift:.3g} mm ({share:.2g} voxels)"
    # Not "share > LARGEST_SHIFT": an overflow does not match either.
    return _Fit(turn, shift, drift, None if share <= LARGEST_SHIFT else drift)


def _refusal(
    found: str, file: Path, fix: str = "register or resample the files of the case to one grid"
) -> InputError:
    return InputError(file, found, "one grid for all files of a case", fix)


def _largest_shift(one: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """The largest distance in mm between the places that two affines give to a corner voxel."""
    corners = [(*corner, 1) for corner in product(*((0, side - 1) for side in shape))]
    return float(np.linalg.norm((one - other) @ np.array(corners).T, axis=0).max())


def _name(affine: np.ndarray) -> str:
    return "".join(axis or "?" for axis in nib.orientations.aff2axcodes(affine))
