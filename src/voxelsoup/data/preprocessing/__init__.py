"""From scanner files to arrays to train on, and back into the scanner's geometry.

In: indexed cases and the study's `preprocess` section. Out: `{case}.image.npy` (channel, x, y,
z), `.label.npy`, `.foreground.npy` and `{case}.json`, the geometry with which predictions return
to the scanner's grid; and `preprocessed.tsv`, the list of all cases.

Begin with `preprocess.preprocess_all`. `crop`, `resample` and `normalise` are its steps,
`geometry` returns to the scanner's grid, `store` opens the arrays for training and evaluation.

Decisions:

- **One job for all cases**, which works on several at once and skips those whose fingerprint is
  current: one job per case would cost more in start-up than in work, and the number of cases is
  not known before the index has run.
- **Memory does not grow with the number of channels**: each is cropped as soon as it is read, and
  large ones wait on the disk.
- **A case's JSON is written last** and vouches for its arrays: a killed job leaves no half of a
  case.
"""
