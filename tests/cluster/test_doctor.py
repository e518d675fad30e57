"""`voxelsoup doctor` on a real cluster: what it finds before anything is submitted."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from support import slurm
from voxelsoup.cluster.doctor import check_extra
from voxelsoup.cluster.partitions import Submission, refuse_unservable
from voxelsoup.cluster.profile import Site, read_site
from voxelsoup.cluster.slurm import Node, ask, parse_nodes
from voxelsoup.cluster.submission_probe import COMMANDS
from voxelsoup.cluster.submitting_nodes import check_from_node, parse_alloc_nodes
from voxelsoup.commands.cli import main
from voxelsoup.commands.submit import submit
from voxelsoup.common.errors import InputError
from voxelsoup.study.loading import read

REPOSITORY = Path(__file__).parents[2]
RESOURCES: dict[str, dict[str, Any]] = {
    "training": {"gpu": 1, "mem_mb": 2000, "runtime": 1},
    "evaluation": {"gpu": 1, "mem_mb": 1000, "runtime": 1},
    "preprocess": {"threads": 2, "mem_mb": 1000, "runtime": 5},
    "tables": {"mem_mb": 500, "runtime": 5},
}


@pytest.fixture
def place(cluster: slurm.Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder on the submission node, with the profile `profile`."""
    monkeypatch.chdir(tmp_path)
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, cluster.environment[name])
    searched = [str(REPOSITORY / "src"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(searched))
    cluster.write_profile(tmp_path / "profile")
    return tmp_path


def write_study(folder: Path, **needs: dict[str, Any]) -> str:
    """The shipped study with needs that the test cluster can serve, and changed ones."""
    study = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    # So that several GPUs can share it evenly.
    study["training"]["batch_size"] = 6
    study["resources"] = {kind: values | needs.get(kind, {}) for kind, values in RESOURCES.items()}
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    return "study.yaml"


def change_partition(folder: Path, name: str, **changes: object) -> None:
    file = folder / "profile" / "partitions.yaml"
    partitions = yaml.safe_load(file.read_text())
    partitions["partitions"].setdefault(name, {}).update(changes)
    file.write_text(yaml.safe_dump(partitions))


def examine(capsys: pytest.CaptureFixture[str], study: str, *arguments: str) -> tuple[int, str]:
    """Exit code of the doctor, and what it printed."""
    code = main(["doctor", "--profile", "profile", *arguments, study])
    return code, capsys.readouterr().out


def test_a_healthy_cluster_is_reported_line_by_line(place: Path, capsys) -> None:
    code, printed = examine(capsys, write_study(place), "--no-jobs")
    assert code == 0, printed
    assert "fails" not in printed
    lines = printed.splitlines()
    (runs,) = [line for line in lines if "trial, evaluate (group run)" in line]
    # Two minutes fit the short partition, four do not.
    assert "attempt 1 gpu-short (1 GPU, 1 CPU, 2000 MB, 2 min)" in runs
    assert "attempt 2 gpu-long (1 GPU, 1 CPU, 4000 MB, 4 min)" in runs
    assert all(line.startswith("ok    ") for line in lines)
    assert "ok    voxelsoup submit: the head job, in partition cpu, 60 min\n" in printed
    assert "the head job, in partition cpu, may submit to gpu-short, gpu-long, cpu\n" in printed
    (memory,) = [line for line in lines if "GPU memory: a training of MedNeXt" in line]
    assert "a100 (partition gpu-short) has 37.3 GiB" in memory


def test_a_node_of_each_partition_is_looked_at(place: Path, capsys, cluster: slurm.Cluster) -> None:
    code, printed = examine(capsys, write_study(place), "--probe")
    # Either node of the short partition: the first one may still be busy with another test's job.
    for partition, node in (("cpu", "cpu1"), ("gpu-short", "gpu-a[12]"), ("gpu-long", "gpu-b1")):
        begin = rf"^ok    partition {partition}: "
        for ending in (rf"a node reads and writes results \({node}\)$", rf"{node} imports torch "):
            assert re.search(begin + ending, printed, re.MULTILINE), printed
    assert printed.count(f" imports torch {torch.__version__}\n") == 3
    # The GPUs of the test cluster are fake, and the doctor is not fooled by them.
    assert code == 1
    assert printed.count("torch sees no GPU: ") == 2
    # Nor can anything be measured on them.
    assert printed.count("torch sees no GPU there, so that nothing was measured") == 2
    assert printed.count("fails") == 4
    # A node has Slurm's commands, and its controller takes jobs from there.
    assert f"ok    voxelsoup submit: a node of cpu has {', '.join(COMMANDS)} (cpu1)\n" in printed
    for partition in ("gpu-short", "gpu-long", "cpu"):
        assert f"Slurm would take a job for partition {partition} from cpu1\n" in printed
    why = "is a CPU build" if torch.version.cuda is None else "no GPU driver"
    assert why in printed
    assert "Slurm handed out CUDA_VISIBLE_DEVICES=0" in printed
    assert not (place / "results").exists()


def test_a_busy_partition_is_reported_instead_of_waited_for(
    place: Path, capsys, cluster: slurm.Cluster
) -> None:
    script = ["--output=/dev/null", "--wrap=sleep 60"]
    cluster.run("sbatch", "--partition=gpu-long", "--gpus=1", *script)
    try:
        code, printed = examine(capsys, write_study(place), "--seconds", "2")
    finally:
        cluster.run("scancel", "--partition=gpu-long")
    assert code == 1
    assert "no answer within 2 s: the partition is busy" in printed


def test_results_that_cannot_be_written_are_reported(place: Path, capsys) -> None:
    (place / "results").write_text("a file where the folder should be")
    code, printed = examine(capsys, write_study(place))
    assert code == 1
    assert "fails partition cpu: a node reads and writes results" in printed
    assert "results: cannot be written here" in printed


def test_an_environment_that_does_not_work_on_a_node_is_reported(
    place: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "broken").mkdir()
    (place / "broken" / "torch.py").write_text("raise ImportError('libcudart.so.12 is missing')")
    searched = [str(place / "broken"), os.environ["PYTHONPATH"]]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(searched))
    code, printed = examine(capsys, write_study(place))
    assert code == 1
    assert "ok    partition cpu: a node reads and writes results (cpu1)" in printed
    assert "node cpu1: import torch: libcudart.so.12 is missing" in printed


def test_a_python_that_the_nodes_do_not_have_is_reported(
    place: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/only/here/python")
    code, printed = examine(capsys, write_study(place))
    assert code == 1
    assert "fails partition cpu: a small job runs" in printed
    assert "/only/here/python: No such file or directory" in printed
    assert "on a file system that the nodes share" in printed


def test_an_unknown_partition_is_named_with_the_nearest(place: Path, capsys) -> None:
    change_partition(place, "gpu-shrt", max_runtime=2, max_gpu=1)
    code, printed = examine(capsys, write_study(place), "--no-jobs")
    assert code == 1
    assert (
        "gpu-shrt: the cluster has no partition of this name; did you mean `gpu-short`?" in printed
    )


@pytest.mark.parametrize(
    ("partition", "changes", "expected"),
    [
        ("cpu", {"max_runtime": 90}, "`max_runtime` is 90, and the cluster has 60 at most"),
        ("cpu", {"max_mem_mb": 9000}, "`max_mem_mb` is 9000, and the cluster has 8000"),
        ("cpu", {"max_threads": 9}, "`max_threads` is 9, and the cluster has 8"),
        ("gpu-short", {"max_gpu": 4}, "`max_gpu` is 4, and the cluster has 2"),
        ("gpu-long", {"available_gpu_models": ["h200"]}, "names h200, which none of its nodes"),
    ],
)
def test_a_promise_that_the_cluster_does_not_keep_is_reported(
    place: Path, capsys, partition: str, changes: dict[str, Any], expected: str
) -> None:
    change_partition(place, partition, **changes)
    code, printed = examine(capsys, write_study(place), "--no-jobs")
    assert code == 1
    assert f"fails partition {partition} has what the profile states" in printed
    assert expected in printed
    assert "fix: " in printed


@pytest.mark.parametrize(
    ("needs", "expected"),
    [
        ({"gpu_model": "v100"}, "no partition serves 1 v100 GPU"),
        ({"runtime": 200}, "gpu-long: at most 120 min"),
        # 2 x 7000 MB fit the large node, 3 x 7000 MB do not.
        ({"mem_mb": 7000}, "trial, evaluate (group run), attempt 3: no partition serves"),
        ({"gpu": 3, "runtime": 3}, "gpu-short: at most 2 min, at most 2 GPU; gpu-long: at most 1"),
    ],
)
def test_a_request_that_no_partition_serves_is_reported(
    place: Path, capsys, needs: dict[str, Any], expected: str
) -> None:
    code, printed = examine(capsys, write_study(place, training=needs), "--no-jobs")
    assert code == 1
    assert expected in printed


def test_a_request_that_no_single_node_serves_is_reported(place: Path, capsys) -> None:
    # Each limit by itself is true of some node of the partition, all together of none.
    change_partition(place, "gpu-short", max_runtime=2)
    change_partition(place, "gpu-long", max_gpu=2)
    code, printed = examine(
        capsys, write_study(place, training={"gpu": 2, "mem_mb": 9000}), "--no-jobs"
    )
    assert code == 1
    assert "would go to gpu-long, where no single node has 2 GPU, 1 CPU, 9000 MB" in printed


def test_nodes_that_are_drained_for_a_while_are_no_reason_to_refuse(
    place: Path, cluster: slurm.Cluster
) -> None:
    study, site = read(place / write_study(place)), read_site(place / "profile")
    node = ["scontrol", "update", "nodename=gpu-b1"]
    cluster.run(*node, "state=drain", "reason=test")
    try:
        refuse_unservable(study, site, ["trial", "evaluate"])
        # Slurm's own answer would end the study.
        asked = ["--partition=gpu-long", "--gpus=h100:1", "--mem=100", "--time=1", "--wrap=true"]
        assert "not available" in ask("sbatch", "--test-only", *asked).stderr
    finally:
        cluster.run(*node, "state=resume")


def test_a_run_time_beyond_the_partition_s_is_refused_where_slurm_would_take_the_job(
    place: Path, cluster: slurm.Cluster
) -> None:
    study = read(place / write_study(place, preprocess={"runtime": 100}))
    change_partition(place, "cpu", max_runtime=600)
    file = Path(cluster.environment["SLURM_CONF"])
    enforced = file.read_text()
    # Slurm's default: the job would pend for ever.
    file.write_text(enforced.replace("EnforcePartLimits=ALL", "EnforcePartLimits=NO"))
    cluster.run("scontrol", "reconfigure")
    try:
        asked = ["--partition=cpu", "--mem=100", "--time=100", "--wrap=true"]
        assert ask("sbatch", "--test-only", *asked).returncode == 0
        with pytest.raises(InputError, match="`max_runtime` is 600, and the cluster has 60"):
            refuse_unservable(study, read_site(place / "profile"), ["index"])
    finally:
        file.write_text(enforced)
        cluster.run("scontrol", "reconfigure")


def test_snakemake_itself_refuses_before_it_submits(place: Path, cluster: slurm.Cluster) -> None:
    study = write_study(place, training={"gpu_model": "v100"})
    before = cluster.jobs()
    process = cluster.snakemake(place, place / "profile", place / study)
    assert process.wait(timeout=120) == 1
    printed = (place / "printed.txt").read_text()
    assert "no partition serves 1 v100 GPU" in printed
    assert "fix: lower `resources`" in printed
    assert "Traceback" not in printed
    assert cluster.jobs() == before
    assert not (place / "results").exists()


def test_rules_without_jobs_are_not_judged(place: Path, cluster: slurm.Cluster) -> None:
    study = write_study(place, training={"gpu_model": "v100"})
    target = ["results/cases.tsv", "--until", "phantom"]
    process = cluster.snakemake(place, place / "profile", place / study, *target)
    assert process.wait(timeout=120) == 0, (place / "printed.txt").read_text()


def test_rules_whose_resources_the_profile_sets_are_not_judged(
    place: Path, capsys, cluster: slurm.Cluster
) -> None:
    overrides = {rule: {"gpu_model": "a100"} for rule in ("stem", "trial")}
    cluster.write_profile(place / "profile", **{"set-resources": overrides})
    code, printed = examine(capsys, write_study(place, training={"gpu_model": "v100"}), "--no-jobs")
    assert code == 0, printed
    assert "trial: not judged, the profile sets its resources itself" in printed


def test_sacct_without_accounting_is_found_out(place: Path, capsys, cluster) -> None:
    cluster.write_profile(place / "profile", **{"slurm-status-command": "sacct"})
    code, printed = examine(capsys, write_study(place), "--no-jobs")
    assert code == 1
    assert "fails the end of a job is seen with sacct" in printed
    assert "add `slurm-status-command: squeue` to the profile" in printed


def test_an_squeue_that_forgets_too_early_is_found_out(place: Path, capsys, cluster) -> None:
    # The test cluster remembers ended jobs for an hour.
    changes = {"slurm-init-seconds-before-status-checks": 1201}
    cluster.write_profile(place / "profile", **changes)
    code, printed = examine(capsys, write_study(place), "--no-jobs")
    assert code == 1
    assert "squeue forgets ended jobs after 3600 s" in printed


@pytest.fixture
def closed(place: Path, cluster: slurm.Cluster) -> Iterator[Path]:
    """A place whose cluster takes jobs for gpu-short from two login nodes alone."""
    change = ("scontrol", "update", "PartitionName=gpu-short")
    cluster.run(*change, "AllocNodes=login[1-2]")
    yield place
    cluster.run(*change, "AllocNodes=ALL")


def test_compute_nodes_that_may_not_submit_are_reported_and_no_head_job_goes_there(
    closed: Path, capsys
) -> None:
    study = write_study(closed)
    code, printed = examine(capsys, study, "--no-jobs")
    host = os.uname().nodename.partition(".")[0]
    assert "note  voxelsoup submit: the head job, in partition cpu, may submit to" in printed
    said = f"{host} is not in its AllocNodes (login[1-2])"
    assert f"may submit to partition gpu-short: {said}" in printed
    # Nor does Slurm take jobs from this very host, which is a matter of the study itself.
    assert code == 1 and printed.count("fails") == 1
    with pytest.raises(InputError, match=r"is not in its AllocNodes \(login\[1-2\]\)") as caught:
        asked = Namespace(study=Path(study), profile=Path("profile"), runtime=None)
        submit(asked, read(asked.study))
    assert "start Snakemake on a login node instead" in caught.value.fix
    assert not (closed / "results").exists()


def test_what_slurm_says_to_a_node_is_reported(closed: Path, capsys) -> None:
    site = read_site(Path("profile"))
    head = Submission("head job", 1, {"cpus_per_task": 1, "mem_mb": 100, "runtime": 1, "gpu": 0})
    used = {"cpu": head, "gpu-short": head}
    commands, cpu, gpu = check_from_node(site, "cpu", used, seconds=30)
    assert (commands.problem, cpu.problem) == (None, None)
    assert gpu.problem is not None and not gpu.required
    assert "a job for partition gpu-short: allocation failure: Access/permission" in str(
        gpu.problem
    )


def test_alloc_nodes_are_read_as_scontrol_prints_them() -> None:
    printed = (
        "PartitionName=cpu AllowGroups=ALL AllocNodes=ALL Default=YES TRES=cpu=8,mem=8000M\n"
        "PartitionName=gpu AllocNodes=login[1-2],x State=UP\n"
    )
    assert parse_alloc_nodes(printed) == {"cpu": "ALL", "gpu": "login[1-2],x"}


def test_without_a_controller_there_is_one_answer(place: Path, capsys, monkeypatch) -> None:
    (place / "slurm.conf").write_text("ClusterName=none\nSlurmctldHost=localhost\n")
    monkeypatch.setenv("SLURM_CONF", str(place / "slurm.conf"))
    code, printed = examine(capsys, write_study(place), "--no-jobs")
    assert code == 1
    assert len([line for line in printed.splitlines() if line.startswith("fails")]) == 1
    assert "Slurm's controller answering" in printed


def test_a_group_of_an_unknown_rule_is_refused(place: Path, capsys, cluster) -> None:
    cluster.write_profile(place / "profile", groups={"trail": "run"})
    assert main(["doctor", "--profile", "profile", write_study(place)]) == 1
    assert "there is no rule trail; did you mean `trial`?" in capsys.readouterr().err


def test_without_slurm_the_missing_commands_are_named(tmp_path: Path) -> None:
    """In a process of its own, whose PATH holds nothing but what the plugin looks around with."""
    (tmp_path / "which").symlink_to("/usr/bin/which")
    study = write_study(tmp_path)
    command = [sys.executable, "-m", "voxelsoup.commands.cli", "doctor", study]
    environment = os.environ | {"PATH": str(tmp_path), "PYTHONPATH": str(REPOSITORY / "src")}
    profile = ["--profile", str(REPOSITORY / "profiles" / "slurm")]
    result = subprocess.run(
        [*command, *profile], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 1, result.stderr
    assert "there is no sbatch" in result.stdout


def test_a_partitions_file_with_an_unknown_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "executor: slurm\nslurm-partition-config: partitions.yaml\n"
    )
    (tmp_path / "partitions.yaml").write_text("partitions:\n  cpu:\n    max_memory: 1\n")
    with pytest.raises(InputError, match="max_memory"):
        read_site(tmp_path).partitions()


def test_a_profile_is_read_as_windows_saves_it(tmp_path: Path) -> None:
    text = "executor: slurm\r\nslurm-partition-config: p.yaml\r\nslurm-qos: night\r\n"
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8-sig", newline="")
    assert read_site(tmp_path).qos == "night"


def test_a_profile_for_another_executor_is_refused() -> None:
    with pytest.raises(InputError, match="its executor is not given"):
        read_site(REPOSITORY / "profiles" / "local")


def test_an_option_that_the_plugin_sets_itself_is_refused_in_slurm_extra() -> None:
    partitions = Path("partitions.yaml")
    assert check_extra(Site(partitions, extra="--signal=USR1@60")).problem is None
    problem = check_extra(Site(partitions, extra="--account=test")).problem
    assert problem is not None and "account" in problem.found


def test_parse_nodes_reads_what_sinfo_prints() -> None:
    printed = (
        "long|n1|64|512000+|gpu:a100:4(S:0-1),gpu:h100:2,mps:100|7-00:00:00\n"
        "any|n2|128|250000|(null)|infinite\n"
        "small|n3|8|8000|gpu:2(IDX:0-1)|30:00\n"
        "hours|n4|1|1000|(null)|2:00:00\n"
    )
    assert parse_nodes(printed) == [
        Node("long", "n1", 64, 512000, {"a100": 4, "h100": 2}, 7 * 24 * 60),
        Node("any", "n2", 128, 250000, {}, math.inf),
        Node("small", "n3", 8, 8000, {"": 2}, 30),
        Node("hours", "n4", 1, 1000, {}, 120),
    ]
