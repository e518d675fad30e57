"""Why Slurm did not take a job, and what that means: wait, end the study, or a failed attempt.

The reasons are the texts that `sbatch`, `sacctmgr` and the Slurm plugin print: there are no codes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

# Tried again without an end; never accepted; or not known, which counts as an attempt of the job.
Kind = Literal["for now", "for good", "unknown"]


@dataclass(frozen=True)
class Refusal:
    """A submission that was not accepted.

    Attributes:
        said: the words of what refused it.
        advice: what is waited for, or the fix of what can never be accepted; empty if unknown.
    """

    kind: Kind
    said: str
    advice: str = ""


LISTED = "`sacctmgr show associations user=$USER format=account,qos,partition` lists yours"
NO_ACCOUNTING = "this cluster has no accounting: leave `slurm_account` out of the profile"
ACCOUNT = (
    "correct `slurm_account` under `default-resources` in the profile, or the partition that it "
    f"may use; {LISTED}"
)
QOS = f"correct `slurm-qos` in the profile; {LISTED}"
EXTRA = (
    "take the option out of `slurm_extra` in the profile; account, partition, memory, CPUs, GPUs "
    "and time have settings of their own"
)
PARTITION = "correct the partition in the profile or in its partitions.yaml; `sinfo` lists them"
NOT_YOURS = "use a partition, account and QOS that are yours; `voxelsoup doctor` checks them"
TIME = (
    "lower `runtime` in the study's `resources` or `retries` in the profile (it grows by attempt)"
)
TOO_LARGE = (
    "lower `resources` in the study or `retries` in the profile (they grow by attempt), or use a "
    "partition, account or QOS that allows it; `voxelsoup doctor` compares them"
)
NAME = (
    "correct `gpu_model` in the study, or `gres` and `constraint` in the profile; `sinfo -o '%P %G "
    "%f'` lists what there is"
)
OPTION = "correct `slurm_extra` or the resources that the profile sets"
COMMAND = "log in to a submission node of the cluster, or load its Slurm module"
LONG_COMMAND = "add `slurm-pass-command-as-script: true` to the profile"

# The first that is found decides; limits of size and time stand before those of numbers of jobs,
# because the same sentence of `sbatch` ("job submit limit, user's size and/or time limits") ends
# both.
FOR_GOOD = (
    (r"not running a supported accounting_storage plugin", NO_ACCOUNTING),
    (r"\b(QOS|Assoc)(?!\w*Submit)(Max|Min|Grp)\w+", TOO_LARGE),
    (r"invalid account|account \S+ appears to be invalid", ACCOUNT),
    (r"invalid qos", QOS),
    (r"allowed in the 'slurm_extra' parameter", EXTRA),
    (r"invalid partition|no partition specified", PARTITION),
    (r"not permitted to use this partition|access/permission denied", NOT_YOURS),
    (r"requested time limit is invalid", TIME),
    (r"invalid generic resource|invalid feature|invalid gr[e]s|\bg(res|pu model) format", NAME),
    (
        r"node configuration is not available|memory (specification|required)|"
        r"more processors requested|(node|cpu) count (specification )?(is )?invalid",
        TOO_LARGE,
    ),
    (
        r"unrecognized option|invalid option|invalid \S+ specification|invalid wckey|"
        r"reservation is invalid|invalid reservation|requires an argument|option .* is ambiguous",
        OPTION,
    ),
    (r"sbatch: (command )?not found|No such file or directory: 'sbatch'", COMMAND),
    (r"argument list too long", LONG_COMMAND),
)
FOR_NOW = (
    (
        r"\b(QOS|Assoc)\w*Submit\w*|job violates accounting/qos policy",
        "a place within the limit of submitted jobs (`voxelsoup doctor` shows yours)",
    ),
    (r"no space left|disk quota exceeded|i/o error writing script", "space on the file system"),
    (
        r"unable to contact slurm|backup controller|socket timed out|zero bytes were transmitted|"
        r"connection (refused|timed out|reset)|unable to establish|transport endpoint|"
        r"communication connection failure|unable to resolve|unable to test the validity|"
        r"munge encode failed|slurm_persist_conn_open",
        "Slurm's controller or its accounting to answer",
    ),
    (r"temporarily un|nodes are busy", "Slurm to take jobs again"),
    (
        r"required partition not available|partition is (down|drained|inactive)|"
        r"required node not available",
        "the partition to be up",
    ),
)
# Of what the plugin reports these are the words of `sbatch`; its command follows.
OF_SBATCH = re.compile(r"The error message was '?(.*?)'?\.?\s*(\n\s+sbatch call:.*)?$", re.DOTALL)


def classify(reported: str) -> Refusal:
    """What a failed submission means; ``reported`` is the Slurm plugin's message about it."""
    found = OF_SBATCH.search(reported)
    lines = (found.group(1) if found else reported).strip().splitlines()
    said = "; ".join(filter(None, map(str.strip, lines)))
    tables: tuple[tuple[Kind, tuple[tuple[str, str], ...]], ...]
    tables = (("for good", FOR_GOOD), ("for now", FOR_NOW))
    for kind, table in tables:
        for pattern, advice in table:
            if re.search(pattern, said, re.IGNORECASE):
                return Refusal(kind, said, advice)
    return Refusal("unknown", said)
