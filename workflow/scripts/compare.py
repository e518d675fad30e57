"""Tables that compare the best single model of each fold with the soups."""

from pathlib import Path

from segsoup.answer import key_table, preliminary_answer, write_answer
from segsoup.comparison import compare_study, overview, write_fold_table, write_overview
from segsoup.logs import job_log

with job_log(snakemake.log[0]):
    asked, folder = snakemake.params, Path(snakemake.output.overview).parent
    comparisons = compare_study(
        Path(asked.results), asked.folds, asked.trials, asked.recipes, asked.protocol
    )
    for comparison in comparisons:
        write_fold_table(comparison, folder / f"fold{comparison.fold}")
    frame = overview(comparisons)
    write_overview(frame, folder / "overview")
    made_of, (headline, *sentences) = snakemake.output, preliminary_answer(frame)
    write_answer(
        Path(made_of.answer_text), Path(made_of.answer), sentences, headline, key_table(frame)
    )
