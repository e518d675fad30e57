"""Training: one run of a fold, the stem or a trial, from preprocessed cases to weights.

Comes in: a ``run.Run`` (the study with the run's own settings, its seed, its training cases, the
model that it starts from). Goes out: ``model.safetensors``, further ingredients beside it, the
history of the epochs, and ``run.json``, which says how it was trained.

Follow one training by opening these files in this order, each once:

1. ``rules/train.smk``: the rules `stem` and `trial`;
2. ``workflow/scripts/trial.py``: the page of a trial (``stem.py`` is that of a stem);
3. ``training/run.py``: what a run is, and which settings its result depends on;
4. ``training/job.py``: trains it under its lease, and writes what it leaves behind;
5. ``runs/guard.py``: keeps its states, and ends it when a signal or a successor asks for it;
6. ``training/train.py``: the loop, and the state that the next step depends on;
7. ``models/networks.py``: the network;
8. ``training/optimizers.py``: optimizer, schedule and averaged weights;
9. ``models/losses.py``: the loss;
10. ``training/patches.py``: batches by their numbers;
11. ``training/augment.py``: their augmentation;
12. ``training/affine.py``: rotation and zoom;
13. ``training/batch_norm.py``: running statistics of the averaged weights;
14. ``models/weight_files.py``: the file itself.

Beside the way: ``launch`` starts a process for each GPU of a run and ``data_parallel`` is what
they do together; ``epochs`` measures the pace and ``tensorboard`` shows it; ``preflight`` refuses
before the first job what could not be trained.

Decisions:

- A patch is a function of the run's seed and the patch's number, and the augmentation of a step
  one of the seed and the step: neither workers nor a restart change what a run sees, and the
  position in the data is the step alone.
- A run's identity is what its result depends on: settings, initial weights, data, seed. A state
  of another identity is not used. The length belongs to it only where the schedule needs an end.
- Averaged weights come out in one place, ``optimizers.RunOptimizer.averaged_weights``.
- Checkpoints before the end are carried in the state, so that a resumed run has the very same.
  Which weights are kept at the end is no part of the identity: the last state still gives them.
- Several GPUs train one run in step. A share of a batch is some of its places, so that patches
  and random draws are those of one process, and the loss is taken over the gathered logits of
  all: Dice over a batch is not the mean of the Dice of its parts. After every step the processes
  agree on a number, the largest signal that any has got. Only the first has a guard, and its last
  state is the result: the job resumes from it and writes what a run in one process writes.
- Observers change nothing in a run: ``train.train`` reports every epoch to them.
- The network is shown one patch on torch's `meta` device before the first job, which computes
  shapes alone and takes no memory.
"""
