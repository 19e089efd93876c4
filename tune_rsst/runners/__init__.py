"""Where trials run: Ray Tune, a local Ray or a cluster, and the resources that each trial gets."""
