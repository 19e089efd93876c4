"""RSST, Regularized Structured Sparsity Training of Vision Transformers.

experiment.py   the round loop: read this first
trial.py        one trial with its state on disk: what single-GPU mode, Ray and the tests open
running.py      the live model, optimizer and penalty
state.py        a trial as a value
event.py        one report of a trial
metrics.py reports.py   the one list of what is reported; how reports are put together
size.py measure.py   what a trial will cost: counted, and timed
seeding.py      a seed for everything random
config/         every knob, checked and frozen
data/           images as uint8 tensors: sources, one copy per node, batches, augmentation
model/          a timm ViT, where its weights start, what it costs, how it is saved
pruning/        which units matter, which go, how they are pressed and removed
training/       one epoch, one evaluation, the device
store/          checkpoints
"""
