"""The command ``voxelsoup``: a module for each of its subcommands, and the parser.

In: what was typed. Out: an exit code and what is printed: 0, or 1 with one message if the user has
to fix something. The work itself is Snakemake's; commands prepare it, look at it or use its
results.

Begin with ``cli``: the parser, and the short commands. The longer ones have modules of their own:
``run``, ``index``, ``trials``, ``status``, ``prune``, ``predict`` and ``verify``; those that
consist of one call lie with what they call (``planning.init``, ``cluster.doctor``,
``deploy.export``).
``submit`` starts a study in a job of its own, in which ``head`` runs; ``stop`` ends both.

Decisions:

- **The parser imports little.** What needs torch or MONAI is imported by the command that runs, so
  that help, shell completion, ``status`` and ``trials`` answer at once, and a mistake in a study
  file is reported before anything heavy is loaded.
- **An ``InputError`` is one message and exit code 1**; a traceback means a defect in voxelsoup.
- **Commands that read leave everything as it is**; ``prune`` removes nothing without ``--yes``,
  holds the study's lease meanwhile and follows no symbolic link.
"""
