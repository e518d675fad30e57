"""``voxelsoup status``: what every run of a study is doing, for a terminal, a page or a script.

In: a study file, and what its runs have written so far (``runs``), perhaps thousands of them.
Out: one row per run, shown as a table, as one run in detail, as JSON or as an HTML page.

Begin with ``study_status``: it reads the runs (``read_runs``), asks Slurm once for all of them
(``slurm_jobs``), lets ``runs.run_state`` decide what each is doing, and makes ``rows`` of that.
``filters`` chooses and sorts rows; ``terminal``, ``one_run`` and ``page`` show them.

Decisions:

- **The status only reads.** It disturbs no run, and looks at 5,000 of them in less than two
  seconds (``bench/status.py``): folders are listed once, small files are read once, and neither
  torch nor pandas is imported.
- **People read a trial's settings, not its id**: a row's ``label`` says what distinguishes the
  trial; the id stands beside it, for commands and paths.
- **The page is one file** made of a template, a style and a script (``templates/``). It loads
  nothing, so that it works from a disk as well as from a server, and loads itself again.
"""
