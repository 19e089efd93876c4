"""One trial from Python, without Ray: `trainables.rsst.run(config, data)`.

In: knobs by their names; images, where they are not a named data set's. Out: each event to the callbacks, the metrics
of the last one; with the knob save_dir, checkpoints, report.json and the model in that folder.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainables.plugins import Permission
from trainables.rsst.config import ConfigError, RSSTConfig, checked, decisions
from trainables.rsst.data.about import AboutImages
from trainables.rsst.data.load import ImageData
from trainables.rsst.event import Event, Metrics
from trainables.rsst.pruning import own_parts
from trainables.rsst.runs.save_dir import STATE, begin, end, made, refuse_other_work, take_back
from trainables.rsst.training.device import is_out_of_memory
from trainables.rsst.trial import dense_folder, open_trial
from trainables.storage.files import expanded
from trainables.text import framed, shown

LOCK_WAIT_S = 1.0
Callback = Callable[[Event], object]


def run(
    config: Mapping[str, Any],
    data: ImageData | None = None,
    *,
    callbacks: Callback | Sequence[Callback] = (),
    say: Callable[[str], None] = print,
) -> Metrics:
    """Train one trial to its end in this process; the metrics of its last event, `val_top1` and `test_top1` among them.

    `config`: knobs by their names, as in `python -m trainables --help`; none is required. `data`: images of one's own;
    they decide dataset and img_size (and split_seed). None: the data set that the knob dataset names.
    `callbacks`: each is called with every `Event`, in order: start, then epoch and round by turns, then final. What one
    raises ends the run, and goes through. `say` gets the lines that a user should read.

    With the knob save_dir, checkpoints, report.json and the model are kept there, where `python -m trainables` has
    them. Called again with the same, it goes on where it was killed and hands out the earlier events again; other knobs
    or images are refused. Without it nothing is kept.

    Bad input is a `ConfigError` (a ValueError) with one line.

    Raises:
        TrialDiverged: a loss, a weight or a metric is not finite.
        StoreBusy: another process trains in the same save_dir.
        PluginError: a function of the user's failed while it trained.
        RuntimeError: among others, memory ran out; the line says which knob to make smaller.
    """
    told = _callbacks(callbacks)
    knobs = _with_images(config, data)
    trial_config = RSSTConfig.from_knobs(knobs)
    sources = own_parts.permitted(trial_config, Permission([], None, False), images_given=data is not None)
    with _folder(trial_config) as folder:
        mine = made(folder, trial_config)
        refuse_other_work(folder, trial_config, resume=True)
        more: dict[str, Any] = {"data": data, "wait_s": LOCK_WAIT_S, "dense": dense_folder(trial_config)}
        metrics: Metrics = {}
        try:
            with memory_told(trial_config), open_trial(trial_config, folder / STATE, say=say, **more) as trial:
                begin(folder, trial_config, sources)
                new = not trial.history
                for event in trial.events():
                    if event.kind == "start" and new:
                        images = AboutImages.from_json(event.metrics["images"]).lines()
                        for line in [*decisions(dict(config), [trial_config]), *images]:
                            say(line)
                    warn_of(event)
                    for callback in told:
                        callback(event)
                    metrics = event.metrics
                end(folder, trial.folder)
        except ConfigError:
            if mine:
                take_back(folder, trial_config)
            raise
    return metrics


def warn_of(event: Event) -> None:
    """Show what can't be missed of a trial's start: weights that were not found, a grid that is too coarse."""
    for warning in (event.metrics["warning"], event.metrics["grid_warning"]) if event.kind == "start" else ():
        if warning:
            print(framed(warning), file=sys.stderr, flush=True)


@contextmanager
def memory_told(config: RSSTConfig) -> Iterator[None]:
    """Where memory runs out, say which knob to make smaller."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        size = min(config.micro_batch_size or config.batch_size, config.batch_size)
        hint = f"give micro_batch_size = {size // 2} (the same effective batch)" if size > 1 else "none is smaller"
        raise RuntimeError(f"out of memory with {size} images at a time; {hint}") from error


def _with_images(config: Mapping[str, Any], data: ImageData | None) -> dict[str, Any]:
    """The knobs with those that `data` decides; others of that name are refused."""
    if not isinstance(config, Mapping):
        raise ConfigError("config", type(config).__name__, "knobs by their names (a dict)")
    if data is None:
        return dict(config)
    if not isinstance(data, ImageData) or not data.knobs:
        hint = "ImageData.from_arrays or .from_dataset makes it; of a named data set give the knob dataset alone"
        raise ConfigError("data", type(data).__name__, "an ImageData of your own images", hint)
    if config.get("data") is not None:
        raise ConfigError("data", config["data"], "no such knob beside images of your own", "leave it out")
    for name, value in data.knobs.items():
        if config.get(name) is not None and (given := checked(name, config[name])) != value:
            where = "" if name == "dataset" else f", or give from_arrays and from_dataset {name}={shown(given)}"
            raise ConfigError(name, given, f"{value}, as the images have it", f"leave it out of the config{where}")
    return {**config, **data.knobs}


def _callbacks(given: Callback | Sequence[Callback]) -> list[Callback]:
    found = [given] if callable(given) else list(given) if isinstance(given, Sequence) else [given]
    for one in found:
        if not callable(one):
            raise ConfigError("callbacks", one, "functions that take an Event", f"it is a {type(one).__name__}")
    return found


@contextmanager
def _folder(config: RSSTConfig) -> Iterator[Path]:
    """The save_dir, or a folder that is gone afterwards."""
    if config.save_dir is not None:
        yield expanded(config.save_dir)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)
