"""Models of a fold averaged into one: candidates, averages, selection, recipes, ensemble, barriers.

In comes a fold's list of models with their scores (`candidates.tsv`); out come a soup's
`model.safetensors`, its per-case scores, and `recipe.json`, which is enough to make the soup
again. Begin at `workflow/scripts/soup.py` and one recipe (`recipes/greedy`);
`docs/architecture.md` lists the files from the rule to the result, each to be opened once.
Besides that path, `ensemble` scores the mean of the models' probabilities, and `barriers`
measures whether models can be averaged at all.

Decisions:

- **A recipe is a function** from ingredients and a `Selection` to a weighted average (files and
  weights): a module of `recipes` and an entry in its table. What gained nothing over `greedy` left
  (`docs/souping.md` has the figures).
- **No case is evaluated twice for a soup.** `selection` takes the single models' scores from
  their evaluation, keeps those of candidates by what they are made of
  (`.state/fold{k}/candidates.jsonl`, which all recipes of a fold share), and drops a candidate as
  soon as perfect scores on all remaining cases could not make it win: the outcome is that of
  evaluating everything.
- **Weights are known by their hash, and so are their scores.** What is compared at the end and has
  the weights of a trial (the best single model, a soup of one ingredient) takes the trial's scores
  (`compared_scores`). The same weights predict a case again only
  - where its probabilities are needed, which nobody keeps: to try post-processing on selection
    cases, for test cases that it changes, for the ensemble, whose time is measured by the way (that
    of a single model differs from it in the last digits), for configurations side by side
    (`configurations`: on selection cases with times, on test cases, and to choose the
    post-processing of an ensemble that is not known before), and for pictures of cases;
  - in rules whose jobs may run at the same time: `finished` and `finished-best` of a soup of one
    ingredient, and the models on further test sets, which each leave label maps.
- **Memory does not depend on the number of models.** `averaging` holds one float64 sum and reads
  one file at a time.
- **A soup can be rebuilt from its record** (`soup.rebuild`), bit-identical but for running
  statistics of batch norm, which depend on the data too.
- **An ensemble is no soup.** It has no weights, so it has a rule and a module of its own: one
  network and one float64 sum of probabilities in memory, each model loaded in turn for each case.
  Every case is kept as it is scored (`.state/fold{k}/ensemble.jsonl`, apart from what soups
  choose by, for its test cases are in it). Tables show its cost, `models_per_prediction`, beside
  it.
- **Whether averaging can work is measured** for every fold (`barriers`): linear mode connectivity
  between the best model and each other one, at a few points on a few cases. A point in the middle
  is the very candidate that greedy scores, so that whichever runs second finds it in the fold's
  cache. Distances come from one pass over all files in pieces.
- **One ranking of models** (`candidates.ranking`) for rungs, soups, tables and bundles.
"""
