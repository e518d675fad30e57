"""What is checked before the first job: once what is right, and without torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml

from support.documents import REPOSITORY

CHECK = """
import sys
from pathlib import Path
import yaml
from voxelsoup.common.errors import InputError
from voxelsoup.study.loading import load
from voxelsoup.training.preflight import check_start

study = load(yaml.safe_load(Path(sys.argv[1]).read_text()))
check_start(study)
# Whatever asks torch from here on fails.
sys.executable = "/bin/false"
check_start(study)
training = study.training.model_copy(update={"patch": [48, 32, 32]})
try:
    check_start(study.model_copy(update={"training": training}))
except InputError as error:
    print(error.found)
print(sorted({"torch", "monai"} & sys.modules.keys()))
"""


def test_a_network_that_was_right_is_not_checked_again_and_torch_stays_out(tmp_path: Path) -> None:
    study = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    source = {"PYTHONPATH": str(REPOSITORY / "src"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", CHECK, str(tmp_path / "study.yaml")],
        env=os.environ | source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["could not be checked: exit code 1", "[]"]
