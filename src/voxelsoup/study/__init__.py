"""The study: what ``config.yaml`` may say, and the trials that it declares.

In come YAML files; out come a checked ``Study``, frozen, with all defaults filled in, and its
trials with ids that stay the same. No torch: the Snakefile and every command import this package.

Begin with ``loading.load``, which checks a study and names everything that is wrong in it at once.

- ``sections/``: one small typed module per topic; each key has a description with its unit, from
  which the JSON schema, ``docs/configuration.md`` (``reference``) and the messages come.
- ``study``: all sections together, and the checks that concern several of them.
- ``trials``: from the sweep to trials. ``combinations`` expands one block of it (grid, zip, random,
  single trials, exclusions), ``random_samples`` draws, ``sweepable`` says what may be swept.
- ``ingredients``: which weights of a trial go into soups, and what they are called.
- ``halving``: how many trials each rung of successive halving trains, and whether it can.

Decisions:

- **A study file replaces** ``config.yaml`` instead of being merged into it: regions and grids of
  two studies must never mix. Several ``--configfile`` are merged in their order.
- **A trial's id** is a hash of its swept keys and values alone: adding or reordering values renames
  nothing, and a changed base setting retrains because Snakemake sees it among a rule's parameters.
  Trials name their own keys only; whatever shows them side by side takes the union of all keys and
  fills in from each trial's study (``trials.parameters_of``).
- **Trials of the same settings are one.** The study alone cannot say which of their ids stays
  without an added block renaming something: it is the one that was begun in the results folder.
- **A random sample is a hash** of seed, number and key: numpy does not promise the same numbers in
  its next version, and ids are made from them. A choice is the value with the highest hash, so that
  a further choice changes only the samples that take it.
- **Ingredients have numbers, not steps, in their names**, so that all trials leave files of the
  same names and the plan is known before they run.
- **Whatever makes trials checks them**: ``trials`` itself refuses a sweep that cannot run, so that
  ``voxelsoup check`` and Snakemake judge alike.
"""
