"""`python -m tune_rsst` is `tune-rsst`."""

from tune_rsst.cli.app import main

if __name__ == "__main__":
    main()
