"""`python -m trainables.export FOLDER`: the model of a single run or of a trial's store, to take away.

In: the folder, which round, formats. Out: what trainables/export/files.py writes.
Exit codes: 0 written and equal, 2 bad input, 1 the outputs differ.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from trainables.export.files import FORMATS, export, find, formats_of, name_of
from trainables.rsst.config import ConfigError
from trainables.terminal import OneLineParser, ready
from trainables.text import LONGEST_LINE, shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Export from the command line; returns the exit code."""
    parser = OneLineParser("python -m trainables.export", __doc__)
    parser.add_argument("folder", type=Path, help="where a run keeps its model: its --save_dir, or a trial's store")
    parser.add_argument("--round", type=int, metavar="N", help="the model of round N, 0 is dense; else the last one")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="else FOLDER/exports/final, or /rNNN")
    parser.add_argument("--formats", default=",".join(FORMATS), help="any of these, by commas [%(default)s]")
    given = parser.parse_args(arguments)
    try:
        ready(sys.argv[1:] if arguments is None else arguments)
        formats, saved = formats_of(given.formats), find(given.folder, given.round)
        target = given.to or given.folder / "exports" / name_of(given.round)
        export(saved, target.absolute(), formats, print)
    except ConfigError as error:
        print(f"error: {shown(error, LONGEST_LINE)}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        print(f"error: {shown(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
