"""One run of one compared method: what is a setting, how it is run, and which settings were tried on validation.

In: a setting (a small dict), seed, kept share.
Out: one flat record.
All settings of a table train EPOCHS epochs in total, dense epochs included, on the same images with the same optimizer
and schedule rules.

| method | setting |
|---|---|
| rsst, refill | prunings n, rewind, g (and ramp, else the default): n + 1 rounds of EPOCHS / (n + 1) epochs |
| one-shot | dense epochs d: score and remove once, then EPOCHS − d epochs |
| tp-magnitude | the same with Torch-Pruning's MagnitudePruner |
| tp-growing-reg | dense epochs d, press epochs, delta: press with its regulariser, removal, the other epochs |
"""

from __future__ import annotations

from typing import Any

from benchmarks._baselines import (
    Outcome,
    core_trial,
    dense_seconds,
    images_of,
    one_shot,
    torch_pruning_growing,
    torch_pruning_magnitude,
)
from benchmarks._digits import after_round_0, digits, digits_config, prunings_to
from trainables.rsst.model.cost import gmacs, parameters
from trainables.rsst.training.evaluation import evaluate

Setting = dict[str, Any]
Record = dict[str, Any]

METHODS = ("rsst", "refill", "one-shot", "tp-magnitude", "tp-growing-reg")


def candidates(epochs: int) -> list[Setting]:
    """The settings that compete on validation accuracy; `epochs` is the total."""
    quarter, third, half = epochs // 4, epochs // 3, epochs // 2
    rsst = [(2, "init", 0.3), (2, "none", 0.3), (2, "epoch:2", 0.3), (2, "none", 1.0), (3, "none", 1.0)]
    rsst += [(1, "init", 1.0), (1, "none", 1.0), (1, "none", 3.0)]
    early = [(1, "none", 3.0), (1, "init", 3.0), (2, "none", 3.0)]
    refill = [(2, "init"), (2, "none"), (2, "epoch:2"), (1, "init"), (1, "none")]
    growing = [(third, third, delta) for delta in (1e-4, 1e-2, 1e-1, 1.0)] + [(quarter, quarter, 1e-1)]
    return [
        *({"method": "rsst", "prunings": n, "rewind": rewind, "g": g} for n, rewind, g in rsst),
        *({"method": "rsst", "prunings": n, "rewind": rewind, "g": g, "ramp": "x"} for n, rewind, g in early),
        *({"method": "refill", "prunings": n, "rewind": rewind} for n, rewind in refill),
        *({"method": "one-shot", "dense_epochs": d} for d in (quarter, half, epochs - quarter)),
        *({"method": "tp-magnitude", "dense_epochs": d} for d in (quarter, half, epochs - quarter)),
        *({"method": "tp-growing-reg", "dense_epochs": d, "press_epochs": p, "delta": x} for d, p, x in growing),
    ]


def label(setting: Setting) -> str:
    """A setting in a few words, without its method."""
    names = {"prunings": "prunings", "dense_epochs": "dense epochs", "press_epochs": "press epochs"}
    return ", ".join(f"{names.get(key, key)} {value}" for key, value in setting.items() if key != "method")


def run_setting(setting: Setting, seed: int, share: float, epochs: int, *, read_test: bool) -> Record:
    """Run once. With `read_test` the test images are looked at, once, by the final model."""
    one_run = _core if setting["method"] in ("rsst", "refill") else _baseline
    found = one_run(setting, seed, share, epochs, read_test)
    return {"setting": setting, "seed": seed, "share": share, "epochs": epochs, **found}


def _core(setting: Setting, seed: int, share: float, epochs: int, read_test: bool) -> Record:
    prunings = setting["prunings"]
    knobs = {"struct": setting["method"], "rewind": setting["rewind"], "seed": seed, "epochs": epochs // (prunings + 1)}
    if "g" in setting:
        knobs["reg_granularity_prune"] = setting["g"]
    if "ramp" in setting:
        knobs["RST_schedule"] = setting["ramp"]
    config = digits_config(**knobs, **prunings_to(share, prunings))
    metrics = core_trial(config, digits(seed), after_round_0(config), read_test=read_test)
    names = ("params", "gmacs", "heads_kept", "neurons_kept", "val_top1", "predictions_changed", "seconds")
    record = {name: metrics[name] for name in names} | {"gap": metrics["hardening_gap"]}
    return record | ({"test_top1": metrics["test_top1"]} if read_test else {})


def _baseline(setting: Setting, seed: int, share: float, epochs: int, read_test: bool) -> Record:
    config = digits_config(seed=seed, epochs=setting["dense_epochs"], rewind="none")
    state, data, left = after_round_0(config), digits(seed), epochs - setting["dense_epochs"]
    if setting["method"] == "one-shot":
        found: Outcome = one_shot(config, data, state, share, left)
    elif setting["method"] == "tp-magnitude":
        found = torch_pruning_magnitude(config, data, state, share, left)
    else:
        press = setting["press_epochs"]
        found = torch_pruning_growing(config, data, state, share, press, left - press, setting["delta"])
    images = images_of(data)
    record = {
        "params": parameters(found.model),
        "gmacs": gmacs(found.arch),
        "heads_kept": sum(found.arch.heads),
        "neurons_kept": sum(found.arch.neurons),
        "val_top1": evaluate(found.model, images, images.val).top1,
        "predictions_changed": found.changed,
        "seconds": found.seconds + dense_seconds(state),
        "gap": found.gap,
    }
    return record | ({"test_top1": evaluate(found.model, images, images.test).top1} if read_test else {})
