"""A first study for a folder of scans: what ``voxelsoup init`` writes.

In comes a data set whose layout ``data.layouts.detect`` has guessed; out comes a study file with
the reason of each choice as a comment above it.

Begin with ``init.write_first_study``, which takes the steps in order:

- ``fingerprint``: shapes and spacings of all cases from their headers; label volumes and the box
  around the foreground of up to 50 of them from their voxels.
- ``label_meaning``: what label values mean, by a description, by names of cases (the table of
  ``brats_labels``), or by the user's choice; left open where two meanings are possible.
- ``proposal``: from the fingerprint to settings and reasons. Spacing, patch and normalisation
  follow nnU-Net's rules as far as they fit this workflow; each function says where it departs.
- ``topology``: a network planned per axis, for thick slices and volumes of few voxels.
- ``constants``: smallest lesion, surface tolerance and penalty distance by voxels and regions.
- ``training_memory``: what a training needs of a GPU, counted by a process of its own; ``card_fit``
  compares it with a card, ``propose_for_card`` adapts patch and batch to one.
- ``small_study``: the study for CPUs alone, after the examples.
- ``study_yaml``: settings and reasons as YAML that people read and change.

The proposal is loaded like any other study before it is written: what ``init`` writes passes
``voxelsoup check``, except where it leaves regions open. An existing file is never replaced unless
``--force`` says so.
"""
