"""The workflow as a module of another one: by plans."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from support.forked import SEARCHED, from_one_that_imported_them
from support.studies import write_tiny
from support.workflows import REPOSITORY, planned


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        """Say nothing of each request."""


@pytest.fixture
def url() -> Iterator[str]:
    """The project's Snakefile, at a URL."""
    handler = partial(Quiet, directory=str(REPOSITORY))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/Snakefile"
        server.shutdown()


def plan(folder: Path, snakefile: str, module: str = "", use: str = "", succeeds: bool = True):
    """What a dry run of a workflow says that uses the project as a module."""
    write_tiny(folder)
    lines = f'module seg:\n    snakefile: "{snakefile}"\n    config: config\n{module}\n{use}\n'
    (folder / "Snakefile").write_text(f'configfile: "study.yaml"\n{lines}')
    # The library of the checkout is found by itself, except from a URL.
    alone = {} if ":" in snakefile else {"PYTHONPATH": str(SEARCHED)}
    environment = from_one_that_imported_them() | alone
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", "1", "--quiet", "rules"]
    streams = {"capture_output": True, "text": True}
    result = subprocess.run(command, cwd=folder, env=environment, **streams)
    printed = result.stdout + result.stderr
    assert (result.returncode == 0) == succeeds, printed[-6000:]
    return printed


# Half of the rules under other names, of which one is changed; and one under a name of its own.
USED = """
use rule * from seg exclude stem as seg_*
use rule trial from seg as seg_trial with:
    threads: 1
use rule stem from seg as warm_up with:
    message: "The stem of another workflow."
"""


def test_rules_of_a_url_under_other_names_and_changed_are_those_of_one_study(
    tmp_path: Path, url: str
) -> None:
    printed = plan(tmp_path, url, use=USED)
    jobs = planned(printed)
    assert (jobs["warm_up"], jobs["seg_trial"], jobs["seg_all"]) == (1, 2, 1)
    assert not {"stem", "trial", "seg_stem"} & jobs.keys()
    # One table of what is to be done.
    assert printed.count("trials to train") == printed.count("stems to train") == 1


@pytest.mark.parametrize("prefix", ['prefix: "sub"', 'replace_prefix: {"results/": "other/"}'])
def test_a_prefix_of_paths_is_refused_in_one_message(tmp_path: Path, prefix: str) -> None:
    use = "use rule * from seg"
    printed = plan(tmp_path, f"{REPOSITORY}/Snakefile", f"    {prefix}", use, succeeds=False)
    assert "fix: leave the prefix out, and name the folder in `results`" in printed
    # Nothing of where in the code it was found.
    assert "line " not in printed and "Traceback" not in printed
