"""The study's models against the label maps of other tools."""

from pathlib import Path

from voxelsoup.common.logs import job_log
from voxelsoup.comparison.folds import compare_study
from voxelsoup.comparison.names import primary_titles
from voxelsoup.comparison.other_tools import against_tools, write_against_tools
from voxelsoup.comparison.tool_rows import read_tools, with_tools
from voxelsoup.soups.candidates import models_of_folds
from voxelsoup.study.loading import load

with job_log(snakemake.log[0]):
    asked, study = snakemake.params, load(snakemake.config)
    results, tools = Path(asked.results), list(study.comparison.other_tools)
    models = models_of_folds(results, asked.folds)
    scores = read_tools(results, tools)
    own = compare_study(
        results, models, study.compared_recipes, asked.protocol, postprocessed=False
    )
    comparisons = with_tools(own, scores)
    families = against_tools(comparisons, tools, primary_titles(study.primary)[0])
    stem = Path(snakemake.output.table).with_suffix("")
    write_against_tools(families, comparisons, stem)
