"""Volumes in files: NIfTI, MetaImage and NRRD, read to the last voxel or refused with the reason.

In: a `Source` (a file, or one component of a 4D file). Out: a `Volume` (voxels x, y, z in the
file's own orientation, affine to RAS+ in mm, SHA-256 of the file), or an `InputError` that names
the file, what is wrong and the fix.

Begin with `volume.py`. `nifti`, `metaimage` and `nrrd` read one format's header each into a
`VoxelLayout`; `gzip` unpacks the voxels; `alignment` turns the volumes of a case onto one grid.

Decisions:

- **Sizes are checked from the header before a voxel is read**: against what the file can hold and
  against the free memory. Files come from anywhere, and a wrong header must not end the job. A
  compressed file is unpacked to its end, checksum included.
- **Own readers of MetaImage and NRRD**: SimpleITK ends the process on some damaged headers and
  follows others into any file on the disk (the evidence is in the two modules). Every reader is
  fuzzed (`make fuzz`, tests/data/test_fuzz.py).
"""
