"""The answer and its tables: the best single model of each fold against the soups."""

from itertools import chain
from pathlib import Path

from voxelsoup.common.files import read_json
from voxelsoup.common.logs import job_log
from voxelsoup.comparison.answer import (
    answer_of,
    facts_table,
    key_table,
    secondary_table,
    write_answer,
)
from voxelsoup.comparison.findings import find, write_findings
from voxelsoup.comparison.folds import compare_study
from voxelsoup.comparison.names import BEST_MODEL, primary_titles, soup_title
from voxelsoup.comparison.overview import overview, write_fold_table, write_overview
from voxelsoup.comparison.postprocessing_effect import write_without_and_with
from voxelsoup.comparison.sweep_effects import effects, seed_spreads, write_effects, write_seeds
from voxelsoup.comparison.tool_rows import (
    read_tools,
    shown_as_unknown,
    title_of,
    with_tools,
)
from voxelsoup.runs.divergence import left_out
from voxelsoup.soups.candidates import diverged_trials, models_of_folds
from voxelsoup.study.ingredients import note_on_given
from voxelsoup.study.loading import load
from voxelsoup.study.trials import (
    model_labels,
    parameters_of,
    training_steps,
    trial_labels,
    trials,
)

with job_log(snakemake.log[0]):
    asked, made_of = snakemake.params, snakemake.output
    folder, protocol = Path(made_of.overview).parent, asked.protocol
    study = load(snakemake.config)
    tolerance = study.metrics.surface_tolerance
    found = trials(study)
    parameters = parameters_of(found)
    results = Path(asked.results)
    models = models_of_folds(results, asked.folds)
    labels = model_labels(study, chain(*models.values()))
    diverged, names = diverged_trials(study), trial_labels(found)
    without = left_out(diverged, names)
    primary = primary_titles(study.primary)
    comparisons = compare_study(results, models, study.compared_recipes, protocol)
    findings = find(comparisons, parameters, primary)
    spreads = seed_spreads(comparisons, parameters)
    steps = {soup_title(r): training_steps(study, found, r) for r in study.compared_recipes}
    steps[BEST_MODEL] = training_steps(study, found, "best")
    scored = read_tools(results, list(study.comparison.other_tools))
    others = {title_of(tool): rows for tool, rows in scored.items()}
    beside = with_tools(comparisons, others)
    frame = overview(beside, steps=steps | dict.fromkeys(others, 0))
    frame = shown_as_unknown(frame, list(others))

    tables = {
        "All models on the test cases (intervals are not corrected for their number)": key_table(
            frame
        ),
        "Secondary comparisons, corrected for each other": secondary_table(findings),
        "About these numbers": facts_table(comparisons, spreads, primary, without),
    }
    # Who reads the answer has to know this.
    caution = [note] if (note := note_on_given(study)) else []
    answer = Path(made_of.answer_text), Path(made_of.answer)
    write_answer(*answer, [*answer_of(findings, protocol), *caution], tables)
    write_findings(findings, protocol, folder / "comparisons")
    write_overview(frame, folder / "overview", tolerance)
    for comparison in comparisons:
        of_fold = left_out([one for one in diverged if one.fold == comparison.fold], names)
        write_fold_table(comparison, folder / f"fold{comparison.fold}", labels, of_fold)
    effect = effects(comparisons, parameters)
    write_effects(effect, protocol, folder / "hyperparameters", without)
    write_seeds(spreads, comparisons, primary, folder / "seeds")
    chosen = [read_json(Path(path)) for path in snakemake.input.postprocessing]
    write_without_and_with(comparisons, chosen, folder / "postprocessing")
    after = overview(comparisons, after_postprocessing=True, steps=steps)
    write_overview(after, folder / "overview_postprocessed", tolerance, after_postprocessing=True)
