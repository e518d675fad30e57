"""Write the report with Snakemake's own report command, over everything but itself."""

import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from voxelsoup.common.files import atomic_write
from voxelsoup.common.logs import job_log

# All rules of a Snakefile, which may lie at a URL: Snakemake takes one for a module alone.
OF_URL = """
module study:
    snakefile: "{url}"
    config: config
use rule * from study
"""

with job_log(snakemake.log[0]), tempfile.TemporaryDirectory() as folder:
    # The study as it is now, whichever files and options it was put together from.
    config = Path(folder) / "study.yaml"
    config.write_text(yaml.safe_dump(dict(snakemake.config), sort_keys=False))
    snakefile = Path(snakemake.params.snakefile)
    stylesheet = Path(snakemake.params.stylesheet)
    if not snakefile.is_file():
        snakefile = Path(folder) / "Snakefile"
        snakefile.write_text(OF_URL.format(url=snakemake.params.snakefile))
    with atomic_write(Path(snakemake.output[0])) as page, Path(snakemake.log[0]).open("a") as log:
        command = ["snakemake", "findings", "--snakefile", str(snakefile)]
        command += ["--configfile", str(config), "--report", str(page), "--nolock"]
        command += ["--report-stylesheet", str(stylesheet)] if stylesheet.is_file() else []
        subprocess.run([sys.executable, "-m", *command], check=True, stdout=log, stderr=log)
