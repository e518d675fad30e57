"""A run on disk: which process trains it, what it can resume from, and what it is doing.

A run is the training of one stem or one trial on one fold. Everything here lies in the run's states
(``results/.state/fold0/stem`` or ``.../trials/ID``), beside the results, because Snakemake deletes
the outputs of a job that fails.

In: the settings that a run's result depends on (its identity), and its training.
Out: its lease, its newest states and its record, for the next attempt and for observers.

Begin with ``guard``: one context around a training that holds the lease, saves states, keeps the
record and ends the run when it is asked to. Below it:

- ``lease``: one owner at a time, by numbered files and a heartbeat. No clock is compared with
  another one, and no lock of the file system is needed, so that it holds across hosts.
- ``resume_state``: the states that it resumes from, checked by their SHA-256; beside ``guard`` the
  only module here that needs torch.
- ``divergence``: what is known of runs whose numbers became NaN or infinite.
- ``record``: the run's one small file, ``status.json``. Results never depend on it.
- ``larger_card``: where a run goes whose GPU's memory was not enough.
- ``signals``: requests to end, noted until the next step.
- ``watchdog``: ends a process in which no step ends any more, and writes down where it stood.
- ``rungs``: what a successive halving leaves on disk.
- ``invocation``: how Snakemake was started, and the study files of a results folder.
- ``snapshot``: the study as it was when it was started, which all of its jobs read.
- ``submission``: the head job of a submitted study, and the study as it was then.
- ``origins``: what results were made from; ``snakemake_records`` lets Snakemake decide by them what
  is current, and ``plan_table`` shows what will be done and why.

``run_state`` decides what a run is doing, for the plan, ``trials``, ``status`` and ``prune`` alike;
``failures`` says why it ended and what to do about it. Both take what Slurm says as plain data.

Decisions:

- **A run can die at any moment.** States are written atomically, by a thread beside the training.
  A run that was killed resumes from the last one, bit-identical to an undisturbed run.
- **What is NaN or infinite is never saved.** A run goes back to its last state once, for a fault of
  the hardware does not come again; what comes again at the same step always does, and a note beside
  the states keeps later attempts from finding that out.
- **A process without a heartbeat is lost**, also on this host and also if it is merely stopped: it
  cannot be distinguished from a hung one. Its successor takes over, and the former owner finds
  that out before it writes anything.
- **Reasons travel as data.** An attempt writes its error into the record, a job that fails before
  its training beside its log (``common.logs``); no log is parsed.
"""
