"""The seed guide's check after the first epoch: does a pretrained start look like one?

In: how the trial started and the validation accuracy that its first epoch reached.
Out: a line that says so, and a warning where a pretrained start did no better than a random one typically does.
"""

from __future__ import annotations

# Top-1 after one epoch that a random start reaches at most, typically. cifar100: the guide. cifar10: an estimate, on
# the low side. digits: val_top1_before_hardening of the first epoch event of `run`, default settings, CPU, torch 2.15:
# vit_digits 0.66 to 0.75 (seeds 0 to 11; warmup 0: 0.72 to 0.81, seeds 0 to 9), vit_tiny 0.75 to 0.84, vit_small 0.74
# to 0.82 (seeds 0 to 9), vit_base 0.88 and 0.72 (seeds 0 and 1).
TYPICAL_SCRATCH = {"cifar10": 0.4, "cifar100": 0.1, "digits": 0.85}


def typical_scratch(dataset: str, num_classes: int) -> float:
    """Accuracy in [0, 1] after one epoch from random weights; elsewhere than in the table three times chance."""
    return TYPICAL_SCRATCH.get(dataset, min(3.0 / num_classes, 0.9))


def first_epoch_check(init_effective: str, dataset: str, num_classes: int, val_top1: float) -> tuple[str, str | None]:
    """The line to print after the first epoch of round 0, and a warning or None.

    Args:
        init_effective: "pretrained" or "scratch".
        dataset: its name, as the knob has it.
        num_classes: of the data set.
        val_top1: validation accuracy after that epoch, in [0, 1].
    """
    typical = typical_scratch(dataset, num_classes)
    expected = "the guide expects > 50 % pretrained, < 10 % scratch; " if dataset == "cifar100" else ""
    line = (
        f"first epoch: val_top1 {val_top1:.2%} from a {init_effective} start "
        f"({expected}scratch typically reaches up to about {typical:.0%} on {dataset})"
    )
    if init_effective != "pretrained" or val_top1 > typical:
        return line, None
    return line, (
        f"the first epoch reached {val_top1:.2%}, no better than random weights typically do on {dataset} "
        f"(up to about {typical:.0%}), although this run starts from pretrained ones. "
        "Look at the transfer report, the weights' digest, lr and warmup before you let it run on."
    )
