"""Trainables: what one trial computes, and the edges that run it.

rsst/              the method itself (no Ray, no Optuna, no MLflow); start reading at rsst/experiment.py
__main__.py        one trial on one machine: `python -m trainables`, with the seed guide's flags
ray_trainable.py   the same trial as a Ray Tune trainable
"""
