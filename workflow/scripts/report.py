"""Write the report with Snakemake's own report command, over everything but itself."""

import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from voxelsoup.common.files import atomic_write
from voxelsoup.common.logs import job_log

with job_log(snakemake.log[0]), tempfile.TemporaryDirectory() as folder:
    # The study as it is now, whichever files and options it was put together from.
    config = Path(folder) / "study.yaml"
    config.write_text(yaml.safe_dump(dict(snakemake.config), sort_keys=False))
    with atomic_write(Path(snakemake.output[0])) as page, Path(snakemake.log[0]).open("a") as log:
        command = ["snakemake", "findings", "--snakefile", snakemake.params.snakefile]
        command += ["--configfile", str(config), "--report", str(page), "--nolock"]
        command += ["--report-stylesheet", snakemake.params.stylesheet]
        subprocess.run([sys.executable, "-m", *command], check=True, stdout=log, stderr=log)
