"""What Snakemake's Slurm plugin (2.8.0) lacks, put into it where this process submits jobs."""

from __future__ import annotations

from typing import Any

import snakemake_executor_plugin_slurm as plugin


def remember_job_age() -> None:
    """Let `squeue` report ended jobs also after the controller was away.

    The plugin asks for MinJobAge before every round of status queries. Where the controller does
    not answer just then, it asks `sacct` for the whole round: in vain where there is no
    accounting, and after the round it has forgotten its jobs and waits for ever.
    """
    age = plugin.get_min_job_age()
    if age is not None:
        plugin.get_min_job_age = lambda: age


def name_runs_in_comments() -> None:
    """Let a submission's comment say which runs it trains, for `voxelsoup status`.

    The plugin writes the rule and its wildcards there, and for a group of jobs only the names of
    the rules: a pending one could be any trial's.
    """
    submit_command = plugin.get_submit_command

    def with_runs(job: Any, params: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        jobs = job.jobs if job.is_group() else [job]
        trained = [one for one in jobs if one.rule.name in ("stem", "rung", "trial")]
        runs = [f"fold{one.wildcards.fold}/{one.wildcards.get('trial', 'stem')}" for one in trained]
        comment = " ".join([params["comment_str"], *sorted(runs)])
        return submit_command(job, params | {"comment_str": comment}, *arguments, **options)

    plugin.get_submit_command = with_runs
