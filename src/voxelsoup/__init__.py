"""voxelsoup: train many 3D segmentation models as one declared study and average them into one."""

import os

from voxelsoup.common.logs import START_RECORD
from voxelsoup.common.monai_import import hide_extras_from_monai

__version__ = "0.1.0"

# Read when torch is loaded. Threads that wait for each other busily take the cores from other jobs
# and from themselves: on a shared machine a training step took twice as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Read likewise: what torch has not written for an Apple GPU is computed on the CPU, with a warning,
# in place of an error.
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

# The jobs of a study start MONAI dozens of times.
if START_RECORD in os.environ:
    hide_extras_from_monai()
