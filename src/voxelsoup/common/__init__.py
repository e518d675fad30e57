"""What every other package stands on: errors, files, logs, words, provenance, the machine.

It knows nothing of studies, scans or models, and imports neither torch nor pandas.

- ``errors``: ``InputError`` is the one exception for what a user can put right: where, what was
  found, what is expected, the fix. Everything else that is raised is a defect. ``Stopped`` is work
  that ends early without a mistake and is repeated.
- ``files``: every file and folder appears complete or not at all, and hashes are taken as it is
  written. A refusal of the file system becomes an ``InputError`` with its fix.
- ``logs``: the log of a job, in which a user's mistake is one message without a traceback.
- ``text``: numbers, lists and near misses in sentences.
- ``provenance``: versions, commit (or hash of what is installed) and machine, to reproduce results.
- ``installation``: where the workflow of this library lies, in a checkout or in the wheel, and what
  starts its Snakemake; ``workflow_files``: which files it consists of.
- ``plug_ins``: what other packages offer to studies, found without importing them, and the hashes
  of its source.
- ``machine``: cores and memory that this process may take, of a cluster's job or a container too.

Decision: outputs are complete or absent. A job that dies late must not leave half a file, so that
the profiles let Snakemake keep the files of failed jobs, which a successor may have written.
"""
