"""New scans to label maps in the scanner's own grid: `voxelsoup predict` and `snakemake predict`.

In: models as users name them (files, folders of soups or ensembles, bundles) and scans in any
layout. Out: one label map per case, probabilities on request, and a record of what each depends
on.

Begin with `batch.predict_cases`; `predictor` predicts one case, `model_files` opens and checks
models, `scans` finds the cases, `bundle_files` reads a bundle, and `outcomes` lists what became
of each case (without torch, for the rules).

Decisions:

- **One inferer for evaluation and prediction** (`evaluation.sliding_window`): rows that no later
  window reaches are passed on at once, so that a volume's logits are never in memory as a whole.
- **Several models and mirror images are predicted one after the other**, with sums on the disk:
  memory does not grow with their number, and the mean is that of complete predictions.
- **A prediction's record is one small file per case**, beside the label maps: jobs of a cluster
  write them at the same time without sharing a file, and a copy of the folder has them too.
- **Bad cases are results, not failures**, until the last step: one of them stops no other.
- **Nothing is overwritten** that was not predicted here.
- **`snakemake predict` has a checkpoint**: how many batches there are is known when the scans are
  listed. A batch's parameters hold the dates of its scans' files, so that only batches whose scans
  have changed are predicted again. Label maps are not outputs, because a bad case has none; the
  record of a batch that lost one is removed when Snakemake starts.
"""
