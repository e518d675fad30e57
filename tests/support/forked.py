"""Python processes that are forked from one that has imported torch and MONAI.

A study is dozens of jobs, of which each takes seconds to import the same packages. Where a test is
about what the jobs compute, Snakemake and its jobs get ``from_one_that_imported_them`` as their
environment: then each of them asks, as it starts (``search_path/sitecustomize.py``), a server of
this worker, which forks a process that goes on in its place, with its folder, variables, arguments
and streams. Modules of voxelsoup are imported by each as always. The study of the installed wheel
(``halving.run_halved``), those on Slurm, and whatever is killed or measured start as those of users
do.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import importlib.util
import json
import os
import runpy
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from support.search_path.sitecustomize import FORKED_FROM

# What all processes that tests start search: there is no pytorch-ignite, as with most users.
SEARCHED = Path(__file__).parent / "search_path"
MONAI_IMPORT = Path(__file__).parents[2] / "src/voxelsoup/common/monai_import.py"
IMPORTED = (
    # The second one is imported with the first step of an optimizer.
    *("torch", "torch._dynamo", "monai.networks.nets", "monai.losses", "monai.inferers", "numpy"),
    *("scipy.ndimage", "scipy.special", "scipy.stats", "pandas", "nibabel", "pydantic", "yaml"),
    *("rich.console", "rich.table", "matplotlib", "safetensors.torch", "snakemake.cli"),
    *("smart_open", "snakemake.script"),
)


def from_one_that_imported_them() -> dict[str, str]:
    """The variables of a process that is to be forked, as are those that it starts."""
    return os.environ | {FORKED_FROM: _server()}


@cache
def _server() -> str:
    """Start this worker's server; returns the address of its socket."""
    # A socket's path may have about 100 characters; pytest's folders are longer.
    folder = Path(tempfile.mkdtemp(prefix="voxelsoup-forked-", dir="/tmp"))
    address = folder / "socket"
    program = "import sys; from support.forked import serve; serve(sys.argv[1])"
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ["PYTHONPATH"]])
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(address)],
        env=os.environ | {"PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    # It ends with its stream, also where this process is killed.
    atexit.register(process.communicate)
    return str(address)


def serve(address: str) -> None:
    """Import the packages, and fork a process for each that asks, until stdin is closed."""
    _import_packages()
    with socket.socket(socket.AF_UNIX) as asking:
        asking.bind(address)
        asking.listen()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while sys.stdin not in (ready := select.select([asking, sys.stdin], [], [], 1)[0]):
            if ready:
                connection = asking.accept()[0]
                if os.fork() == 0:
                    asking.close()
                    return _fork_and_wait(connection)
                connection.close()
            _collect()
    shutil.rmtree(Path(address).parent)
    return None


def _import_packages() -> None:
    """Import what most processes do, MONAI as jobs do: without packages that none of them uses."""
    spec = importlib.util.spec_from_file_location("monai_import", MONAI_IMPORT)
    assert spec is not None and spec.loader is not None
    monai_import = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(monai_import)
    monai_import.hide_extras_from_monai()
    for name in IMPORTED:
        importlib.import_module(name)
    # Finds Snakemake's plug-ins, among all modules that are installed.
    importlib.import_module("snakemake.cli").get_argument_parser()
    # Those that are forked share what is here, and need not look for garbage in it.
    gc.collect()
    gc.freeze()


def _collect() -> None:
    """Collect the processes that have ended, with the time that they have taken."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def _fork_and_wait(connection: socket.socket) -> None:
    """Fork the process that a connection asks for, and report its number and its exit code."""
    streams = socket.recv_fds(connection, 1, 3)[1]
    with connection, connection.makefile("r") as lines:
        asked = json.loads(next(lines))
        process = os.fork()
        if process == 0:
            return _become(asked, streams)
        for stream in streams:
            os.close(stream)
        connection.sendall(f"{process}\n".encode())
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        connection.sendall(f"{code}\n".encode())
    os._exit(0)


def _become(asked: dict[str, Any], streams: list[int]) -> None:
    """Run what a process was started for, in its place."""
    for own, stream in enumerate(streams):
        os.dup2(stream, own)
        os.close(stream)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    first, *others = asked["arguments"]
    if first == "-m":
        sys.argv, sys.path[:] = others, [asked["folder"], *asked["path"]]
        runpy.run_module(others[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[:] = [first, *others], [str(Path(first).parent), *asked["path"]]
        runpy.run_path(first, run_name="__main__")
