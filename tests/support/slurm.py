"""A real Slurm cluster of four nodes on this machine, for tests: private, and gone afterwards.

All daemons run as root under one folder, on ports of their own, with their own munge key, so
that several clusters (one per test worker, or beside a real one) do not see each other.

    cpu1            8 CPUs,  8000 MB             partition cpu, 60 minutes
    gpu-a1 gpu-a2   8 CPUs,  8000 MB, 2 x a100   partition gpu-short, 2 minutes
    gpu-b1          8 CPUs, 16000 MB, 1 x h100   partition gpu-long, 120 minutes

The GPUs are fake: character devices that Slurm hands out; torch finds none.

With accounting (a database of its own, which takes ten seconds to come up) the account `test` is
yours, its limits are enforced, GPUs of gpu-short have the name that NVML gives them, and two
further partitions share gpu-b1: jobs in `scavenger` are cancelled for those in `urgent`.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[2]
COMMANDS = ("slurmctld", "slurmd", "munged", "sinfo", "squeue", "sbatch", "srun", "scontrol")
ACCOUNTING_COMMANDS = ("slurmdbd", "sacctmgr", "mariadbd", "mariadb", "mariadb-install-db")
NODES = {"cpu1": 11, "gpu-a1": 12, "gpu-a2": 13, "gpu-b1": 14}
GPU_FILES = 2
DATABASE, ACCOUNTING = 2, 3
A100, A100_BY_NVML = "a100", "nvidia_a100-sxm4-80gb"

PARTITIONS = {
    "cpu": {"max_runtime": 60, "max_mem_mb": 8000, "max_threads": 8},
    "gpu-short": {
        "max_runtime": 2,
        "max_mem_mb": 8000,
        "max_threads": 8,
        "max_gpu": 2,
        "available_gpu_models": ["a100"],
    },
    "gpu-long": {
        "max_runtime": 120,
        "max_mem_mb": 16000,
        "max_threads": 8,
        "max_gpu": 1,
        "available_gpu_models": ["h100"],
    },
}

# What differs from the shipped profile because this is another site, and nothing else.
SITE = {
    "jobs": 4,
    "latency-wait": 10,
    "slurm-status-command": "squeue",
    "slurm-init-seconds-before-status-checks": 2,
    "max-status-checks-per-second": 1,
}

# The plugin puts each further query about jobs without news off for ten seconds more, up to three
# minutes. Here a job's end is noticed soon, however long it has taken.
SNAKEMAKE = """
from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor

Executor.next_seconds_between_status_checks = property(lambda own: 2, lambda own, seconds: None)
main()
"""

GRES = """\
NodeName=gpu-a[1-2] Name=gpu Type=a100 File={folder}/dev/nvidia[0-1]
NodeName=gpu-b1 Name=gpu Type=h100 File={folder}/dev/nvidia0
"""

# Short timeouts, so that a dead node is noticed in seconds; over-limit requests are refused.
CONFIGURATION = """\
ClusterName=voxelsoup
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
SlurmctldPort={port}
SlurmctldPidFile={folder}/pid/slurmctld
SlurmctldLogFile={folder}/log/slurmctld.log
StateSaveLocation={folder}/state
SlurmdPidFile={folder}/pid/%n
SlurmdLogFile={folder}/log/%n.log
SlurmdSpoolDir={folder}/spool/%n
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=100000
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
ReturnToService=2
SlurmdTimeout=6
SlurmctldTimeout=10
InactiveLimit=0
KillWait=5
OverTimeLimit=0
EnforcePartLimits=ALL
MinJobAge=3600
CompleteWait=0
JobRequeue=0
MailProg={folder}/bin/mail
MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
{accounting}
NodeName=cpu1 NodeHostname={host} NodeAddr=127.0.0.1 Port={cpu1} CPUs=8 RealMemory=8000
NodeName=gpu-a1 NodeHostname={host} NodeAddr=127.0.0.1 Port={gpu_a1} CPUs=8 RealMemory=8000 \
Gres=gpu:a100:2
NodeName=gpu-a2 NodeHostname={host} NodeAddr=127.0.0.1 Port={gpu_a2} CPUs=8 RealMemory=8000 \
Gres=gpu:a100:2
NodeName=gpu-b1 NodeHostname={host} NodeAddr=127.0.0.1 Port={gpu_b1} CPUs=8 RealMemory=16000 \
Gres=gpu:h100:1
PartitionName=cpu Nodes=cpu1 Default=YES MaxTime=60 DefaultTime=10 State=UP
PartitionName=gpu-short Nodes=gpu-a[1-2] MaxTime=2 DefaultTime=1 State=UP
PartitionName=gpu-long Nodes=gpu-b1 MaxTime=120 DefaultTime=10 State=UP
"""

NO_ACCOUNTING = "AccountingStorageType=accounting_storage/none"
WITH_ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={accounting_port}
AccountingStoragePass={folder}/munge/socket
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=associations,limits,qos
AccountingStoreFlags=job_comment
PreemptType=preempt/partition_prio
PreemptMode=CANCEL"""
PREEMPTION = """\
PartitionName=scavenger Nodes=gpu-b1 MaxTime=120 State=UP PriorityTier=1
PartitionName=urgent Nodes=gpu-b1 MaxTime=120 State=UP PriorityTier=10
"""
DATABASE_DAEMON = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={accounting_port}
SlurmUser=root
LogFile={folder}/log/slurmdbd.log
PidFile={folder}/pid/slurmdbd
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database_port}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm
"""
DATABASE_USER = """\
create database slurm;
create user 'slurm'@'127.0.0.1' identified by 'slurm';
create user 'slurm'@'localhost' identified by 'slurm';
grant all on slurm.* to 'slurm'@'127.0.0.1';
grant all on slurm.* to 'slurm'@'localhost';
"""


@dataclass(frozen=True)
class Job:
    """One submission as Slurm remembers it, also after its end."""

    id: int
    name: str
    state: str
    partition: str
    node: str
    memory: str
    time_limit: str
    comment: str


class Cluster:
    """The running cluster: its environment, its nodes and its jobs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}{os.pathsep}/usr/sbin",
        }

    def run(self, *command: str, timeout: float = 30) -> str:
        """What a command prints that talks to this cluster; it has to succeed."""
        result = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=timeout
        )
        assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}{result.stderr}"
        return result.stdout

    def jobs(self, comment: str = "") -> list[Job]:
        """All jobs ever submitted, in order, whose comment (rule and wildcards) holds a text."""
        layout = "%A|%j|%T|%P|%N|%m|%l|%k"
        printed = self.run("squeue", "--states=all", "--noheader", "--sort=i", "-o", layout)
        rows = [line.split("|", 7) for line in printed.splitlines()]
        return [Job(int(row[0]), *row[1:]) for row in rows if comment in row[7]]

    def start_now(self, number: int) -> None:
        """Let a job begin that was put back into the queue; Slurm may have it wait two minutes.

        One that has begun meanwhile is no error.
        """
        command = ["scontrol", "update", f"JobId={number}", "StartTime=now"]
        result = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        begun = "no longer pending" in result.stderr
        assert result.returncode == 0 or begun, result.stderr

    def mails(self) -> list[str]:
        """What Slurm has mailed: its subject and the address of each."""
        file = self.folder / "mails.txt"
        return file.read_text().splitlines() if file.exists() else []

    def cancel(self, job: Job, *options: str) -> None:
        """End a job that waits or runs; one that ended by itself meanwhile is no error."""
        command = ["scancel", *options, str(job.id)]
        result = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=30
        )
        ended = "Invalid job id specified", "already completing or completed"
        expected = any(words in result.stderr for words in ended)
        assert result.returncode == 0 or expected, f"{' '.join(command)}\n{result.stderr}"

    def end(
        self, snakemake: subprocess.Popen[str] | None, jobs: Callable[[], list[Job]], *options: str
    ) -> None:
        """Leave nothing of a study running: its Snakemake, if there is one, then its jobs.

        Options are of a first `scancel`, such as the signal for processes that heed no other.
        """
        if snakemake is not None:
            snakemake.kill()
            snakemake.wait()
        for job in jobs():
            if job.state in ("PENDING", "RUNNING", "COMPLETING"):
                if options:
                    self.cancel(job, *options)
                self.cancel(job)

    def node_state(self, node: str) -> str:
        """idle, mixed, allocated, down, ..."""
        return self.run("sinfo", "--noheader", "--nodes", node, "-o", "%T").split()[0].rstrip("*")

    def kill_node(self, node: str) -> None:
        """Lose a node at once, as in a power cut: its daemon and everything that runs on it."""
        self._signal(self.folder / "pid" / node, signal.SIGKILL)
        self._kill_jobs_on(node)

    def start_node(self, node: str) -> None:
        """Bring a node (back) up and wait until it takes jobs, or has taken one that waited."""
        (self.folder / "spool" / node).mkdir(parents=True, exist_ok=True)
        self.run("slurmd", "-N", node)
        self.wait_for(node, "idle", "mixed", "allocated")

    def kill_controller(self) -> None:
        """Lose the controller; what runs on the nodes runs on."""
        self._signal(self.folder / "pid" / "slurmctld", signal.SIGKILL)

    def limit(self, **limits: object) -> None:
        """Set limits of the association of the user who runs the tests; -1 takes one away."""
        changes = [f"{name}={value}" for name, value in limits.items()]
        self.run("sacctmgr", "-i", "modify", "user", "root", "set", *changes)

    def start_controller(self) -> None:
        """Bring the controller (back) up, with what it had saved of its jobs."""
        self.run("slurmctld", "-i")

    def wait_for(self, node: str, *states: str, seconds: float = 60) -> None:
        """Wait until the controller sees a node in one of some states."""
        end = time.monotonic() + seconds
        while (state := self.node_state(node)) not in states:
            assert time.monotonic() < end, f"{node} is {state}, not {' or '.join(states)}"
            time.sleep(0.2)

    def write_profile(self, folder: Path, **changes: object) -> Path:
        """The shipped profile with the site parts of this cluster, and further changes."""
        shipped = REPOSITORY / "profiles" / "slurm" / "config.yaml"
        profile = yaml.safe_load(shipped.read_text()) | SITE | changes
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(profile, sort_keys=False))
        partitions = {"partitions": PARTITIONS}
        (folder / "partitions.yaml").write_text(yaml.safe_dump(partitions, sort_keys=False))
        return folder

    def snakemake(
        self, working_folder: Path, profile: Path, study: Path, *arguments: str
    ) -> subprocess.Popen[str]:
        """Start Snakemake on this cluster; what it prints goes to printed.txt beside its work."""
        # The study stands last: its option would take file names that follow it for studies too.
        command = [sys.executable, "-c", SNAKEMAKE, "--profile", str(profile), *arguments]
        command += ["--snakefile", str(REPOSITORY / "Snakefile"), "--configfile", str(study)]
        with (working_folder / "printed.txt").open("a") as printed:
            return subprocess.Popen(
                command,
                cwd=working_folder,
                env=self.environment,
                stdout=printed,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def stop(self) -> None:
        """Cancel what runs, stop exactly the daemons that were started here, remove the folder."""
        user = str(os.getuid())
        subprocess.run(["scancel", "-u", user], env=self.environment, timeout=10, check=False)
        time.sleep(0.5)
        for node in NODES:
            self._signal(self.folder / "pid" / node, signal.SIGTERM)
            self._kill_jobs_on(node)
        # An orderly stop saves a state that is not needed, slowly.
        for daemon in ("slurmctld", "slurmdbd", "mariadbd"):
            self._signal(self.folder / "pid" / daemon, signal.SIGKILL)
        self._signal(self.folder / "munge" / "pid", signal.SIGTERM)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _signal(self, file: Path, number: signal.Signals) -> None:
        if file.exists():
            _kill(int(file.read_text()), number)
            file.unlink(missing_ok=True)

    def _kill_jobs_on(self, node: str, seconds: float = 10) -> None:
        """Kill everything that runs on a node, also what was being started meanwhile."""
        end = time.monotonic() + seconds
        while processes := self._processes_on(node):
            assert time.monotonic() < end, f"processes {processes} outlive their node {node}"
            for process in processes:
                for victim in (_parent_step(process), process):
                    if victim is not None:
                        _kill(victim, signal.SIGKILL)
            time.sleep(0.1)

    def _processes_on(self, node: str) -> list[int]:
        """Processes of jobs: they carry the node's name and this cluster's folder along."""
        marks = (f"SLURMD_NODENAME={node}\0".encode(), f"{self.folder}/bin".encode())
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if all(text in environment for text in marks):
                found.append(int(entry.name))
        return found


def missing(accounting: bool = False) -> str | None:
    """Why a cluster cannot be brought up here, or nothing."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
    needed = COMMANDS + (ACCOUNTING_COMMANDS if accounting else ())
    absent = [command for command in needed if shutil.which(command, path=path) is None]
    if absent:
        return (
            f"no {', '.join(absent)} here: apt-get install --no-install-recommends slurmctld "
            "slurmd slurm-client munge slurmdbd mariadb-server-core mariadb-client-core"
        )
    if os.getuid() != 0:
        return "the test cluster's daemons and fake GPUs need root"
    return None


def start(accounting: bool = False) -> Cluster:
    """Bring up the cluster, in about a second; another one may take its ports meanwhile."""
    for attempt in range(3):
        # A socket's path may have about 100 characters; pytest's folders are longer.
        cluster = Cluster(Path(tempfile.mkdtemp(prefix="voxelsoup-slurm-", dir="/tmp")))
        try:
            _write_files(cluster.folder, _free_ports(), accounting)
            _start_daemons(cluster, accounting)
            return cluster
        except (AssertionError, subprocess.TimeoutExpired):
            log = cluster.folder / "log" / "slurmctld.log"
            text = log.read_text()[-2000:] if log.exists() else "no log"
            cluster.stop()
            if attempt == 2:
                raise AssertionError(f"the test cluster does not come up:\n{text}") from None
        except BaseException:
            cluster.stop()
            raise
    raise AssertionError("unreachable")


def _start_daemons(cluster: Cluster, accounting: bool) -> None:
    munge = cluster.folder / "munge"
    files = {
        "--key-file": munge / "key",
        "--socket": munge / "socket",
        "--pid-file": munge / "pid",
        "--log-file": cluster.folder / "log" / "munged.log",
        "--seed-file": munge / "seed",
    }
    cluster.run("munged", "--force", *(f"{key}={value}" for key, value in files.items()))
    if accounting:
        _start_accounting(cluster)
    cluster.start_controller()
    for node in NODES:
        (cluster.folder / "spool" / node).mkdir(parents=True)
        cluster.run("slurmd", "-N", node)
    for node in NODES:
        cluster.wait_for(node, "idle")


def _start_accounting(cluster: Cluster) -> None:
    """The database, the daemon that Slurm asks, one cluster, one account, one user."""
    data, socket_file = f"--datadir={cluster.folder}/database", f"--socket={cluster.folder}/sql"
    normal = "--auth-root-authentication-method=normal"
    given = ("--no-defaults", "--user=root", data)
    cluster.run("mariadb-install-db", *given, normal, "--skip-test-db", timeout=120)
    port = int((cluster.folder / "slurmdbd.conf").read_text().split("StoragePort=")[1].split()[0])
    options = [f"--port={port}", "--bind-address=127.0.0.1", socket_file]
    options += [f"--pid-file={cluster.folder}/pid/mariadbd", "--innodb-flush-log-at-trx-commit=0"]
    with (cluster.folder / "log" / "mariadbd.log").open("w") as log:
        subprocess.Popen(
            ["mariadbd", *given, *options],
            env=cluster.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    _until_it_succeeds(cluster, "mariadb", "--no-defaults", socket_file, "-e", DATABASE_USER)
    cluster.run("slurmdbd")
    _until_it_succeeds(cluster, "sacctmgr", "-i", "add", "cluster", "voxelsoup")
    cluster.run("sacctmgr", "-i", "add", "account", "test", "Cluster=voxelsoup")
    cluster.run("sacctmgr", "-i", "add", "user", "root", "Account=test")
    # Slurm makes an account `root` by itself.
    cluster.run("sacctmgr", "-i", "modify", "user", "root", "set", "DefaultAccount=test")


def _until_it_succeeds(cluster: Cluster, *command: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while subprocess.run(
        command, env=cluster.environment, capture_output=True, timeout=seconds
    ).returncode:
        assert time.monotonic() < end, f"in vain for {seconds:.0f} s: {' '.join(command)}"
        time.sleep(0.1)


def _write_files(folder: Path, port: int, accounting: bool) -> None:
    for name in ("log", "state", "munge", "dev", "pid", "bin", "spool"):
        (folder / name).mkdir()
    (folder / "munge").chmod(0o700)
    (folder / "munge" / "key").write_bytes(os.urandom(1024))
    (folder / "munge" / "key").chmod(0o400)
    for number in range(GPU_FILES):
        # Slurm sets CUDA_VISIBLE_DEVICES for character devices only; this is another /dev/null.
        device = folder / "dev" / f"nvidia{number}"
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    model = A100_BY_NVML if accounting else A100
    (folder / "gres.conf").write_text(GRES.format(folder=folder).replace(A100, model))
    ports = {node.replace("-", "_"): port + offset for node, offset in NODES.items()}
    host = socket.gethostname().split(".")[0]
    places = {"folder": folder, "accounting_port": port + ACCOUNTING}
    accounted = WITH_ACCOUNTING.format(**places) if accounting else NO_ACCOUNTING
    text = CONFIGURATION.format(
        folder=folder, host=host, port=port, accounting=accounted, **ports
    ).replace(A100, model)
    (folder / "slurm.conf").write_text(text + (PREEMPTION if accounting else ""))
    if accounting:
        daemon = folder / "slurmdbd.conf"
        daemon.write_text(DATABASE_DAEMON.format(**places, database_port=port + DATABASE))
        daemon.chmod(0o600)
    mail = folder / "bin" / "mail"
    mail.write_text(f'#!/bin/sh\necho "$@" >> {folder}/mails.txt\n')
    mail.chmod(0o755)
    # The plugin's job step drops SLURM_CONF before its srun, which would look for /etc/slurm.
    wrapper = folder / "bin" / "srun"
    real = shutil.which("srun")
    wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {real} "$@"\n')
    wrapper.chmod(0o755)


def _free_ports() -> int:
    """The first port of a range in which every port that the cluster uses is free."""
    chooser = random.SystemRandom()
    while True:
        first = chooser.randrange(20000, 32000, 20)
        if all(_is_free(first + offset) for offset in (0, DATABASE, ACCOUNTING, *NODES.values())):
            return first


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def _parent_step(process: int) -> int | None:
    """The slurmstepd that a job's process was started by, if it is its parent."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        parent = int(fields[1])
        name = Path(f"/proc/{parent}/comm").read_text().strip()
    except OSError:
        return None
    return parent if name == "slurmstepd" else None


def _kill(process: int, number: signal.Signals) -> None:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return
