"""The report of a study: figures, methods, provenance and run times, for one page to read.

In come the comparisons of the folds (`comparison`), the records of the runs and Snakemake's
benchmark files; out go the figures, texts and tables that Snakemake's own report command binds into
one self-contained file, ``report.html``.

Begin with `figures`: a module and a function per figure, from plain numbers to SVG, PNG and a page
with tooltips. `methods` writes the methods section of a paper from the checked study by one Jinja
template. `provenance` lists versions, commits, machines and hashes; `run_times` sums up what the
jobs of each rule took; `cases` and `captions` serve the report's first page and its captions, which
lie in ``workflow/report``.

Decisions:

- The report begins with its answer: its first page (``workflow/report/workflow.rst``) includes the
  sentences that `comparison.answer` wrote, and its sections sort from the answer to what it rests
  on.
- Captions and texts read the checked study, whose defaults are filled in, and repeat none of them.
  Snakemake hands captions only the study as written; `rules/compare.smk` gives them more.
- Nothing in the report is loaded from a network, and tooltips need no script: a figure is a page of
  its own, as browsers show no tooltips of an SVG that stands in a page as an image.
- The same numbers give the same bytes: files name no date and no version of a library.
- Wherever people read, a trial is called by what distinguishes it (``lr 0.03, seed 1``); its id,
  by which its files are found, stands beside it in the tooltip.
- `run_times` comes after everything but the report, because it reads the benchmark files of all
  other jobs.
"""
