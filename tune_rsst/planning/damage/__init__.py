"""A damaged ledger: what is left of it, and what else tells of the rest."""
