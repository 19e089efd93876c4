"""Trainables: what one trial computes, and the edges that run it.

rsst/           the method itself (no Ray, no Optuna, no MLflow); start reading at rsst/experiment.py
__main__.py     one trial on one machine: `python -m trainables`, with the seed guide's flags
console.py first_epoch.py   what it prints
export.py       a finished model as ONNX or torch.export
worker/         the same trial as a Ray Tune trainable, and what else runs on a Ray node
storage/        bytes that survive a crash: files, locks, buckets
errors.py text.py plain_yaml.py   the error for bad input; words that both packages print; YAML of settings and knobs
"""
