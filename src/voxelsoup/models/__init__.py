"""Models: networks, losses, weights on disk, and where they compute.

Comes in: the study's description of a network, and weights. Goes out: modules from images
(batch, channel, x, y, z) to logits (batch, region, x, y, z), one sigmoid output per region, and
safetensors files that say what they are.

Begin with ``networks.build``; ``weight_files`` reads and writes weights, ``losses`` has what a
run minimises, ``devices`` chooses the processor and makes torch repeat itself, and ``gpu_locks``
shares out the GPUs of a machine among its jobs.

Decisions:

- Weights are safetensors files with a description in the header. No weights are unpickled: other
  formats could run code when they are loaded.
- All networks are MONAI's, so that a bundle needs nothing else.
- Results are bit-identical for the same device and the same number of threads.
- Runs that share a GPU hold places of it: locks on files, which die with their process. For
  Snakemake, which counts whole numbers, a GPU counts as many as may share it
  (``cluster.job_resources``).
"""
