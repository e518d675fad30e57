# Is the soup better than the best single model? Tables, figures, models and the report.

TABLES = ["comparisons", "overview", *(f"fold{fold}" for fold in FOLDS), "hyperparameters"]
TABLES += ["seeds", "postprocessing", "overview_postprocessed"]
# Label maps of other tools are rows of the overview.
SCORED_TOOLS = expand("<results>/other_tools/{tool}/scores.csv", tool=OTHER_TOOLS)
FIGURES = ["build_up", "selection_against_test", "hyperparameters", "training_curves"]
FIGURES += [f"differences_{recipe}" for recipe in RECIPES]


if workflow.is_main_process and not study.part_of:
    # Captions read the checked study: what Snakemake (9.27.1) hands them is the study as written,
    # without its defaults.
    from jinja2.defaults import DEFAULT_NAMESPACE

    from voxelsoup.report.captions import caption_values

    DEFAULT_NAMESPACE.update(caption_values(study))


rule compare:
    """The answer and its tables: the best single model against the soups, per fold and over all."""
    input:
        cases="<results>/cases.tsv",
        candidates=fold_files("candidates.tsv"),
        recipes=fold_files("soups/{recipe}/recipe.json", recipe=RECIPES),
        soup_tests=fold_files("soups/{recipe}/test.csv", recipe=RECIPES),
        best_postprocessed=fold_files("best/postprocessed.csv"),
        soups_postprocessed=fold_files("soups/{recipe}/postprocessed.csv", recipe=RECIPES),
        postprocessing=fold_files("postprocessing.json"),
        other_tools=SCORED_TOOLS,
    output:
        answer=report(
            "<results>/comparison/answer.html",
            caption="../workflow/report/answer.rst",
            category=SECTIONS["answer"],
            labels={"answer": "1 in one paragraph"},
        ),
        answer_text="<results>/comparison/answer.rst",
        comparisons=report(
            "<results>/comparison/comparisons.html",
            caption="../workflow/report/comparisons.rst",
            category=SECTIONS["answer"],
            labels={"answer": "2 all comparisons"},
        ),
        overview=report(
            "<results>/comparison/overview.html",
            caption="../workflow/report/overview.rst",
            category=SECTIONS["tables"],
            labels={"table": "1 overview"},
        ),
        # Labels of their own: of results with the same ones, the report shows only one.
        folds=[
            report(
                f"<results>/comparison/fold{fold}.html",
                caption="../workflow/report/fold_table.rst",
                category=SECTIONS["tables"],
                labels={"table": f"2 fold {fold}"},
            )
            for fold in FOLDS
        ],
        hyperparameters=report(
            "<results>/comparison/hyperparameters.html",
            caption="../workflow/report/hyperparameters.rst",
            category=SECTIONS["tables"],
            labels={"table": "3 hyperparameters"},
        ),
        seeds=report(
            "<results>/comparison/seeds.html",
            caption="../workflow/report/seeds.rst",
            category=SECTIONS["tables"],
            labels={"table": "4 seeds"},
        ),
        postprocessing=report(
            "<results>/comparison/postprocessing.html",
            caption="../workflow/report/postprocessing.rst",
            category=SECTIONS["tables"],
            labels={"table": "5 post-processing"},
        ),
        postprocessed=report(
            "<results>/comparison/overview_postprocessed.html",
            caption="../workflow/report/overview.rst",
            category=SECTIONS["tables"],
            labels={"table": "6 overview after post-processing"},
        ),
        others=expand(
            "<results>/comparison/{table}.{format}", table=TABLES, format=["csv", "md", "tex"]
        ),
    log:
        "<logs>/compare.log",
    benchmark:
        "<benchmarks>/compare.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("compare")
    resources:
        **needs("compare"),
    params:
        # Only where it is asked for: tables of other studies stay as they are.
        **({"primary": study.primary.model_dump()} if study.comparison.primary else {}),
        sweep=SETTINGS["sweep"],
        results=results_folder,
        folds=FOLDS,
        recipes=RECIPES,
        protocol=study.evaluation.protocol,
    message:
        "Comparison: the answer and its tables."
    script:
        "../workflow/scripts/compare.py"


rule figures:
    """Curves, build-up, scores of all runs, differences of cases, effects of what is swept."""
    input:
        cases="<results>/cases.tsv",
        candidates=fold_files("candidates.tsv"),
        recipes=fold_files("soups/{recipe}/recipe.json", recipe=RECIPES),
        soup_tests=fold_files("soups/{recipe}/test.csv", recipe=RECIPES),
    output:
        differences=[
            report(
                f"<results>/figures/differences_{recipe}.html",
                caption="../workflow/report/differences.rst",
                category=SECTIONS["figures"],
                labels={"figure": f"1 differences of cases, {recipe}"},
            )
            for recipe in RECIPES
        ],
        build_up=report(
            "<results>/figures/build_up.html",
            caption="../workflow/report/build_up.rst",
            category=SECTIONS["figures"],
            labels={"figure": "2 build-up of the soups"},
        ),
        selection_against_test=report(
            "<results>/figures/selection_against_test.html",
            caption="../workflow/report/selection_against_test.rst",
            category=SECTIONS["figures"],
            labels={"figure": "3 selection against test score"},
        ),
        hyperparameters=report(
            "<results>/figures/hyperparameters.html",
            caption="../workflow/report/hyperparameter_effects.rst",
            category=SECTIONS["figures"],
            labels={"figure": "4 effects of hyperparameters"},
        ),
        training_curves=report(
            "<results>/figures/training_curves.html",
            caption="../workflow/report/training_curves.rst",
            category=SECTIONS["figures"],
            labels={"figure": "5 training curves"},
        ),
        others=expand("<results>/figures/{figure}.{format}", figure=FIGURES, format=["svg", "png"]),
    log:
        "<logs>/figures.log",
    benchmark:
        "<benchmarks>/figures.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("figures")
    resources:
        **needs("figures"),
    params:
        sweep=SETTINGS["sweep"],
        results=results_folder,
        folds=FOLDS,
        recipes=RECIPES,
        protocol=study.evaluation.protocol,
    message:
        "Figures."
    script:
        "../workflow/scripts/figures.py"


rule case_slices:
    """The best, the median and the worst case with ground truth and predictions."""
    input:
        folds="<results>/folds.json",
        manifest="<results>/preprocessed.tsv",
        best=fold_files("best/model.safetensors"),
        soups=fold_files("{model}/model.safetensors", model=SHOWN),
        tests=fold_files("{model}/test.csv", model=SHOWN),
    output:
        page=report(
            "<results>/figures/case_slices.html",
            caption="../workflow/report/case_slices.rst",
            category=SECTIONS["figures"],
            labels={"figure": "6 best, median and worst case"},
        ),
        others=expand("<results>/figures/case_slices.{format}", format=["svg", "png"]),
    log:
        "<logs>/case_slices.log",
    benchmark:
        "<benchmarks>/case_slices.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("case_slices")
    resources:
        **needs("case_slices"),
    params:
        evaluation=SETTINGS["evaluation"],
        folds=FOLDS,
        shown=SHOWN[0],
        folder=preprocessed_folder,
    message:
        "Slices of the best, the median and the worst case."
    script:
        "../workflow/scripts/case_slices.py"


rule basins:
    """Whether the models of each fold can be averaged, and why greedy kept only one if it did."""
    input:
        basins=fold_files("basin.json"),
        recipes=fold_files("soups/{recipe}/recipe.json", recipe=RECIPES),
    output:
        table=report(
            "<results>/comparison/basin.html",
            caption="../workflow/report/basin.rst",
            category=SECTIONS["basin"],
            labels={"result": "do the models share a basin?"},
        ),
        others=expand("<results>/comparison/basin.{format}", format=["csv", "md", "tex"]),
        figures=expand(
            "<results>/figures/{figure}.{format}",
            figure=["barriers", "weight_distances"],
            format=["svg", "png"],
        ),
        barriers=report(
            "<results>/figures/barriers.html",
            caption="../workflow/report/barriers.rst",
            category=SECTIONS["basin"],
            labels={"result": "barriers"},
        ),
        weight_distances=report(
            "<results>/figures/weight_distances.html",
            caption="../workflow/report/weight_distances.rst",
            category=SECTIONS["basin"],
            labels={"result": "distances of the weights"},
        ),
    log:
        "<logs>/basins.log",
    benchmark:
        "<benchmarks>/basins.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("basins")
    resources:
        **needs("basins"),
    params:
        sweep=SETTINGS["sweep"],
        results=results_folder,
        folds=FOLDS,
        recipes=RECIPES,
    message:
        "Basins: barriers and distances of all folds."
    script:
        "../workflow/scripts/basins.py"


rule collect:
    """Gather every model under a readable name, with a manifest of descriptions and scores."""
    input:
        candidates=fold_files("candidates.tsv"),
        stem_models=fold_files("{stem}/model.safetensors", stem=STEMS),
        stem_tests=fold_files("{stem}/test.csv", stem=STEMS),
        soup_models=fold_files("soups/{recipe}/model.safetensors", recipe=MODELS),
        recipes=fold_files("soups/{recipe}/recipe.json", recipe=MODELS),
        soup_selections=fold_files("soups/{recipe}/selection.csv", recipe=MODELS),
        soup_tests=fold_files("soups/{recipe}/test.csv", recipe=MODELS),
    output:
        manifest=report(
            "<results>/models/manifest.tsv",
            caption="../workflow/report/manifest.rst",
            category=SECTIONS["data"],
            labels={"table": "all models"},
        ),
    log:
        "<logs>/collect.log",
    benchmark:
        "<benchmarks>/collect.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("collect")
    resources:
        **needs("collect"),
    params:
        results=results_folder,
        folds=FOLDS,
        stems=STEMS,
        recipes=MODELS,
        protocol=study.evaluation.protocol,
    message:
        "Models under readable names, with their manifest."
    script:
        "../workflow/scripts/collect.py"


rule methods:
    """The methods section of a paper, and where the numbers come from."""
    input:
        cases="<results>/cases.tsv",
        rejected="<results>/rejected.tsv",
        folds="<results>/folds.json",
        candidates=fold_files("candidates.tsv"),
        models=rules.collect.output.manifest,
        # The outcome of the primary comparison.
        comparisons="<results>/comparison/comparisons.csv",
    output:
        methods=report(
            "<results>/report/methods.html",
            caption="../workflow/report/methods.rst",
            category=SECTIONS["methods"],
            labels={"text": "methods and references"},
        ),
        methods_text="<results>/report/methods.md",
        trials="<results>/report/trials.rst",
        cases="<results>/report/cases.rst",
        provenance=report(
            "<results>/report/provenance.html",
            caption="../workflow/report/provenance.rst",
            category=SECTIONS["provenance"],
            labels={"provenance": "versions, commit and hashes"},
        ),
        study=report(
            "<results>/report/study.yaml",
            caption="../workflow/report/study.rst",
            category=SECTIONS["provenance"],
            labels={"provenance": "the study with all defaults"},
        ),
        provenance_table="<results>/report/provenance.csv",
    log:
        "<logs>/methods.log",
    benchmark:
        "<benchmarks>/methods.tsv"
    localrule: True
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("methods")
    resources:
        **needs("methods"),
    params:
        study=SETTINGS,
        results=results_folder,
    message:
        "Methods and provenance."
    script:
        "../workflow/scripts/methods.py"


rule run_times:
    """Time and memory of the jobs, from their benchmark files."""
    input:
        rules.compare.output,
        rules.figures.output,
        rules.basins.output,
        rules.case_slices.output,
        rules.methods.output,
    output:
        table=report(
            "<results>/report/run_times.html",
            caption="../workflow/report/run_times.rst",
            category=SECTIONS["run_times"],
            labels={"table": "time and memory of each rule"},
        ),
        others=expand("<results>/report/run_times.{format}", format=["csv", "md", "tex"]),
    log:
        "<logs>/run_times.log",
    benchmark:
        "<benchmarks>/run_times.tsv"
    localrule: True
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("run_times")
    resources:
        **needs("run_times"),
    params:
        benchmarks=f"{study.results}/benchmarks",
        folds=FOLDS,
        trials=sorted(trials),
        recipes=RECIPES,
    message:
        "Run times."
    script:
        "../workflow/scripts/run_times.py"


rule findings:
    """Everything that the report shows."""
    input:
        rules.compare_configurations.output if configurations else [],
        rules.index.output,
        rules.folds.output,
        rules.compare.output,
        rules.figures.output,
        rules.case_slices.output,
        rules.basins.output,
        rules.collect.output,
        rules.methods.output,
        rules.run_times.output,
        rules.test_sets.output if study.comparison.test_sets else [],
        rules.other_tools.output if OTHER_TOOLS else [],
        rules.final.output if study.final else [],
        fold_files("soups/{recipe}/recipe.json", recipe=RECIPES),


rule report:
    """One self-contained page: tables, figures, captions, rule graph and run times."""
    input:
        rules.findings.input,
    output:
        "<results>/report.html",
    log:
        "<logs>/report.log",
    benchmark:
        "<benchmarks>/report.tsv"
    localrule: True
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("report")
    resources:
        **needs("report"),
    params:
        snakefile=f"{os.path.dirname(RULES_FOLDER)}/Snakefile",
        stylesheet=str(REPOSITORY / "workflow" / "report" / "report.css"),
    message:
        "Report."
    script:
        "../workflow/scripts/report.py"
