"""The section about the end of a study that nobody watches."""

from __future__ import annotations

from pydantic import Field

from voxelsoup.study.sections.base import Section


class Notify(Section):
    """Who hears of the end of a study that was submitted (``voxelsoup submit``)."""

    mail: str | None = Field(
        None,
        pattern=r"^[^\s,]+$",
        description="Address that Slurm mails to (its `--mail-user`) when the study is done, has "
        "failed or is stopped, and when the node of its head job has failed; not when the head "
        "job hands over. The mail names the study, and COMPLETED, FAILED, CANCELLED or NODE_FAIL.",
    )
    command: str | None = Field(
        None,
        description="Command that the head job's shell runs once the study is done or has failed, "
        "with the variables `VOXELSOUP_STATE` (`done` or `failed`), `VOXELSOUP_STUDY`, "
        "`VOXELSOUP_RESULTS` and `VOXELSOUP_LOG`; it has a minute. Keys and passwords do not "
        "belong here: the study is copied into results.",
    )
