# What happens before the first job starts and after the last one has ended.
from functools import partial

from voxelsoup.cluster.job_resources import RULES
from voxelsoup.common.errors import Stopped
from voxelsoup.common.logs import START_RECORD
from voxelsoup.common.monai_import import hide_extras_from_monai
from voxelsoup.planning.card_fit import fit_here, refuse
from voxelsoup.planning.training_memory import CannotCount
from voxelsoup.runs import snakemake_records
from voxelsoup.runs.invocation import note_submissions, remember_study, write_invocation
from voxelsoup.runs.lease import Lease
from voxelsoup.runs.snapshot import RECORD, record_beside, sources, write_snapshot
from voxelsoup.study.plug_ins import records_of
from voxelsoup.tracking.installed import check_installed
from voxelsoup.tracking.observer import Observer

# One Snakemake at a time; the lease of one that was killed is free at once on the same host.
study_lease = Lease(Path(study.results, ".state"), study.recovery.lease_seconds, wait=False)
# Mirrors the runs to the study's tracker, if it has one; no job knows of it.
observer = Observer()


def count_shares_of_gpus() -> None:
    """Let a GPU count as many as may share it, where GPUs are counted (``job_resources``)."""
    limit = workflow.global_resources.get("gpu").value
    if limit is not None:
        workflow.register_resource("gpu", study.resources.runs_per_gpu * limit)


if study.resources.runs_per_gpu > 1:
    count_shares_of_gpus()


# A workflow that uses this one as a module may give its rules other names, or read this once more
# for some of them (`use rule trial from ... as ...`).
OWN_NAMES = {
    workflow.modifier.modify_rulename(name): name
    for name in [*RULES, "all", "findings"]
    if workflow.modifier.avail_rulename(name)
}


# A profile names the rules of a study; those of its configurations are placed likewise.
if study.part_of:
    upstream_patches.place_configuration(workflow, study.part_of.configuration, OWN_NAMES)


def begin(jobs) -> None:
    """Show what is to be done and why (`-n`), or check and note that it begins."""
    if not workflow.dryrun:
        check_start({snakemake_records.own_name(job) for job in jobs})
    elif "all" not in map(str, workflow.output_settings.quiet or ()):
        snakemake_records.print_plan(jobs)


snakemake_records.keep_records_with_results(
    snakemake_records.Records(
        results=study.results,
        network=study.network.name,
        places={str(path): name for path, name in PLACES.items() if path},
        on_code_change=study.on_code_change,
        rules=OWN_NAMES,
        plan_is_made=begin,
        may_get_larger_card=may_get_larger_card,
        part_of=study.part_of.results if study.part_of else None,
    )
)

# A job of a cluster reads the study as it was when it was started, and compares the code.
if not workflow.is_main_process and record_beside(Path(STUDY_FILE)):
    os.environ[START_RECORD] = str(record_beside(Path(STUDY_FILE)))


onstart:
    note_invocation()


onsuccess:
    study_lease.release()
    show_findings()
    observer.end()


onerror:
    study_lease.release()
    observer.end()


def check_start(asked_for) -> None:
    """Stop before the first job if the study cannot work on this machine or with these data."""
    hide_extras_from_monai()
    from voxelsoup.soups.preflight import check_recipes_and_metrics
    from voxelsoup.training import preflight

    try:
        check_installed(study.tracking, STUDY_FILE)
        for each in [study, *configurations.values()]:
            preflight.check_start(each)
            check_recipes_and_metrics(each)
        if OTHER_TOOLS:
            from voxelsoup.prediction.other_tools import check_other_tools

            for note in check_other_tools(study, remember=True):
                print(f"note: {note}", file=sys.stderr, flush=True)
        if workflow.executor_plugin.name == "slurm":
            check_cluster(asked_for)
        else:
            check_gpu_memory(asked_for, fit_here)
        # Kept until this process ends, also where Snakemake's own lock is switched off.
        study_lease.acquire(say_once_what_is_waited_for())
        # What a former Snakemake was waiting for.
        note_submissions(study_lease.folder, "", False)
        remember_study(Path(study.results), sources(workflow.configfiles))
        snapshot = read_snapshot()
        note_invocation()
        if study.tracking.tool != "none":
            observer.start(snapshot, Path(study.results, "logs"))
    except (InputError, Stopped) as error:
        raise StudyError(str(error))


def note_invocation() -> None:
    """Write down how Snakemake was started, for the status."""
    write_invocation(
        study_lease.folder,
        STUDY_FILE,
        workflow.executor_plugin.name,
        workflow.execution_settings.retries,
        # There is none before the plan.
        getattr(getattr(workflow.scheduler, "_executor", None), "run_uuid", None),
    )


def read_snapshot() -> Path:
    """Let the jobs of this start read the study as it is now, whatever becomes of its file."""
    content = study.model_dump(mode="json", exclude_unset=True)
    plug_ins = records_of(study, *configurations.values())
    snapshot = write_snapshot(Path(study.results), content, workflow.configfiles, plug_ins)
    workflow.config_settings.configfiles = [snapshot.absolute()]
    os.environ[START_RECORD] = str(snapshot.with_name(RECORD).absolute())
    return snapshot


def say_once_what_is_waited_for():
    """Say once that the lease of a Snakemake on another host is being watched."""

    @cache
    def say() -> None:
        seconds = study.recovery.lease_seconds
        print(f"Waiting up to {seconds:g} s: is {study_lease.taken_from} alive?", flush=True)

    return say


def check_cluster(asked_for) -> None:
    """On a Slurm cluster: refuse what no partition can serve, before anything is submitted."""
    from voxelsoup.cluster import upstream_patches

    upstream_patches.patch_slurm_plugin(partial(note_submissions, study_lease.folder))
    upstream_patches.agree_on_models_of_groups(largest_model)
    if not workflow.executor_settings.partition_config:
        return
    from voxelsoup.cluster.associations import refuse_too_long
    from voxelsoup.cluster.gpu_memory import fit_on_site
    from voxelsoup.cluster.partitions import refuse_unservable
    from voxelsoup.cluster.profile import Site, check_rules, overridden_rules, text_of

    asked = workflow.resource_settings
    defaults = asked.default_resources or {}
    defaults = {name: getattr(value, "raw", value) for name, value in defaults.items()}
    placed = asked.overwrite_resources.items()
    # Those of a workflow that uses this one as a module are its own affair.
    others = {rule.name for rule in workflow.rules} - OWN_NAMES.keys()
    groups = workflow.group_settings.overwrite_groups.items()
    groups = {rule: group for rule, group in groups if rule not in others}
    groups = check_rules(groups, "groups", OWN_NAMES)
    site = Site(
        partition_file=Path(workflow.executor_settings.partition_config),
        retries=workflow.execution_settings.retries,
        groups={OWN_NAMES[rule]: group for rule, group in groups.items()},
        components=dict(workflow.group_settings.group_components),
        overridden=overridden_rules(
            {OWN_NAMES[rule]: values for rule, values in placed if rule in OWN_NAMES}, defaults
        ),
        account=text_of(defaults.get("slurm_account")),
        qos=text_of(workflow.executor_settings.qos or defaults.get("qos")),
    )
    refuse_unservable(study, site, asked_for)
    refuse_too_long(study, site, asked_for)
    check_gpu_memory(asked_for, partial(fit_on_site, site=site))


def check_gpu_memory(asked_for, compare) -> None:
    """Warn of trainings that need more memory than their GPU has; refuse them far above it.

    ``compare`` takes a study and its trials and says what they need and get.
    """
    if not any(RULES[name].needs == "training" for name in asked_for if name in RULES):
        return
    for each in [study, *configurations.values()]:
        try:
            notes = refuse(compare(each, trials_of(each, STUDY_FILE)))
        except CannotCount as error:
            notes = [str(error)]
        for note in notes:
            print(f"note: {note}", file=sys.stderr, flush=True)


def show_findings() -> None:
    """Print the comparison and the path of the report, if they exist."""
    over_configurations = Path(study.results, "comparison", "configurations.csv")
    if configurations and over_configurations.exists():
        from voxelsoup.comparison.terminal import print_configurations

        print_configurations(over_configurations)
    overview = Path(study.results, "comparison", "overview.csv")
    if overview.exists():
        from voxelsoup.comparison.terminal import (
            print_conclusions,
            print_other_tools,
            print_overview,
        )

        print_overview(overview)
        print_conclusions(overview.with_name("comparisons.csv"))
        against = overview.with_name("other_tools.csv")
        if OTHER_TOOLS and against.exists():
            print_other_tools(against)
    if Path(study.results, "comparison", "basin.csv").exists():
        from voxelsoup.comparison.barriers import read_barriers
        from voxelsoup.comparison.terminal import print_barriers
        from voxelsoup.study.trials import trial_labels

        labels = trial_labels(list(trials.values()))
        print_barriers(read_barriers(Path(study.results), FOLDS, RECIPES, labels))
    page = Path(study.results, "report.html")
    if page.exists():
        print(f"Report: {page}", flush=True)
