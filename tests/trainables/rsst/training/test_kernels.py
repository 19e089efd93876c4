"""bfloat16 on a CPU: attention by products of matrices is torch's attention, and only amp takes it."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.trainables import toy
from trainables.rsst.config import ConfigError
from trainables.rsst.data.load import ImageData
from trainables.rsst.running import Running
from trainables.rsst.training import epoch, evaluation, kernels
from trainables.rsst.training.device import choose_device
from trainables.rsst.training.kernels import fast_kernels, repeatable, tf32, training_numbers

pytestmark = pytest.mark.usefixtures("toy")


def parts(dtype: torch.dtype) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 3, 17, 8, dtype=dtype, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-12), (torch.bfloat16, 2e-2)], ids=str)
def test_it_is_torchs_attention_and_so_are_its_gradients(dtype: torch.dtype, near: float) -> None:
    found = []
    for amp in (False, True):
        q, k, v = parts(dtype)
        with fast_kernels("cpu", amp):
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False)
        out.square().sum().backward()
        found.append([out, q.grad, k.grad, v.grad])
    for one, other in zip(*found, strict=True):
        assert one is not None and other is not None
        assert torch.allclose(one.double(), other.double(), rtol=near, atol=near * float(one.abs().max()))


LEFT = [{"is_causal": True}, {"dropout_p": 0.5}, {"scale": 0.3}, {"attn_mask": torch.ones(17, 17).tril().bool()}]


@pytest.mark.parametrize("special", LEFT, ids=lambda special: next(iter(special)))
def test_what_it_does_not_know_is_left_to_torch(special: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_attention", None)
    outputs = []
    for amp in (False, True):
        with fast_kernels("cpu", amp):
            given = parts(torch.float32)  # sets the seed, which dropout draws from too
            outputs.append(F.scaled_dot_product_attention(*given, **special))
    assert torch.equal(*outputs)


def test_amp_trains_with_it_and_float32_without(tiny: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, real = [], kernels._attention
    monkeypatch.setattr(kernels, "_attention", lambda *parts: calls.append(parts[0].dtype) or real(*parts))
    toy.last_state(toy.config(pruning_times=1, epochs=1), tiny)
    assert calls == []
    toy.last_state(toy.config(pruning_times=1, epochs=1, amp=True), tiny)
    assert calls and set(calls) == {torch.bfloat16}


def test_a_gpu_trains_in_tf32_and_compares_in_float32() -> None:
    """The flags are there without a GPU; whatever they were before, they are again afterwards."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    for allowed in (True, False):
        with suppress(ZeroDivisionError), tf32("cuda", allowed=allowed):
            assert (matmul.allow_tf32, cudnn.allow_tf32) == (allowed, allowed)
            raise ZeroDivisionError
        assert (matmul.allow_tf32, cudnn.allow_tf32) == before
    with tf32("cpu", allowed=True):
        assert (matmul.allow_tf32, cudnn.allow_tf32) == before


@pytest.mark.parametrize(
    ("device", "amp", "numbers"),
    [("cuda", False, "tf32"), ("cuda", True, "bfloat16"), ("cpu", False, "float32"), ("cpu", True, "bfloat16")],
)
def test_the_record_says_what_training_multiplies_in(device: str, amp: bool, numbers: str) -> None:
    assert training_numbers(device, amp) == numbers


def test_training_allows_it_and_evaluation_does_not(tiny: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def noted(device: str, *, allowed: bool) -> AbstractContextManager[None]:
        asked.append((device, allowed))
        return nullcontext()

    monkeypatch.setattr(epoch, "tf32", noted)
    monkeypatch.setattr(evaluation, "tf32", noted)
    toy.last_state(toy.config(pruning_times=1, epochs=1, batch_size=96), tiny)
    training = [("cpu", True)] * asked.count(("cpu", True))
    assert len(training) >= 1 and asked[: len(training)] == training and set(asked[len(training) :]) == {("cpu", False)}


@pytest.mark.parametrize("before", [(False, False), (True, False), (True, True)], ids=["off", "on", "warns"])
def test_torchs_flag_is_set_for_the_body_alone(before: tuple[bool, bool]) -> None:
    def flags() -> tuple[bool, bool]:
        return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()

    torch.use_deterministic_algorithms(before[0], warn_only=before[1])
    try:
        with suppress(ZeroDivisionError), repeatable(True):
            assert flags() == (True, False)
            raise ZeroDivisionError
        assert flags() == before
        with repeatable(False):
            assert flags() == before
    finally:
        torch.use_deterministic_algorithms(False)


def no_fixed_order(_module: object, _given: object, logits: torch.Tensor) -> torch.Tensor:
    """A kernel that has none, on a CPU too."""
    return logits.put(torch.tensor([0]), torch.tensor([0.0]))


@pytest.mark.parametrize("on", [False, True], ids=["off", "deterministic"])
@pytest.mark.parametrize("where", ["training", "scoring"])
def test_a_trial_refuses_what_has_no_fixed_order(tiny: ImageData, where: str, on: bool) -> None:
    trial = Running.fresh(toy.config(deterministic=on, criteria="saliency"), tiny)
    trial.round = 1
    steps = {"training": lambda: epoch.train_epoch(trial.training, 0), "scoring": trial.choose_doomed}
    trial.model.head.register_forward_hook(no_fixed_order)
    if not on:
        steps[where]()
        return
    with pytest.raises(RuntimeError, match="does not have a deterministic implementation"):
        steps[where]()
    assert not torch.are_deterministic_algorithms_enabled()


def test_on_a_cpu_it_changes_no_number_and_no_fingerprint(tiny: ImageData) -> None:
    usual, asked = (toy.config(deterministic=on, pruning_times=2, augment="strong") for on in (False, True))
    told = [toy.outcome(config, tiny) for config in (usual, asked)]
    assert {metrics.pop("kernels", None) for _, metrics in told[1]} == {None, "deterministic"}
    assert told[0] == told[1] and usual.fingerprint == asked.fingerprint
    assert Running.fresh(usual, tiny).dense_key != Running.fresh(asked, tiny).dense_key


@pytest.mark.parametrize(
    ("there", "then"), [(None, ":4096:8"), (":4096:8", ":4096:8"), (":16:8", ":16:8"), (":0:0", None)], ids=str
)
def test_cublas_is_told_before_its_first_product(
    there: str | None, then: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", there or "")
    if there is None:
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    choose_device(toy.config(device="cuda"))
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == there
    if then is None:
        with pytest.raises(ConfigError, match=r"^CUBLAS_WORKSPACE_CONFIG = :0:0: valid is :4096:8 or :16:8 with det"):
            choose_device(toy.config(device="cuda", deterministic=True))
    else:
        assert choose_device(toy.config(device="cuda", deterministic=True)).type == "cuda"
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == then
