"""Training: one run of a fold, the stem or a trial, from preprocessed cases to weights.

Comes in: a ``run.Run`` (the study with the run's own settings, its seed, its training cases, the
model that it starts from). Goes out: ``model.safetensors``, further ingredients beside it, the
history of the epochs, and ``run.json``, which says how it was trained.

Begin with ``job``, which trains a run under its lease, and ``train``, the loop; what a run is and
which settings its result depends on is in ``run``. ``docs/architecture.md`` lists all files of a
training in the order to open them.

Aside from that path: ``data_workers`` reads patches in further processes; ``launch`` starts a
process for each GPU of a run, ``data_parallel`` is what they do together and ``peers`` what they
know of each other; ``batch_norm`` re-estimates running statistics; ``epochs`` measures the pace and
``tensorboard`` shows it; ``memory`` counts what a training needs of a GPU, ``measured_memory``
measures it there, and ``out_of_memory`` says what to change where it was not enough; ``preflight``
refuses before the first job what could not be trained.

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
- A data worker only reads: it can be killed at any time, and is as soon as the run ends. Its
  errors travel in place of its batches. One that dies is noticed between two steps, where a state
  can still be saved; torch's own signal handler, which may raise within one, is taken out.
- A process that hangs is ended by a thread beside it (``runs.watchdog``): no exception reaches a
  thread that waits for a file server or a GPU.
- Observers change nothing in a run: ``train.train`` reports every epoch to them.
- The network is shown one patch on torch's `meta` device before the first job, which computes
  shapes alone and takes no memory.
"""
