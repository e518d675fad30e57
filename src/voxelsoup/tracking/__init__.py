"""Trackers: the runs of a study in MLflow or W&B, beside all other experiments of a group.

In: the records that runs and rules leave in the results folder (``history.csv``, ``status.json``,
``run.json``, ``recipe.json``, scores and tables). Out: runs of a tracker, by default in files of
the results folder.

Begin with ``mirror``: one process reads the study (``tracked_runs``, by what the status knows) and
hands each run that has changed to a tracker (``mlflow_store``, ``wandb_files``). ``follow`` is that
process beside Snakemake, which ``observer`` starts and ends; ``voxelsoup track`` is the same at any
later time. ``installed`` asks before any compute whether the tracker's package is there.

Decisions:

- **A training knows of no tracker.** It writes its records, as ever; one process reads them. A
  hundred jobs never share a database over a network file system, and no rule, identity or plan
  depends on the setting.
- **An observer, not a rule.** A rule would be planned, submitted, repeated and waited for, and a
  tracker that fails would fail the study. The observer is a process of its own session; Snakemake
  holds a pipe to it and never asks it anything. When the pipe closes, also by ``kill -9``, it
  mirrors a last time and ends within ``LAST_SECONDS``; Snakemake waits as long and then kills it.
- **The tracker is asked what it has.** A run is known by a tag (MLflow) or its id (W&B) that is
  made of the study's id and its own name, so that a mirror that was killed anywhere, or lost its
  notes, doubles nothing. A lease lets one mirror at a time write.
- **Curves only grow.** Steps that the tracker has are not written again; a training that resumes
  from an earlier state adds what comes after them. One that starts over is another training: its
  run is replaced.
- **The tracker's package is imported in the mirror alone**; MONAI, which would import MLflow in
  every training, does not find it there (``voxelsoup/__init__.py``).
"""
