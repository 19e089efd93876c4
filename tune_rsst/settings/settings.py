"""The settings of a sweep: one flat namespace of sweep settings and trial knobs, checked before anything is written.

In: values by name; resolved.py takes them from what the user wrote.
Out: frozen `SweepSettings`; the knobs in it are fixed for every trial and leave the search.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from trainables.rsst.config import KNOBS
from trainables.storage import modes
from tune_rsst.ledger.content import SWEEP_NAME
from tune_rsst.ledger.objective import SEVERAL
from tune_rsst.ledger.spending import BUDGETS

DEFAULT_LARGEST_DENSITY = 0.875
# Settings of a run rather than of the search: they may change from one resume to the next.
HERE = frozenset(name for name, knob in KNOBS.items() if knob.of_the_run)
PLACES = frozenset({"mlflow_tracking_uri", "optuna_storage", "storage", "ray_address"})
RESOURCES = frozenset({"max_concurrent_trials", "cpus_per_trial", "gpus_per_trial", "system_metrics"})
SILENCE = frozenset({"hung_after_s", "hung_first_round_s"})
REPEATS = frozenset({"confirm", "confirm_seeds"})
# Settings that came later, with what sweeps of before had: left out of the record where that is their value.
SINCE: Mapping[str, Any] = {"replicates": 1, "shared": False}
RUN_ONLY = HERE | PLACES | RESOURCES | SILENCE | REPEATS | BUDGETS.keys() | {"name", "resume", "trust", "shared_group"}


class SweepSettings(BaseModel):
    """Everything that decides a sweep. `fixed` holds the knobs that are the same in every trial."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str | None = Field(None, description="the sweep's name, which is its folder; default: space, date and time")
    space: str = Field(
        "digits", description="a name that `tune-rsst spaces` lists, path/to/file.py:function, or module:function"
    )
    trials: int = Field(12, ge=1, description="trials of the sweep")
    seed: int = Field(0, ge=0, description="seed of the search and of every trial")
    objective: str = Field(
        "val_top1",
        description="val_top1, val_loss, val_top5 or another metric at target_density (min:METRIC, max:METRIC), or a "
        "function of them: path/to/file.py:function; constrained: under the limits max_…; pareto: front against a size",
    )
    max_gmacs: float | None = Field(
        None,
        gt=0,
        description="constrained, pareto: most 1e9 MACs of an image; what is known to exceed it is not trained",
    )
    max_params: int | None = Field(
        None, ge=1, description="constrained, pareto: most parameters; what is known to exceed it is not trained"
    )
    max_latency_ms: float | None = Field(None, gt=0, description="constrained, pareto: most ms for one image, measured")
    pareto_against: Literal["density", "gmacs", "params", "latency_ms"] | None = Field(
        None, description="pareto: what is minimised beside val_top1; default: density"
    )
    largest_density: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="constrained, pareto: final sizes are searched from target_density to this; default: 0.875",
    )
    sampler: Literal["tpe", "gp", "nsga2", "nsga3", "random", "qmc", "grid"] = Field(
        "tpe", description="how Optuna chooses; grid: every combination of the space's values, once (docs/points.md)"
    )
    first: Literal["guide", "none"] | None = Field(
        None,
        description="guide: the first trial has the seed guide's values; default: guide in the spaces scratch and "
        "pretrained, else none",
    )
    points: tuple[dict[str, Any], ...] = Field(
        (),
        description="FILE.yaml, a list of points that are tried first: parameters with values, the sampler completes "
        "them (docs/points.md)",
    )
    shared: bool = Field(
        False,
        description="draw lr and warmup from a grid, so that trials have the same dense round and train it once: in "
        "the spaces digits, scratch and pretrained (docs/models.md)",
    )
    startup_trials: int = Field(8, ge=1, description="trials drawn at random before tpe or gp model anything")
    stopping: str = Field(
        "halving",
        description="early stopping: halving (at equal kept share), none, or a rule of yours: path/to/file.py:function",
    )
    reduction_factor: float = Field(2.0, gt=1, description="halving: 1 of this many goes on from each rung")
    rungs: tuple[float, ...] = Field((0.3, 0.6), description="halving: rung q lies at kept share target_density^q")
    confirm: int | None = Field(
        None,
        ge=0,
        description="so many of the best trials are trained again with fresh seeds at the end, which then choose; "
        "0: none; default: 3 in the sweep without settings of its own, else 0",
    )
    confirm_seeds: int = Field(3, ge=2, description="confirm: fresh seeds for each of these trials")
    replicates: int = Field(
        1,
        ge=1,
        description="most runs of each trial, each with another seed: their mean counts, and a trial that falls "
        "behind gets no more (docs/replicates.md)",
    )
    max_concurrent_trials: int | None = Field(None, ge=1, description="runs at a time; default: what the CPUs allow")
    cpus_per_trial: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        1.0, description="CPUs that Ray sets aside for a trial; auto: as many as its threads and its memory need"
    )
    gpus_per_trial: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        0.0, description="share of a GPU for a trial, at most 1; auto: the share that a measured step needs"
    )
    epoch_budget: int | None = Field(
        None, ge=1, description="epochs that all trials together may train, resumes included; default: no limit"
    )
    time_budget_s: float | None = Field(
        None, gt=0, description="seconds that the sweep may run, resumes included; default: no limit"
    )
    gpu_hours_budget: float | None = Field(
        None, gt=0, description="hours of GPUs that its trials may hold, resumes included; default: no limit"
    )
    hung_after_s: float | None = Field(
        60.0,
        gt=0,
        description="a trial that says nothing for so long, and for 5 × its median round, is ended and continued once; "
        "none: never",
    )
    hung_first_round_s: float | None = Field(
        600.0, gt=0, description="the same before its first round has ended, and while it is opened; none: never"
    )
    mlflow_tracking_uri: str | None = Field(
        None, description="default: MLFLOW_TRACKING_URI, else sqlite in TUNE_RSST_HOME"
    )
    mlflow_experiment: str = Field("tune-rsst", min_length=1, description="MLflow experiment that holds the sweep")
    optuna_storage: str | None = Field(
        None,
        description="default: OPTUNA_STORAGE, else sqlite in the sweep's folder (on NFS: memory); or a database URL",
    )
    storage: str | None = Field(
        None,
        description="s3://…, gs://… or az://BUCKET/PREFIX where the sweep lies; TUNE_RSST_HOME is a working copy then",
    )
    warm_start: tuple[str, ...] = Field(
        (), description="former sweeps (names, or folders with a / in them) whose finished trials guide the search"
    )
    system_metrics: bool = Field(
        False, description="record CPU, memory and GPUs of each trial's worker every 30 s (extra system-metrics)"
    )
    ray_address: str | None = Field(None, description="a running cluster; default: RAY_ADDRESS, else a local one")
    resume: Literal["never", "auto", "must"] = Field(
        "never",
        exclude=True,
        description="never: a new sweep; auto: go on with the sweep where there is one, else begin it; must: go on, "
        "or refuse",
    )
    trust: bool = Field(
        False,
        exclude=True,
        description="go on with the sweep's own copy of its FILE.py space where the file is gone or not as it was; "
        "on the command line only (docs/security.md)",
    )
    shared_group: str | None = Field(
        None,
        exclude=True,
        description="a group of this machine that shares TUNE_RSST_HOME, which is made so; default: who owns the home "
        "alone (docs/security.md)",
    )
    fixed: dict[str, Any] = Field(default_factory=dict, exclude=True)
    assumed: frozenset[str] = Field(frozenset(), exclude=True)
    """Those of `fixed` that the user did not write."""

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("a number or a word, not true or false")
        return value

    @field_validator("name")
    @classmethod
    def _folder_name(cls, name: str | None) -> str | None:
        if name is not None and not SWEEP_NAME.fullmatch(name):
            raise ValueError("up to 100 letters, digits, '.', '_', '-', beginning with a letter or digit")
        return name

    @field_validator("shared_group")
    @classmethod
    def _group_of_the_user(cls, group: str | None) -> str | None:
        if group is not None and group not in modes.groups():
            raise ValueError(f"a group that you are in: {', '.join(modes.groups())}")
        return group

    @field_validator("gpus_per_trial")
    @classmethod
    def _one_gpu(cls, gpus: float | str) -> float | str:
        if isinstance(gpus, float) and gpus > 1:
            raise ValueError("at most 1, a share of one GPU, or auto: a trial computes on one GPU")
        return gpus

    @field_validator("warm_start", mode="before")
    @classmethod
    def _one_or_more(cls, names: Any) -> Any:
        return (names,) if isinstance(names, str | int | float) else names or ()

    @field_validator("rungs")
    @classmethod
    def _ascending_shares(cls, rungs: tuple[float, ...]) -> tuple[float, ...]:
        if not rungs or list(rungs) != sorted(set(rungs)) or not all(0 < q < 1 for q in rungs):
            raise ValueError("numbers between 0 and 1, ascending, for example [0.3,0.6]")
        return rungs

    def flat(self) -> dict[str, Any]:
        """Settings and fixed knobs in one mapping, as a YAML file would hold them."""
        own = self.model_dump(mode="json")
        for name, default in SINCE.items():  # as sweeps of before that was a setting
            if own[name] == default:
                del own[name]
        return {**own, **{k: v for k, v in self.fixed.items() if k != "seed"}}

    @property
    def largest(self) -> float:
        """Largest final kept share that is searched."""
        return DEFAULT_LARGEST_DENSITY if self.largest_density is None else self.largest_density

    @property
    def against(self) -> str:
        """What pareto minimises."""
        return self.pareto_against or "density"

    @property
    def searches_size(self) -> bool:
        """Whether each trial has a final size of its own, from `target_density` to `largest`."""
        return self.objective in SEVERAL and self.largest != self.target_density

    @property
    def fixed_in_trials(self) -> dict[str, Any]:
        """The knobs that are the same in every trial."""
        return {k: v for k, v in self.fixed.items() if not (k == "target_density" and self.searches_size)}

    @property
    def target_density(self) -> float | None:
        """Kept share at which trials are compared; None when every trial runs its own number of rounds."""
        value = self.fixed.get("target_density")
        return None if value is None else float(value)


def settings_names() -> list[str]:
    """Names of the sweep's own settings, knobs not included."""
    return [name for name in SweepSettings.model_fields if name not in ("fixed", "assumed")]
