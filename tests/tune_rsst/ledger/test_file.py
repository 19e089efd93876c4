"""The ledger keeps what was written, drops a torn end, refuses damage, and admits one driver."""

from pathlib import Path
from unittest.mock import Mock

import pytest

from tune_rsst.ledger.file import Ledger, read
from tune_rsst.ledger.lines import LedgerError
from tune_rsst.ledger.lock import SweepBusy, driving, is_running


def test_what_was_written_is_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path, clock=lambda: 12.5)
    ledger.append("sweep_started", name="a", note='ε, "crc": 1')
    ledger.append("reported", trial="t0000", metrics={"val_top1": 0.25})
    ledger.close()
    assert read(path) == [
        {"event": "sweep_started", "time": 12.5, "name": "a", "note": 'ε, "crc": 1'},
        {"event": "reported", "time": 12.5, "trial": "t0000", "metrics": {"val_top1": 0.25}},
    ]


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_a_torn_last_line_is_dropped_and_writing_goes_on(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.append("suggested", trial="t0000")
    ledger.append("suggested", trial="t0001")
    ledger.close()
    path.write_bytes(path.read_bytes()[:-cut])
    assert [e["trial"] for e in read(path)] == ["t0000"]
    again = Ledger(path)
    again.append("suggested", trial="t0002")
    assert [e["trial"] for e in read(path)] == ["t0000", "t0002"]


def test_a_flipped_bit_in_the_middle_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    for value in (0.11, 0.22, 0.33):
        ledger.append("reported", value=value)
    path.write_bytes(path.read_bytes().replace(b"0.22", b"0.26"))
    with pytest.raises(LedgerError, match="line 2 is damaged"):
        read(path)


def test_not_a_number_is_never_written(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    with pytest.raises(ValueError):
        ledger.append("reported", value=float("nan"))
    assert read(ledger.path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(5, "Input/output error")])
def test_a_line_that_was_not_written_to_its_end_is_none(
    tmp_path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while the disk is waited for: the next line has the number of the one that is not there."""
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append("suggested", trial="t0000")
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", Mock(side_effect=error))
        with pytest.raises(type(error)):
            ledger.append("suggested", trial="t0001")
    ledger.append("interrupted")
    assert [event["event"] for event in read(ledger.path)] == ["suggested", "interrupted"]


def test_second_driver_is_refused_and_the_lock_ends_with_its_holder(tmp_path: Path) -> None:
    assert not is_running(tmp_path)
    with driving(tmp_path):
        assert is_running(tmp_path)
        with pytest.raises(SweepBusy, match="another driver"):
            driving(tmp_path, patience_s=0.1).__enter__()
    assert not is_running(tmp_path)
    with driving(tmp_path):
        pass
