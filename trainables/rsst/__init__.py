"""RSST, Regularized Structured Sparsity Training of Vision Transformers.

experiment.py                   the round loop: read this first
config.py knobs.py presets.py   every knob, checked and frozen
data.py augment.py              images as uint8 tensors, augmented in batches
  cifar.py folder.py datastore.py   where they come from, one copy per node
vit.py weights.py               a timm ViT, which rows and columns make a unit, where it starts
  hub.py weight_files.py            one bounded question to the hub; files that need no unpickling
importance.py selection.py      which units matter, which go
ramps.py penalty.py compact.py  how hard the doomed are pressed, how they are removed
pruning.py                      choose, mask, remove: the same three calls for units and for single weights
training.py evaluation.py       one round of epochs; accuracy, MACs, latency
running.py state.py             a trial while it runs, and as a value
trial.py checkpoint.py          one trial with its state on disk
report.py export.py interchange.py   names and units of what is reported; the finished model as files
"""
