"""The methods section of a paper, and where the numbers come from."""

from pathlib import Path

import pandas as pd
import yaml

from voxelsoup.common import provenance
from voxelsoup.common.files import read_json, sha256, write_text
from voxelsoup.common.logs import job_log
from voxelsoup.comparison.findings import primary_answer
from voxelsoup.comparison.pages import write_section, write_text_table
from voxelsoup.data.index.index import read_cases, read_rejected
from voxelsoup.data.index.not_annotated import not_annotated_in_words
from voxelsoup.report.cases import account
from voxelsoup.report.methods.methods import FoldSize, StudyFacts, methods, trials_sentence
from voxelsoup.report.provenance import CAPTION, provenance_table
from voxelsoup.runs.divergence import left_out
from voxelsoup.soups.candidates import diverged_trials, models_of_folds, runs_of_folds, trials_of
from voxelsoup.study import plug_ins
from voxelsoup.study.ingredients import only_trained
from voxelsoup.study.loading import load
from voxelsoup.study.trials import trial_labels, trials

with job_log(snakemake.log[0]):
    study = load(snakemake.config)
    given, made_of = snakemake.input, snakemake.output
    folds = read_json(Path(given.folds))["folds"]
    indexed = read_cases(Path(given.cases))
    cases = [case for case in indexed if case.label is not None]
    not_annotated = not_annotated_in_words(cases, study.dataset.not_annotated, study.regions)
    results = Path(snakemake.params.results)
    found = models_of_folds(results, study.folds.numbers)
    trained = {fold: only_trained(models) for fold, models in found.items()}
    folders = runs_of_folds(results, trained, study.stem.source == "train")
    runs = [read_json(folder / "run.json") for _, folder in folders]
    models = pd.read_csv(given.models, sep="\t", dtype=str)
    versions = runs[0]["versions"] | {"snakemake": provenance.versions()["snakemake"]}

    diverged = diverged_trials(study)
    facts = StudyFacts(
        cases=len(cases),
        patients=len({case.patient for case in cases}),
        folds={
            int(fold): FoldSize(**{part: len(names) for part, names in parts.items()})
            for fold, parts in folds.items()
        },
        parameter_count=runs[0]["parameter_count"],
        devices=list(dict.fromkeys(run["device"] for run in runs)),
        sources=list(dict.fromkeys(provenance.in_words(run["commit"]) for run in runs)),
        not_annotated=not_annotated,
        diverged=left_out(diverged, trial_labels(trials(study))),
        models=sum(len(trials_of(models)) for models in trained.values()) if diverged else None,
        answer=primary_answer(Path(given.comparisons)),
        plug_ins=plug_ins.in_words(study),
    )
    written = methods(study, versions, facts)
    write_section(
        Path(made_of.methods),
        Path(made_of.methods_text),
        "Methods",
        written.parts,
        written.references,
    )

    write_text(Path(made_of.trials), trials_sentence(study, facts) + "\n")
    rejected = read_rejected(Path(given.rejected))
    write_text(Path(made_of.cases), account(indexed, rejected, not_annotated))

    settings = yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False)
    write_text(Path(made_of.study), settings)
    files = {
        Path(name).name: sha256(Path(name)) for name in (made_of.study, given.cases, given.folds)
    }
    report = provenance.versions() | {"commit": provenance.source()}
    made_with = {name: report[name] for name in ("voxelsoup", "commit")}
    table = provenance_table(runs, models, files, made_with, plug_ins.records_of(study))
    write_text_table(table, Path(made_of.provenance).with_suffix(""), CAPTION)
