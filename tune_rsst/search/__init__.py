"""What to try and when to stop: the Optuna study, search spaces, early stopping, common start weights."""
