"""Images: where they come from, how they are prepared once per node, and the batches that a trial sees."""
