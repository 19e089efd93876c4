"""State on disk: checkpoints addressed by fingerprint and round."""
