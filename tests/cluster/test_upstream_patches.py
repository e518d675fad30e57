"""The code of Snakemake and its Slurm plugin that voxelsoup patches is what the patches are for."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

# Snakemake's modules import each other: this one has to be the first.
import snakemake.api  # noqa: F401
import snakemake_executor_plugin_slurm as plugin
from snakemake import common, sourcecache
from snakemake.dag import DAG
from snakemake.iocontainers import ResourceList
from snakemake.jobs import GroupJob, Job
from snakemake.persistence import PersistenceBase
from snakemake.resources import GroupResources
from snakemake.rules import Rule
from snakemake.scheduling.job_scheduler import JobScheduler
from snakemake.workflow import Workflow
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

from voxelsoup.cluster import upstream_patches

REPORTS = Path(__file__).parents[2] / "docs/upstream"

# What is replaced, wrapped or relied upon -> the beginning of the SHA-256 of its source.
UPSTREAM: dict[Callable[..., Any], str] = {
    sourcecache.parse_uri: "098465b589f0",
    common.get_function_params: "ffd80f636452",
    GroupJob.log_error: "06f181dd9ac4",
    Job.output_mintime.fget: "b7b45c26508f",
    Job.outputs_older_than_script_or_notebook: "2134cf6e1815",
    Job.postprocess: "6c242cdd6b93",
    Job.restart_times.fget: "deb703b85c55",
    GroupJob.restart_times.fget: "f22e23d0a931",
    GroupJob.resources.fget: "41c39303115a",
    GroupResources._is_string_resource: "81661ef2eeb0",
    GroupJob.postprocess: "f3d4263cdda8",
    DAG.update_needrun: "2cc7fc071416",
    Workflow._prepare_dag: "ebf5bb8da7c8",
    PersistenceBase.started: "a2febaa91900",
    PersistenceBase.finished: "3f347851a55e",
    Rule.group.fget: "e6fed1c3280c",
    plugin.get_min_job_age: "26dc8de45ece",
    plugin.get_submit_command: "8ec37eca0a8f",
    plugin.set_gres_string: "4fd3bc7c49c8",
    plugin.query_job_status: "e0a595a37ef2",
    plugin.Executor.__post_init__: "a2516401a2d4",
    plugin.Executor.run_jobs: "237137067302",
    plugin.Executor._submit_job: "9220e03682ba",
    plugin.Executor._report_job_error_threadsafe: "bccc14fdfb49",
    plugin.Executor.run_job: "d8a8af5d4605",
    plugin.Executor.check_active_jobs: "a15ec905e07e",
    plugin.Executor.shutdown: "67e48b94f0bc",
    RemoteExecutor.cancel: "7f232b7a6371",
    RemoteExecutor.report_job_submission: "d85e8b031315",
    RemoteExecutor._wait_for_jobs: "7b4ab4f49ea0",
    JobScheduler.schedule: "9f32db93a39b",
    JobScheduler._handle_error: "255b52a98a34",
    JobScheduler.error_callback: "f82ebb2d9974",
    JobScheduler.exit_gracefully: "71dc8bb2df12",
}


def test_the_patches_say_which_versions_they_are_for() -> None:
    assert upstream_patches.__doc__ is not None
    made_for = " ".join(upstream_patches.__doc__.split())
    assert f"Snakemake {version('snakemake')}," in made_for
    for package in ("snakemake-executor-plugin-slurm", "snakemake-interface-executor-plugins"):
        assert f"{package} {version(package)}" in made_for


@pytest.mark.parametrize("code", UPSTREAM, ids=lambda code: code.__qualname__)
def test_the_patched_code_is_that_which_the_patches_were_made_for(code: Any) -> None:
    found = hashlib.sha256(inspect.getsource(code).encode()).hexdigest()
    assert found.startswith(UPSTREAM[code]), (
        f"{code.__module__}.{code.__qualname__} is another one: is its patch in "
        "cluster/upstream_patches.py still needed, and does it still fit?"
    )


def test_every_patch_has_a_report_for_upstream_and_every_report_a_patch() -> None:
    source = inspect.getsource(upstream_patches)
    reports = {path.name for path in REPORTS.glob("*.md")} - {"README.md"}
    assert reports == {name for name in reports if f"docs/upstream/{name}" in source}
    assert source.count("docs/upstream/") - 1 >= len(reports)
    for word in source.split():
        if word.startswith("docs/upstream/") and word.endswith(".md"):
            assert (REPORTS.parents[1] / word).is_file()


def job(**resources: Any) -> SimpleNamespace:
    """What the plugin looks at of a job."""
    return SimpleNamespace(resources=resources)


@pytest.mark.parametrize(
    ("resources", "options"),
    [
        ({}, ""),
        ({"gpu": 2}, " --gpus=2"),
        ({"gpu": 2, "gpu_model": "nvidia_a100-sxm4-80gb"}, " --gpus=nvidia_a100-sxm4-80gb:2"),
        ({"gpu": 1, "gpu_model": "a100_3g.20gb"}, " --gpus=a100_3g.20gb:1"),
        ({"gpu_model": "a100"}, " --gpus=a100:1"),
        ({"gres": "gpu:nvidia_h100-nvl:1"}, " --gres=gpu:nvidia_h100-nvl:1"),
        ({"gres": "shard:2", "gpu": 0}, " --gres=shard:2"),
    ],
)
def test_gres_options_take_every_name_that_slurm_has(
    resources: dict[str, Any], options: str
) -> None:
    assert upstream_patches.gres_options(job(**resources)) == options


@pytest.mark.parametrize(
    "resources", [{"gres": "'gpu:1'"}, {"gres": "gpu:1; rm x"}, {"gpu_model": "a100 --wrap=x"}]
)
def test_gres_options_refuse_what_a_shell_would_take_apart(resources: dict[str, Any]) -> None:
    with pytest.raises(WorkflowError, match="Invalid"):
        upstream_patches.gres_options(job(**resources))


def asking(model: str | None) -> SimpleNamespace:
    """A job of a group that may ask for a GPU model."""
    asked = {"gpu": 1, "runtime": 5} | ({"gpu_model": model} if model else {})
    found = SimpleNamespace(rule=SimpleNamespace(resources={"gpu_model": None}))
    found.resources = found._resources = ResourceList(fromdict=asked)
    return found


def test_jobs_of_a_group_ask_for_the_largest_gpu_model_that_one_of_them_asks_for() -> None:
    jobs = [asking(model) for model in (None, "a100", "h100", None)]
    upstream_patches.agree_on_model(jobs, lambda models: models[-1])
    merged = GroupResources._merge_resource_dict([dict(job._resources.items()) for job in jobs])
    assert merged == {"gpu": 1, "runtime": 5, "gpu_model": "h100"}
    for model in (None, "a100"):
        jobs = [asking(model), asking(model)]
        upstream_patches.agree_on_model(jobs, lambda models: "never")
        assert jobs[0]._resources is jobs[0].resources


def run_of(rule: str, **params: Any) -> SimpleNamespace:
    """A job of a group, which a workflow calls as it likes."""
    wildcards = type("Wildcards", (dict,), {"fold": "0"})(fold="0", trial="0a1b2c3d")
    named = SimpleNamespace(name=rule)
    return SimpleNamespace(rule=named, params=SimpleNamespace(**params), wildcards=wildcards)


def test_comments_name_runs_whatever_the_workflow_calls_their_rules(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plugin, "get_submit_command", lambda job, params: params["comment_str"])
    upstream_patches.name_runs_in_comments()
    places = ["fold0/stem", "fold0/trials/0a1b2c3d", "fold1/finish/best/0.01", "final/finish"]
    trained = [run_of("seg_run", states=f"/d/results/.state/{place}") for place in places]
    group = SimpleNamespace(jobs=[*trained, run_of("seg_evaluate")], is_group=lambda: True)
    comment = plugin.get_submit_command(group, {"comment_str": "rules"})
    names = ["final/finish", "fold0/0a1b2c3d", "fold0/stem", "fold1/finish/best/0.01"]
    assert comment == f"rules {' '.join(names)}"


def test_a_second_study_of_a_workflow_patches_the_plugin_no_second_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patched = ["get_min_job_age", "get_submit_command", "set_gres_string", "query_job_status"]
    methods = ["__post_init__", "run_job", "cancel", "check_active_jobs"]
    places = [(plugin, name) for name in patched] + [(plugin.Executor, name) for name in methods]
    for place, name in [*places, (GroupJob, "log_error")]:
        monkeypatch.setattr(place, name, getattr(place, name))
    monkeypatch.setattr(upstream_patches, "NOTES", noted := [])
    monkeypatch.setattr(plugin, "get_min_job_age", lambda: None)
    upstream_patches._patch_slurm_plugin_once.cache_clear()
    first, second = (lambda text, ends: None), (lambda text, ends: None)
    upstream_patches.patch_slurm_plugin(first)
    once = [getattr(place, name) for place, name in places]
    upstream_patches.patch_slurm_plugin(second)
    assert [getattr(place, name) for place, name in places] == once
    assert noted == [first, second]


@pytest.mark.parametrize(
    ("rule", "group"), [("wide_trial", "run"), ("wide_stem", None), ("trial", "run")]
)
def test_rules_of_a_configuration_have_the_groups_that_a_profile_gives_the_study_s(
    rule: str, group: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow = SimpleNamespace(
        non_local_exec_or_dryrun=True,
        group_settings=SimpleNamespace(overwrite_groups={"trial": "run"}),
    )
    monkeypatch.setattr(
        upstream_patches, "IN_PROFILE", {"wide_trial": "trial", "wide_stem": "stem"}
    )
    found = SimpleNamespace(name=rule, workflow=workflow, _group=None)
    assert upstream_patches._group(found) == group
    workflow.non_local_exec_or_dryrun = False
    assert upstream_patches._group(found) is None


def test_a_run_is_named_behind_its_configuration_wherever_its_results_lie(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upstream_patches, "CONFIGURATION_OF", {"wide_trial": "wide"})

    def name(rule: str, states: str) -> list[str]:
        found = SimpleNamespace(
            rule=SimpleNamespace(name=rule), params=SimpleNamespace(states=states)
        )
        return upstream_patches._run_of(found)

    place = "/.state/fold0/trials/0a1b2c3d"
    assert name("wide_trial", f"out/configurations/wide{place}") == ["wide/fold0/0a1b2c3d"]
    # A study whose own results lie in a folder of that name has one configuration.
    assert name("trial", f"out/configurations/mine{place}") == ["fold0/0a1b2c3d"]
    assert name("best", "") == []
