"""RSST, Regularized Structured Sparsity Training of Vision Transformers.

config.py presets.py       every knob, checked and frozen
data.py augment.py         images as uint8 tensors, augmented in batches
vit.py weights.py          a timm ViT, which rows and columns make a unit, where it starts
importance.py selection.py which units matter, which go
penalty.py compact.py      how hard the doomed are pressed, how they are removed
training.py evaluation.py  one round of epochs; accuracy, MACs, latency
experiment.py              the round loop: read this first
trial.py checkpoint.py     one trial with its state on disk
report.py export.py        names and units of what is reported; the finished model as files
"""
