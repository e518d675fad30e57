"""File formats of volumes: each module reads one format's header, ``unpacking`` the voxels."""
