"""The answer of a study: soups against the best single model, with their uncertainty.

In come the per-case scores of a results folder; out come the tables of `results/comparison` (CSV
with every digit; Markdown, LaTeX and HTML with the same cells), and the sentences of the report.
Begin at `workflow/scripts/compare.py`: `folds` reads what each fold has, `statistics` compares it
(paired over cases, the fold as a block), `conclusions` says in a sentence what that shows,
`findings` makes the comparisons that every study makes, and `answer` writes the paragraphs that
the report begins with. `overview`, `sweep_effects`, `postprocessing_effect` and `barriers` are
the other tables; `tables` and `pages` write any of them, `terminal` prints them, and `names` has
what models are called. `study_entries`, `scored_study`, `common_ground` and `between_studies` set
finished studies, or configurations of them, beside each other (`voxelsoup compare`), and `families`
judges their pairs.

Decisions:

- **All numbers come from per-case scores** (`voxelsoup.evaluation.case_scores`). Tables,
  sentences, figures and methods are made from the same values, so that they cannot disagree.
- **`statistics` knows neither files nor tables.**
- **One question is primary** (`comparison.primary`) and tested by itself; the others over the same
  folds are adjusted for each other (Holm).
- **One model is called better if and only if the interval leaves out 0.** The p value is the
  smallest level at which it does so, and a secondary comparison has the interval of the level that
  Holm's method tests it at: sentence, interval and p value cannot disagree.
- **Patients are resampled**, not cases: those of one patient are alike.
- **Scores of the `published` protocol are marked optimistic wherever they stand**: there, models
  are chosen and scored on the same cases.
- **People read what distinguishes a trial** (`lr 0.03, seed 1`); CSV files keep its id.
"""
