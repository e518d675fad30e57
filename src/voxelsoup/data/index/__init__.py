"""The index: every case is found, read and checked before anything is computed.

In: the study's `dataset` section and its regions, and the data set's folder. Out: the usable
cases (`cases.tsv`) and the others with what is wrong and how to fix it (`rejected.tsv`).

Begin with `index.index_cases`. `checks` has the checks of one case and the search for scans that
two cases share, `check_cache` keeps results from run to run, `patients` says which cases belong
together, and `folder_hash` lets Snakemake notice a changed folder without reading it.

Decisions:

- **All bad cases are reported at once**, not the first alone; `dataset.on_bad_case` says whether
  they stop the study.
- **A checked case is not opened again** while size, dates and inode of its files stay the same;
  where only those have changed, it is hashed and not checked again.
- **Preprocessing refuses what the index has not seen**: a case's hash of its files travels with
  it.
"""
