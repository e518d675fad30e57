"""One table over the configurations of a study and the chosen ensemble of them."""

from pathlib import Path

from voxelsoup.common.files import read_json
from voxelsoup.common.logs import job_log
from voxelsoup.comparison.answer import write_answer
from voxelsoup.comparison.configurations import (
    Compared,
    compare_configurations,
    cost_of,
    sentence,
    shown_configurations,
    write_configurations,
)
from voxelsoup.comparison.folds import patients_of_cases
from voxelsoup.comparison.names import BEST_MODEL, soup_title
from voxelsoup.evaluation.case_scores import read_rows
from voxelsoup.soups.configuration_choice import title_of
from voxelsoup.study.configurations import handed_over
from voxelsoup.study.loading import load_with_configurations

with job_log(snakemake.log[0]):
    asked, given = snakemake.params, snakemake.input
    chosen, costs = read_json(Path(given.chosen)), [read_json(Path(path)) for path in given.costs]
    dice, compared = chosen["selection_dice"], []
    for name, study in load_with_configurations(snakemake.config).items():
        model = handed_over(study)
        folders = {fold: Path(study.results, f"fold{fold}", model) for fold in asked.folds}
        compared.append(
            Compared(
                (name,),
                BEST_MODEL if model == "best" else soup_title(Path(model).name),
                dice[name],
                {fold: read_rows(folder / "test.csv") for fold, folder in folders.items()},
                {fold: read_rows(folder / "postprocessed.csv") for fold, folder in folders.items()},
                *cost_of(costs, (name,)),
            )
        )
    ensemble = tuple(chosen["ensemble"])
    compared.append(
        Compared(
            ensemble,
            "Ensemble",
            dice[title_of(ensemble)],
            {f: read_rows(Path(p)) for f, p in zip(asked.folds, given.ensemble, strict=True)},
            {f: read_rows(Path(p)) for f, p in zip(asked.folds, given.ensemble_after, strict=True)},
            *cost_of(costs, ensemble),
        )
    )
    results = Path(given.cases).parent
    frame = compare_configurations(
        compared, chosen["configuration"], tuple(chosen["chosen"]), patients_of_cases(results)
    )
    stem = results / "comparison" / "configurations"
    write_configurations(frame, stem, asked.protocol, costs[0]["device"])
    # The report begins with it.
    table = {"Configurations, and the best ensemble of them": shown_configurations(frame)}
    write_answer(Path(snakemake.output.first_page), None, [sentence(frame)], table)
