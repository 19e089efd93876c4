"""One epoch of training and one evaluation, on the device at hand."""
