"""`tune-rsst`, which is `python -m tune_rsst`: an interruption is one line from the first instruction to the last."""

import sys

from trainables.leaving import ends_at_once, leave


def main() -> None:
    """Load the command line and run it."""
    ends_at_once("error: interrupted before the sweep began")
    from trainables.errors import NotInstalled, explained
    from trainables.text import LONGEST_LINE, shown

    try:
        with explained():
            from tune_rsst.cli.app import main as run

            run()
    except NotInstalled as error:
        print(f"error: {shown(error, LONGEST_LINE)}", file=sys.stderr)
        leave(2)
    except SystemExit as end:
        leave(end.code if isinstance(end.code, int) else 1)


if __name__ == "__main__":
    main()
