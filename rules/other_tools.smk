# Label maps of other tools, beside the study's models; included only where the study names some.
from voxelsoup.prediction.other_tools import files_of_tool


wildcard_constraints:
    tool="|".join(OTHER_TOOLS),


rule other_tool:
    """Score the label maps that another tool has made of the test cases."""
    input:
        cases="<results>/cases.tsv",
        folds="<results>/folds.json",
        # What several raters agree on is known from there.
        manifest=["<results>/preprocessed.tsv"] if study.dataset.accept.raters else [],
        # By their contents: a label map that changes is scored again.
        maps=lambda wildcards: files_of_tool(Path(OTHER_TOOLS[wildcards.tool])),
    output:
        "<results>/other_tools/{tool}/scores.csv",
    log:
        "<logs>/other_tools/{tool}.log",
    benchmark:
        "<benchmarks>/other_tools/{tool}-other_tool.tsv"
    # Before models are trained: what is wrong with label maps comes to light first.
    priority: 20
    # A bad label map is as bad at the next attempt.
    retries: 0
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("other_tool")
    resources:
        **needs("other_tool"),
    params:
        **({"not_annotated": study.dataset.not_annotated} if study.dataset.not_annotated else {}),
        metrics=SETTINGS["metrics"],
        regions=SETTINGS["regions"],
        background=study.dataset.background,
        ignore_label=study.dataset.ignore_label,
        maps=lambda wildcards: OTHER_TOOLS[wildcards.tool],
        root=data_root,
        folder=preprocessed_folder,
    message:
        "Label maps of {wildcards.tool}: scores."
    script:
        "../workflow/scripts/other_tool.py"


rule other_tools:
    """The study's models against the label maps of other tools."""
    input:
        cases="<results>/cases.tsv",
        candidates=fold_files("candidates.tsv"),
        recipes=fold_files("soups/{recipe}/recipe.json", recipe=RECIPES),
        soup_tests=fold_files("soups/{recipe}/test.csv", recipe=RECIPES),
        scores=expand("<results>/other_tools/{tool}/scores.csv", tool=OTHER_TOOLS),
    output:
        table=report(
            "<results>/comparison/other_tools.html",
            caption="../workflow/report/other_tools.rst",
            category=SECTIONS["answer"],
            labels={"answer": "3 other tools"},
        ),
        others=expand("<results>/comparison/other_tools.{format}", format=["csv", "md", "tex"]),
    log:
        "<logs>/other_tools.log",
    benchmark:
        "<benchmarks>/other_tools.tsv"
    conda:
        "../envs/voxelsoup.yaml"
    threads: threads_of("other_tools")
    resources:
        **needs("other_tools"),
    params:
        **({"primary": study.primary.model_dump()} if study.comparison.primary else {}),
        results=results_folder,
        folds=FOLDS,
        recipes=RECIPES,
        protocol=study.evaluation.protocol,
    message:
        "Comparison with the label maps of other tools."
    script:
        "../workflow/scripts/other_tools.py"
