"""A model on whole cases: windows, metrics, post-processing and per-case scores.

In come a model file and preprocessed cases (`voxelsoup.data.preprocessing`); out comes a row per
case and region (`case_scores`), which every number of a study is a mean of. Begin at `score`: it
predicts a case in windows (`sliding_window`), puts the probabilities back into the voxels of the
scan and compares them with the ground truth (`metrics`, with `surfaces` and `lesions`).
`postprocessing` is what is applied to a prediction, `postprocessing_search` how a fold chooses it,
and `tensorboard` writes the scores of a run beside its curves. `run_scores` scores the models of a
run in the job that has trained them, and `kept_scores` holds the scores until their rule asks.

Decisions:

- **Choices are made on selection cases by Dice alone, judgements on test cases by all metrics.**
  The selection cases of a fold are set aside from its training cases: models, soups and
  post-processing are chosen on them. Other metrics ask for all scores again.
- **The job that trains a run scores its models**, with the device that it has, and the rule takes
  the scores where they are what it would compute: starting a process costs more than most cases.
- **Scores are taken in the voxels of the scan**: probabilities are resampled to the scan's
  spacing before they are compared with the ground truth.
- **One inferer for evaluation and prediction** (`sliding_window`): MONAI's windows and weights,
  but rows that no later window reaches are handed on at once, so that a volume's logits are never
  completely in memory. `predict_logits` gathers them for the evaluation of small volumes.
- **One post-processing per fold, for all models compared**: thresholds that each model chose for
  itself would make the comparison one of thresholds. It is chosen on the selection cases of the
  best single model and the soups; an ensemble uses the same. Scores before and after it come from
  the same predictions, so one job per fold predicts each case once.
- **Metrics are those of the BraTS challenges** (surface-distance, lesion-wise scores), and import
  neither torch nor MONAI.
"""
