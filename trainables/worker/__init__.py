"""What runs on a Ray node: the trainable, the copy of its store in a bucket, how busy the machine is."""
