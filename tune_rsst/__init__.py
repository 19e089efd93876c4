"""Sweeps over RSST trials: Ray Tune runs them, Optuna chooses them, MLflow shows them, the ledger remembers them.

    cli.py config.py        the commands · the sweep's own settings, checked before Ray starts
    spaces.py               finds a search space, fixes knobs in it, draws from it
    ledger.py view.py       the append-only truth of a sweep · what it says, trial by trial
    driver.py               what to do with each report: record, compare, end; knows no Ray
    study.py searcher.py    the Optuna study as a view of the ledger · Tune's door to it
    halving.py schedulers.py  early stopping at equal kept share · Tune's door to it
    sweep.py home.py        starts and resumes a sweep on Ray · where things lie
    live.py results.py      the table while it runs · the ranking, best.yaml, best_model
    tracking.py             the only file that imports mlflow
"""
