"""Sweeps over RSST trials: Ray Tune runs them, Optuna chooses them, MLflow shows them, the ledger remembers them.

cli.py config.py       the commands · the sweep's own settings, checked before Ray starts
spaces.py              finds a search space, fixes knobs in it, draws from it
ledger.py view.py      the append-only truth of a sweep · what it says, trial by trial
driver.py              what to do with each report: record, compare, end; knows no Ray
searcher.py            the Optuna study, a view of the ledger: asks for trials, is told how they ended
schedulers.py          early stopping at equal kept share
adapters.py sweep.py   Ray Tune's doors to the driver · a sweep on Ray from start to end
home.py                where things lie
live.py                the table while it runs
results.py table.py    the ranking, best.yaml, best_model, the JSON of `show` · the same as text
pretrained.py          weights that every trial of a sweep starts from
uploader.py tracking*.py   MLflow from the ledger; tracking.py is the only file that imports mlflow
"""
