"""What a sweep has found, as text and files: ranking, tables, JSON, best trial, exported models, next commands."""
