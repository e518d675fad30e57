"""What jobs ask for, and whether a cluster serves it.

In come a study, a Snakemake profile and what Slurm says of its partitions; out come the resources
of every rule, and a list of checks, each with its problem and fix if it fails.

Begin with ``job_resources``: its table ``RULES`` says of every rule which part of the study's
``resources`` it goes by, what there is one job for, what it waits for, and whether it is submitted.

- ``job_resources``: what a job asks for, by attempt, alone or in a group.
- ``profile``: the site, read from its Snakemake profile.
- ``slurm``: asks ``sinfo`` for the nodes.
- ``partitions``: where each submission will go, or that no partition serves it.
- ``doctor``: all checks in order, for ``voxelsoup doctor``; ``node_probe`` runs on a node and
  reports whether files travel, torch imports and GPUs are seen.
- ``gpu_memory``: the cards that trainings get, and whether their memory is enough;
  ``memory_probe`` has a training measured on one.
- ``associations``: your account and QOS, and what they limit.
- ``submissions``: jobs handed to Slurm, and what becomes of those that it refuses;
  ``submission_errors`` tells what passes from what can never be accepted, by Slurm's words.
- ``acceptance``: whether the controller would take a job.
- ``submitting_nodes``: whether it takes jobs from compute nodes, for a study's head job;
  ``submission_probe`` asks from one.
- ``head_job``: the job in which a submitted study's own Snakemake runs, as Slurm sees it;
  ``head_placement``: its partition and time, and how many jobs may be submitted beside it.
- ``upstream_patches``: what Snakemake and its Slurm plugin lack, all of it in this module.

Decisions:

- **One table says what a rule asks for.** Rules take ``threads`` and ``resources`` from it, and the
  doctor asks the same functions what will be submitted, and the plugin's own code where it will go:
  both agree with what then happens. tests/repository/test_rules.py compares it with the rule files.
- **Groups are the profile's**, not the rules': whether small jobs share a submission is a matter of
  the cluster. ``trial`` and ``evaluate`` share one; a stem stands alone: everything waits for it.
- **Runs that share a GPU** are counted by Snakemake in whole numbers: on one machine a GPU counts
  as many as may share it (``job_request``). On a cluster the site decides.
- **Refused before submission**: a job that no partition serves would pend for ever, so it ends the
  study before its first submission. Drained nodes are no reason to refuse (``partitions``).
- **What passes is waited for**, and uses up no attempt of a job: a limit of submitted jobs, a
  controller that is away, a full disk, preemption. What can never be accepted ends the study:
  what runs is finished (a training of hours is worth more than a quick end), and nothing more is
  submitted.
- **The head job of a study is one job all the time**: it hands over by putting itself back into the
  queue. So it keeps its number and its one place within the limit of submitted jobs, and a
  hand-over is the same as the death of its node.
- **Patches are for one version of upstream**, which ``pyproject.toml`` requires.
- Only this package, the rules and the scripts know Snakemake: its Slurm plugin decides where
  a job will run, and ``partitions``, ``profile`` and ``doctor`` ask it.
"""
