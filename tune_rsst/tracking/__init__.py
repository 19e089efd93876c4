"""MLflow: what the ledger means there, and the uploader that keeps it up to date."""
