# voxelsoup: from one declared study to one model. Each chapter is a file in rules/.
from snakemake.utils import min_version

min_version("9.27")


# A study is one complete file: --configfile replaces the default and is not merged with it. Other
# workflows hand it over as `config`.
if not workflow.configfiles and not config.get("dataset"):

    configfile: "config.yaml"


include: "rules/common.smk"


pathvars:
    results=study.results,
    logs=f"{study.results}/logs",
    benchmarks=f"{study.results}/benchmarks",


report: "workflow/report/workflow.rst"


wildcard_constraints:
    fold=r"\d+",
    trial=r"[0-9a-f]{8}",
    rung=r"\d+",
    # An ensemble has its own rule; without any soup nothing may match.
    recipe="|".join(study.soup.averaging_recipes) or r"(?!)",


include: "rules/start.smk"
include: "rules/functions.smk"
include: "rules/data.smk"
include: "rules/train.smk"


if study.sweep.halving:

    include: "rules/halving.smk"


include: "rules/evaluate.smk"
include: "rules/soup.smk"


if study.comparison.test_sets:

    include: "rules/test_sets.smk"


include: "rules/compare.smk"


if study.predict.input is not None:

    include: "rules/predict.smk"


include: "rules/deploy.smk"


rule all:
    default_target: True
    input:
        "<results>/report.html",
        "<results>/models/manifest.tsv",
        "<results>/bundle/configs/metadata.json",
        "<results>/provenance.tsv",
