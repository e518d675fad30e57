# voxelsoup: from one declared study to one model. Each chapter is a file in rules/.
import os
import re

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

min_version("9.27")


# A study is one complete file: --configfile replaces the default and is not merged with it. Another
# workflow may hand it over as the `config` of this module.
if not workflow.configfiles and "dataset" not in config:
    if not os.path.exists("config.yaml"):
        raise WorkflowError(
            f"{os.getcwd()}: no study is given\n"
            "  expected: --configfile STUDY.yaml, config.yaml here, or `config:` of the module\n"
            "  fix: name the study; `voxelsoup init SCANS` writes one for a folder of scans"
        )

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
    given="|".join(one.name for one in study.ingredients) or r"(?!)",
    # An ensemble has its own rule; without any soup nothing may match.
    recipe="|".join(map(re.escape, study.soup.averaging_recipes)) or r"(?!)",


include: "rules/start.smk"
include: "rules/functions.smk"


if study.part_of:

    include: "rules/shared_data.smk"

else:

    include: "rules/data.smk"


include: "rules/train.smk"


if study.ingredients or study.stem.is_converted:

    include: "rules/elsewhere.smk"


if study.sweep.halving:

    include: "rules/halving.smk"


include: "rules/evaluate.smk"
include: "rules/soup.smk"


if study.soup.finish:

    include: "rules/finish.smk"


if study.comparison.long_run:

    include: "rules/long_run.smk"


if study.comparison.test_sets:

    include: "rules/test_sets.smk"


if study.comparison.other_tools:

    include: "rules/other_tools.smk"


if study.final:

    include: "rules/final.smk"


if study.final and study.soup.finish:

    include: "rules/final_finish.smk"


if configurations:

    include: "rules/configurations.smk"


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
        "<results>/final/recipe.json" if study.final else [],
        # One model of each configuration.
        [f"{each.results}/bundle/configs/metadata.json" for each in configurations.values()],
