"""Write the winning kind of model as a MONAI bundle."""

from pathlib import Path

from voxelsoup.common.logs import job_log
from voxelsoup.comparison.findings import primary_answer
from voxelsoup.data.index.index import read_cases
from voxelsoup.deploy.bundle.bundle import write_bundle
from voxelsoup.models import devices
from voxelsoup.study.loading import load

with job_log(snakemake.log[0]):
    study = load(snakemake.config)
    devices.prepare("cpu", snakemake.threads)
    cases = [case for case in read_cases(Path(snakemake.input.cases)) if case.label is not None]
    methods = Path(snakemake.input.methods).read_text(encoding="utf-8")
    results = Path(snakemake.params.results)
    answer = primary_answer(Path(snakemake.input.comparisons))
    write_bundle(study, results, cases, methods, answer, results / "bundle")
