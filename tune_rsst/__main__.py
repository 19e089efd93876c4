"""`tune-rsst`, which is `python -m tune_rsst`: an interruption is one line from the first instruction to the last."""

from trainables.leaving import ends_at_once


def main() -> None:
    """Load the command line and run it."""
    ends_at_once("error: interrupted before the sweep began")
    from tune_rsst.cli.app import main as run

    try:
        run()
    except SystemExit as end:
        ends_at_once(code=end.code if isinstance(end.code, int) else 1)
        raise


if __name__ == "__main__":
    main()
