"""segsoup: train many 3D segmentation models as one declared study and average them into one."""

__version__ = "0.1.0"
