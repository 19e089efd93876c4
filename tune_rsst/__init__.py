"""Sweeps over RSST trials: Ray Tune runs them, Optuna chooses them, MLflow shows them, the ledger remembers them.

The files here tell the story, the folders hold the subjects. One side decides and runs (search, driver, runners), one
side shows (results, report, tracking); neither imports the other. Both stand on ledger, settings and storage.

conduct.py     one sweep from the lock to the exit code
ending.py      how it ends
driver/        the one decision maker: compare, end, ask; knows no Ray
intake.py      what comes back from runs is written first
interrupt.py   signals while a sweep ends
cli/           the commands
planning/      what a sweep will do, whether it can run here, what it will cost
runners/       where trials run: Ray Tune, local or on a cluster
search/        what to try and when to stop: the Optuna study, search spaces, early stopping
tracking/      MLflow from the ledger; the only folder that imports mlflow
report/        pictures and the HTML page
results/       what was found, as text and files
storage/       where a sweep is stored: the home, its folders, a bucket
settings/      what the user wrote
ledger/        the truth of a sweep, and what it says
"""
