"""Everything between the files of a data set and the arrays that training reads.

In: the sections `dataset`, `folds` and `preprocess` of a study, and a folder of scans in any of
the supported layouts and formats. Out: `cases.tsv` and `rejected.tsv`, `folds.json`, and one
array per preprocessed case.

Begin with `case.py` (what a case is), then follow the rules in `rules/data.smk`:

- `volumes/`: reads NIfTI, MetaImage and NRRD files, and puts the volumes of a case on one grid
- `layouts/`: finds the cases of a folder, one reader per layout, without opening a volume
- `index/`: reads and checks every case before anything is computed
- `folds.py`: deals patients out to training, selection and test cases, and `balance.py` evenly by
  regions and sites, where the study says so
- `regions.py`: label values to regions and back
- `preprocessing/`: crops, resamples, normalises, and returns to the scanner's grid

Imports run downwards in this order: case, volumes, layouts, index, balance, folds; regions,
preprocessing.

Decisions:

- **Label maps are made by overwriting** (`regions`), from the regions alone: nothing in a model
  file or a study can disagree with it, and an ambiguous order has to be stated.
- **Trainings wait for one manifest**, `preprocessed.tsv`, not for the files of all cases: the
  plan of thousands of runs stays fast.
"""
