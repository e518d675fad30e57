"""Every end of a run, with 0, 2 and 6 data workers, alone and with two processes.

    python bench/run_ends.py            # all of them, about ten minutes on two cores
    python bench/run_ends.py TERM NaN   # some ends

Prints for each how long it took until none of the run's processes was left, and what is wrong, if
anything is: a process that stays, another exit code, no message, another one, or more than one.
The last line is one JSON object:

    ends              ends that were tried
    wrong             those with anything wrong
    slowest_s         the longest time from what ended a run until nothing of it was left
    slowest           which end that was
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from printing import print_figures

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "src"), str(REPOSITORY / "tests")]

WORKERS = (0, 2, 6)
RANKS = (1, 2)


def prepare(folder: Path) -> Path:
    """Preprocess a few phantom cases."""
    from support.runs import preprocess_phantom
    from voxelsoup.data.layouts.phantom import write_phantom
    from voxelsoup.study.sections.data import Phantom

    write_phantom(folder / "phantom", Phantom(cases=6, shape=[32, 32, 24]))
    preprocess_phantom(folder / "phantom", folder / "cases")
    return folder / "cases"


def main(chosen: list[str]) -> None:
    """Let a run end in every way."""
    from support.run_ends import ENDS, SHOULD_END, end_of_run

    seconds: dict[str, float] = {}
    table: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        cases = prepare(Path(name))
        for end in chosen or ENDS:
            for workers in WORKERS:
                for ranks in RANKS:
                    if end == "worker killed" and not workers:
                        continue
                    with tempfile.TemporaryDirectory() as folder:
                        ended = end_of_run(end, workers, ranks, cases, Path(folder))
                    which = f"{end}, {workers} workers, {ranks} processes"
                    seconds[which] = round(ended.seconds, 1)
                    fault = ended.fault(end)
                    if not fault and ended.seconds > SHOULD_END:
                        fault = f"took {ended.seconds:.0f} seconds"
                    table[which] = fault or f"{seconds[which]} s"
                    print(f"{which}: {table[which]}", file=sys.stderr)
                    if fault:
                        print(ended.printed, file=sys.stderr)
    slowest = max(seconds, key=lambda which: seconds[which])
    wrong = [which for which in table if not table[which].endswith(" s")]
    figures = {"ends": len(table), "wrong": wrong}
    figures |= {"slowest_s": seconds[slowest], "slowest": slowest}
    print_figures("Until no process of the run is left", table | figures)


if __name__ == "__main__":
    main(sys.argv[1:])
