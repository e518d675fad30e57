"""How a site serves jobs: its Snakemake profile and its partitions, read as Snakemake does."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yte
from snakemake_executor_plugin_slurm.partitions import Partition, read_partition_file
from snakemake_interface_common.exceptions import WorkflowError

from voxelsoup.cluster.job_resources import RULES
from voxelsoup.common.errors import InputError
from voxelsoup.common.files import read_text
from voxelsoup.common.installation import shipped_profile
from voxelsoup.common.text import did_you_mean

# Resources that decide where a job runs; a profile that overrides them decides by itself.
DECIDING = {"slurm_partition", "gpu", "gpu_model", "gres", "mem_mb", "runtime", "cpus_per_task"}
# Those that decide whose limits hold.
DECIDING |= {"slurm_account", "qos"}


@dataclass(frozen=True)
class Site:
    """What decides where a job of a study runs."""

    partition_file: Path
    retries: int = 0
    groups: dict[str, str] = field(default_factory=dict)
    components: dict[str, int] = field(default_factory=dict)
    overridden: frozenset[str] = frozenset()
    account: str | None = None
    qos: str | None = None
    extra: str = ""
    jobs: int | None = None
    status_command: str | None = None
    first_look_s: int = 40
    latency_s: int = 5

    def partitions(self) -> list[Partition]:
        """The described partitions, as the Slurm plugin reads them.

        Raises:
            InputError: if the file is not there or says something that the plugin does not know.
        """
        try:
            partitions: list[Partition] = read_partition_file(self.partition_file)
        except (WorkflowError, TypeError, KeyError, ValueError, AttributeError) as error:
            raise InputError(
                self.partition_file,
                f"cannot be used: {error}",
                "`partitions:` with one entry per partition, such as `max_runtime: 60`",
                "compare it with profiles/slurm/partitions.yaml",
            ) from error
        return partitions


def read_site(profile: Path) -> Site:
    """Read a profile with the executor `slurm`, by its folder, its file or its name.

    Raises:
        InputError: if it is not there, not readable, for another executor, or without partitions.
    """
    file = _file_of(profile)
    settings = _read_profile(file)
    if settings.get("executor") != "slurm":
        raise InputError(
            file,
            f"its executor is {settings.get('executor', 'not given')}",
            "`executor: slurm`",
            "name the cluster's profile with --profile",
        )
    partitions = settings.get("slurm-partition-config")
    if partitions is None:
        raise InputError(
            file,
            "names no partitions",
            "`slurm-partition-config: partitions.yaml`",
            "describe the cluster's partitions as in profiles/slurm/partitions.yaml",
        )
    defaults = _mapping(settings.get("default-resources"))
    return Site(
        partition_file=file.parent / partitions,
        retries=int(settings.get("retries", 0)),
        groups=check_rules(_mapping(settings.get("groups")), f"{file}: groups"),
        components={k: int(v) for k, v in _mapping(settings.get("group-components")).items()},
        overridden=overridden_rules(settings.get("set-resources") or {}, defaults),
        account=text_of(defaults.get("slurm_account")),
        qos=text_of(settings.get("slurm-qos") or defaults.get("qos")),
        extra=text_of(defaults.get("slurm_extra")) or "",
        jobs=_number(settings.get("jobs")),
        status_command=text_of(settings.get("slurm-status-command")),
        first_look_s=int(settings.get("slurm-init-seconds-before-status-checks", 40)),
        latency_s=int(settings.get("latency-wait", 5)),
    )


def check_rules(
    groups: dict[str, str], where: str, rules: Collection[str] = RULES
) -> dict[str, str]:
    """Make sure that groups are made of existing ``rules``, as the workflow calls them.

    Raises:
        InputError: naming the wrong rule and the nearest right one.
    """
    for rule in groups:
        if rule not in rules:
            raise InputError(
                where,
                f"there is no rule {rule}{did_you_mean(rule, rules)}",
                f"rules of this workflow: {', '.join(rules)}",
                "correct the name; Snakemake itself would leave the rule without a group",
            )
    return groups


def overridden_rules(by_rule: Any, defaults: Any) -> frozenset[str]:
    """Rules that a profile places, by its ``set-resources`` or its ``default-resources``."""
    if "slurm_partition" in defaults:
        return frozenset(RULES)
    return frozenset(rule for rule, values in by_rule.items() if DECIDING & set(values))


def _file_of(profile: Path) -> Path:
    """The file that Snakemake would read, as `voxelsoup run` starts it.

    Names are those of folders in its own places, and of the profiles that come with the workflow.
    """
    from snakemake.cli import get_profile_dir

    found = get_profile_dir(str(profile))
    if found is not None:
        return Path(found[1])
    return (shipped_profile(str(profile)) or profile) / "config.yaml"


def _read_profile(file: Path) -> dict[str, Any]:
    text = read_text(file, "a profile folder with config.yaml", "correct --profile")
    try:
        settings = yte.process_yaml(text, require_use_yte=True)
    except Exception as error:  # YAML and the expressions in it can fail in any way.
        raise InputError(
            file, f"cannot be read: {error}", "a Snakemake profile in YAML", "correct the file"
        ) from error
    if not isinstance(settings, dict):
        raise InputError(
            file, "holds no settings", "`key: value` pairs", "compare it with profiles/slurm"
        )
    return settings


def _mapping(value: Any) -> dict[str, Any]:
    """A mapping, which Snakemake also takes as a list of `key=value`."""
    if isinstance(value, list):
        return dict(str(item).split("=", 1) for item in value)
    return dict(value or {})


def text_of(value: Any) -> str | None:
    """A resource of a profile as text; None if it is not given."""
    # Snakemake evaluates resources as expressions, so that a text may carry quotes of its own.
    return None if value is None else str(value).strip("'\"")


def _number(value: Any) -> int | None:
    # `unlimited` is one of the words that Snakemake takes.
    return int(value) if str(value).isdecimal() else None
