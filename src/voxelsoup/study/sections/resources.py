"""Sections about the machine: what jobs need, and what a crash may cost."""

from __future__ import annotations

from pydantic import Field, model_validator

from voxelsoup.study.sections.base import Section, only_if_not


class Needs(Section):
    """What one kind of job needs from the machine."""

    threads: int = Field(1, ge=1, description="CPU cores.")
    gpu: int = Field(0, ge=0, description="GPUs.")
    gpu_model: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_.-]+$",
        description="GPU model by the cluster's name for it (`sinfo -o %G`); null: any.",
    )
    mem_mb: int = Field(
        2000,
        ge=100,
        description="Main memory in MB of the first attempt; the second gets twice as much.",
    )
    runtime: int = Field(
        60,
        ge=1,
        description="Longest run time in minutes of the first attempt; the second gets twice as "
        "much.",
    )

    @model_validator(mode="after")
    def _model_goes_with_a_gpu(self) -> Needs:
        if self.gpu_model is not None and self.gpu == 0:
            raise ValueError("`gpu_model` goes with a `gpu` of at least 1")
        return self


class Resources(Section):
    """Needs of the jobs; profiles map them onto a machine or a cluster."""

    preprocess: Needs = Field(Needs(threads=2), description="Index, preprocess and bundle.")
    training: Needs = Field(
        Needs(),
        description="Stem and trial. With a `gpu` of several, each run trains on all of them: "
        "every GPU takes its share of `training.batch_size`, which has to be a multiple, and the "
        "result is that of one GPU up to rounding.",
    )
    evaluation: Needs = Field(
        Needs(), description="Evaluate, soup, ensemble, basin and the batches of predict."
    )
    tables: Needs = Field(
        Needs(mem_mb=1000, runtime=20),
        description="Folds, compare, figures, basins, collect, methods, run times, report, "
        "manifest.",
    )
    runs_per_gpu: int = Field(
        1,
        ge=1,
        description="Trials, with their scores, that share one GPU. Small runs leave a large card "
        "partly idle; its memory has to hold all of them. On one machine only; on "
        "Slurm the site decides (docs/cluster.md).",
    )
    accept_gpu_memory: bool = Field(
        False,
        exclude_if=only_if_not(False),
        description="Start trainings that are estimated to need more than 1.3 times the memory of "
        "the GPU that they would get, which is refused otherwise (docs/memory.md).",
    )


class Recovery(Section):
    """What a crash may cost; does not change any result."""

    save_minutes: float = Field(
        5.0,
        gt=0,
        description="Minutes of training between two saved states of a run, which is the most "
        "that a killed run repeats. A run that is asked to end saves its state at "
        "once.",
    )
    lease_seconds: float = Field(
        60.0,
        ge=1,
        description="A run whose owner has given no sign of life for this many seconds may be "
        "taken over by another process. File servers that are slow to show changes "
        "need more.",
    )
