"""What ends a sweep early: what happened, in which order, against what is written, how often, and the exit code."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from tests.tune_rsst.fake_sweep import FakeSweep, events, settings_of, tiny
from trainables.leaving import ENDING
from trainables.rsst.config import RSSTConfig
from tune_rsst import conduct, ending, interrupt
from tune_rsst.driver import Driver
from tune_rsst.interrupt import STACK, Interruption
from tune_rsst.ledger.file import Ledger, read
from tune_rsst.runners import ray_cluster
from tune_rsst.runners.ray_tune import LedgerScheduler, Ticker
from tune_rsst.search.spaces import Space
from tune_rsst.search.study import StudySearcher
from tune_rsst.settings.settings import SweepSettings
from tune_rsst.storage.folder import SweepFolder

TINY = Space("tiny", tiny)


class Follower:
    """An uploader or a bucket that notes what it is told: a hurry or none per line, and how long its close may take."""

    refused: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.hurries: list[bool] = []
        self.closes: list[float] = []

    def notify(self, hurry: bool = False) -> None:
        self.hurries.append(hurry)

    def close(self, timeout_s: float) -> Any:
        self.closes.append(timeout_s)


class Sweep:
    """A sweep of 3 trials after its first reports, as `conduct` has it while a runner is at work."""

    def __init__(self, folder: SweepFolder) -> None:
        folder.path.mkdir()
        settings = settings_of(TINY, "trials=3", "stopping=none")
        FakeSweep(folder.path, TINY, settings).ledger.close()
        self.plan: Any = SimpleNamespace(folder=folder, settings=settings)
        self.ledger, self.uploader, self.storage = Ledger(folder.ledger), Follower(), Follower()
        self.interruption, followers = Interruption(), [self.uploader, self.storage]
        searcher = StudySearcher(settings, TINY)
        self.driver = Driver(self.ledger, settings, searcher, self.interruption, followers)
        self.run = FakeSweep.__new__(FakeSweep)
        self.run.driver, self.run.trained = self.driver, []

    def step(self) -> None:
        """A trial reports, and Tune's step ends."""
        self.run.run(reports=1)
        Ticker(self.driver, lambda: None).on_step_end(0, [])

    def conclude(self) -> tuple[int, str]:
        console = Console(file=io.StringIO(), width=200)
        uploader, storage = self.uploader, self.storage
        code = ending.conclude(self.plan, self.driver, uploader, storage, console)  # type: ignore[arg-type]
        return code, console.file.getvalue()  # type: ignore[attr-defined]

    def written(self) -> list[Any]:
        """(event, reason) of the lines that end it."""
        lines = read(self.plan.folder.ledger)
        return [(e["event"], e.get("reason")) for e in lines if e["event"] in ("interrupted", "sweep_ended")]


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    monkeypatch.setattr(ending.best, "write_best", lambda *_: None)  # formulas leave no model
    return Sweep(SweepFolder(tmp_path / "fake"))


def terminate(sweep: Sweep) -> None:
    sweep.interruption.terminate()


def tune_fails(sweep: Sweep) -> None:
    sweep.interruption.fail("RayError: gone")


def disk_is_full(sweep: Sweep) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    sweep.ledger.append = full  # type: ignore[assignment, method-assign]
    trial = next(iter(sweep.driver.view.trials))
    report = {"trial_key": trial, "events": [], "failed": "loss = inf", "done": True}
    assert LedgerScheduler(sweep.driver).guarded(lambda: sweep.driver.take(report), otherwise="stop") == "stop"


def taken_over(sweep: Sweep) -> None:
    sweep.interruption.taken_over("a driver on other")


def best_is_not_written(sweep: Sweep) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left")

    ending.best.write_best = full  # type: ignore[assignment]  # `sweep` puts it back


def all_end(sweep: Sweep) -> None:
    sweep.run.run()
    for trial in sweep.driver.view.unfinished:
        for event in events(RSSTConfig.from_knobs(sweep.driver.knobs_of(trial))):
            sweep.driver.take({"trial_key": trial.trial, "events": [event], "done": event["kind"] == "final"})


ALONE, GONE = ("interrupted", None), ("interrupted", "RayError: gone")
FULL = "OSError: [Errno 28] No space left on device"
TAKEN = "a driver on other; nothing more is written here"
CASES: dict[str, tuple[list[Callable[[Sweep], None]], list[Any], int, str | None]] = {
    "Ctrl-C": ([], [ALONE], 130, None),
    "SIGTERM, then a step": ([terminate, Sweep.step], [ALONE], 130, None),
    "SIGTERM, then two steps": ([terminate, Sweep.step, Sweep.step], [ALONE], 130, None),
    "SIGTERM, then no step": ([terminate], [ALONE], 130, None),
    "SIGTERM twice": ([terminate, Sweep.step, terminate, Sweep.step], [ALONE], 130, None),
    "Tune failed": ([tune_fails], [GONE], 1, "RayError: gone"),
    "SIGTERM, then Tune failed": ([terminate, Sweep.step, tune_fails], [ALONE, GONE], 1, "RayError: gone"),
    "disk full": ([disk_is_full], [], 1, FULL),
    "disk full, then SIGTERM": ([disk_is_full, terminate], [], 1, FULL),
    "taken over": ([taken_over], [], 1, TAKEN),
    "taken over, then SIGTERM": ([taken_over, terminate, Sweep.step], [], 1, TAKEN),
    "SIGTERM, then taken over": ([terminate, Sweep.step, taken_over], [ALONE], 1, TAKEN),
    "taken over, then Tune failed": ([taken_over, tune_fails], [], 1, TAKEN),
    "the best files fail": ([best_is_not_written], [], 1, "the best trial's files could not be written"),
    "all ended": ([all_end], [("sweep_ended", None)], 0, None),
    "all ended, then SIGTERM": ([all_end, terminate], [("sweep_ended", None)], 0, None),
    "all ended, then taken over": ([all_end, taken_over], [], 1, TAKEN),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_written_and_the_exit_code(sweep: Sweep, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "LEAVE_ANYWAY_S", 60.0)
    happened, written, code, problem = CASES[name]
    sweep.step()
    for happen in happened:
        happen(sweep)
    assert sweep.conclude()[0] == code
    assert sweep.written() == written
    found = sweep.interruption.problem
    assert (found is None) if problem is None else (found is not None and found.startswith(problem))


@pytest.mark.parametrize(
    ("happened", "says"),
    [([], "Interrupted. "), ([tune_fails], "The sweep broke off: RayError: gone. "), ([taken_over], TAKEN)],
)
def test_the_last_line_says_why_and_how_to_continue(sweep: Sweep, happened: list[Any], says: str) -> None:
    sweep.step()
    for happen in happened:
        happen(sweep)
    text = sweep.conclude()[1]
    assert says in text and "sweep --name fake --resume" in text


@pytest.mark.parametrize(
    ("happened", "upload_s", "store_s"),
    [
        ([], ending.UPLOAD_AT_INTERRUPT_S, ending.STORE_AT_INTERRUPT_S),
        ([terminate], ending.UPLOAD_AT_INTERRUPT_S, ending.STORE_AT_INTERRUPT_S),
        ([all_end], ending.UPLOAD_AT_END_S, ending.STORE_AT_END_S),
    ],
)
def test_an_interrupted_sweep_waits_less_for_bucket_and_mlflow(
    sweep: Sweep, happened: list[Any], upload_s: float, store_s: float
) -> None:
    for happen in happened:
        happen(sweep)
    sweep.conclude()
    assert (sweep.uploader.closes, sweep.storage.closes) == ([upload_s], [store_s])


@pytest.mark.parametrize("where", ["note", "tell"])
@pytest.mark.parametrize("study_is_there", [True, False])
def test_an_interruption_between_the_last_line_and_the_study(
    sweep: Sweep, where: str, study_is_there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by `make chaos --seed 77`: the sweep was finished, is never resumed, and Optuna had a trial that runs."""
    searcher = sweep.driver.searcher
    own = getattr(searcher, where)

    def interrupted(*words: Any) -> None:
        if sweep.driver.complete:
            raise KeyboardInterrupt
        own(*words)

    monkeypatch.setattr(searcher, where, interrupted)

    def runs(part: Driver, tick: Callable[[], None]) -> None:
        all_end(sweep)

    if not study_is_there:
        monkeypatch.setattr(StudySearcher, "sync", lambda *_: (_ for _ in ()).throw(OSError("no answer")))
    conduct._train(sweep.plan, sweep.driver, Console(file=io.StringIO()), runs)  # type: ignore[arg-type]
    assert sweep.interruption.cut and sweep.driver.complete
    code, text = sweep.conclude()
    assert code == 0 and sweep.written() == [("sweep_ended", None)]
    states = [one.state.name for one in searcher.study.get_trials()]
    assert (
        states == ["COMPLETE"] * 3
        if study_is_there
        else "may lack the trial that ended last (OSError: no answer)" in text
    )


def test_ctrl_c_while_the_bucket_is_waited_for_cuts_that_short_and_nothing_else(sweep: Sweep) -> None:
    def interrupted(timeout_s: float) -> None:
        raise KeyboardInterrupt

    sweep.storage.close = interrupted  # type: ignore[method-assign]
    code, text = sweep.conclude()
    assert code == 130 and sweep.uploader.closes == [ending.UPLOAD_AT_INTERRUPT_S]
    assert "sweep --name fake --resume" in text and "before the bucket had everything" in text


def test_after_sigterm_every_line_is_in_a_hurry_and_after_ctrl_c_none(sweep: Sweep) -> None:
    sweep.step()
    before = len(sweep.uploader.hurries)
    assert before and not any(sweep.uploader.hurries)
    sweep.interruption.terminate()
    sweep.step()
    assert all(sweep.uploader.hurries[before:]) and sweep.uploader.hurries == sweep.storage.hurries


def test_a_step_that_hangs_does_not_keep_the_line_back(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "LEAVE_ANYWAY_S", 0.05)
    sweep.step()
    sweep.interruption.terminate()
    deadline = time.monotonic() + 20
    while not sweep.written() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert sweep.written() == [ALONE]
    assert sweep.conclude()[0] == 130 and sweep.written() == [ALONE]


def test_of_many_that_would_write_the_termination_one_does() -> None:
    interruption, claims = Interruption(), list[bool]()
    assert not interruption.claim(), "nobody asked for it"
    interruption.terminate()
    threads = [threading.Thread(target=lambda: claims.append(interruption.claim())) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claims) == [False] * 19 + [True] and interruption.written


def _join(thread: threading.Thread) -> None:
    thread.start()
    thread.join()
    time.sleep(5)  # a signal that comes meanwhile ends it


@pytest.fixture
def sigint(request: pytest.FixtureRequest) -> Iterator[None]:
    """How the process began: with Python's own handler, or in a script's background, where SIGINT is ignored."""
    before = signal.signal(signal.SIGINT, getattr(request, "param", signal.default_int_handler))
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("sigint", [signal.default_int_handler, signal.SIG_IGN], indirect=True)
@pytest.mark.parametrize("number", ENDING)
def test_while_a_runner_is_at_work_signals_and_a_break_end_it_as_ctrl_c_does(
    sigint: None, number: signal.Signals
) -> None:
    before, of_ctrl_c = signal.getsignal(number), signal.getsignal(signal.SIGINT)
    terminated, broken = Interruption(), Interruption()
    with pytest.raises(KeyboardInterrupt), terminated.listening():
        signal.raise_signal(number)
    assert terminated.terminated and terminated.problem is None
    thread = threading.Thread(target=broken.taken_over, args=("another",))
    with pytest.raises(KeyboardInterrupt), broken.listening():
        _join(thread)
    assert broken.exit_code == 1 and signal.getsignal(number) is before
    assert signal.getsignal(signal.SIGINT) is of_ctrl_c
    broken.break_off("later: there is no runner to end any more, so this raises nothing")
    assert broken.problem == "another; nothing more is written here"


def test_a_second_signal_is_no_impatience_and_ctrl_c_is(sigint: None) -> None:
    """A closed terminal and its shell both send SIGHUP; Tune gives the second SIGINT its workers' time up."""
    interruption, interrupts = Interruption(), list[int]()
    with interruption.listening():
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            try:
                signal.raise_signal(number)
            except KeyboardInterrupt:
                interrupts.append(number)
    assert interrupts == [signal.SIGHUP, signal.SIGINT]


def test_under_nohup_a_closed_terminal_ends_nothing(sigint: None) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        interruption = Interruption()
        with interruption.listening():
            signal.raise_signal(signal.SIGHUP)
        assert not interruption.terminated and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_signals_are_ignored_while_the_last_lines_are_written(sigint: None) -> None:
    with Interruption.ignored():
        for number in (signal.SIGINT, *ENDING):
            signal.raise_signal(number)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_what_is_started_with_ray_does_not_hear_a_closed_terminal(sigint: None) -> None:
    """Without Ray's processes the driver could not end its trials in order. The driver hears it when they are there."""
    interruption = Interruption()

    def begin() -> None:
        with interruption.listening(), ray_cluster._hidden_from_children(signal.SIGHUP):
            child = subprocess.Popen(["sleep", "60"])
            child.send_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGHUP)
            time.sleep(0.2)
            assert child.poll() is None and not interruption.terminated
            child.kill()
            child.wait()

    with pytest.raises(KeyboardInterrupt):
        begin()
    assert interruption.terminated


def test_a_runner_that_does_not_let_go_is_left(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """Found by `make chaos`: while it connects Ray hears nothing, and ends the process after a minute."""
    left: list[int] = []
    monkeypatch.setattr(interrupt.os, "_exit", left.append)
    interruption = Interruption()
    for _ in range(interrupt.STUCK):
        interruption.lost("the raylet has died")
    assert not left and not capfd.readouterr().err
    interruption.lost("the raylet has died")
    assert left == [1] and capfd.readouterr().err.count("the raylet has died; ") == 1


def test_why_is_the_error_that_all_began_with() -> None:
    """Found by `make chaos`: Optuna's error of a killed PostgreSQL spoke of invalid data in the commit."""
    lost, outer = OSError("server closed\n the connection to postgresql://me:secret@db/x"), ValueError("invalid data")
    outer.__cause__ = RuntimeError("in between")
    outer.__cause__.__cause__ = lost
    assert interrupt.why(outer) == "OSError: server closed the connection to postgresql://me:***@db/x"
    assert interrupt.why(ValueError("one\n two")) == "ValueError: one two"


def _of_a_worker() -> str:
    try:
        try:
            raise OSError(28, "No space left on device", "home/x")
        except OSError as error:
            raise RuntimeError("it can't\n  be written") from error
    except RuntimeError:
        return traceback.format_exc()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (_of_a_worker(), "RuntimeError: it can't be written"),
        (f"{STACK}\n  File x\nray.X(OSError): ray::T.train() (pid=1)\n  File y\nOSError: full\n", "OSError: full"),
        (f"{STACK}\n  File x\nKeyError", "KeyError"),
        (f"{STACK}\n  File x", f"{STACK} File x"),
        (STACK, STACK),
    ],
)
def test_of_an_error_that_holds_a_traceback_its_last_line_is_told(said: str, told: str) -> None:
    """Found by `make chaos --modes disk`: Tune's error for a full disk in a worker was 300 characters of a stack."""
    assert interrupt.why(RuntimeError(said)) == told


def test_sigterm_while_ray_starts_is_heard_by_us(sigint: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by `make chaos`: Ray's own handler, which it installs first, ended the sweep with exit code 15."""
    import ray
    from ray._private import utils

    def init(**words: Any) -> None:
        utils.set_sigterm_handler(lambda number, frame: sys.exit(number))
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(ray, "init", init)
    interruption, settings = Interruption(), SweepSettings(ray_address="127.0.0.1:6379")
    with pytest.raises(KeyboardInterrupt), ray_cluster.connected(settings, "", interruption):
        pass
    assert interruption.terminated and interruption.exit_code == 130


def test_a_sweep_that_breaks_before_ray_has_started_does_not_start_it(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conduct.ray_cluster, "connected", lambda *_: pytest.fail("Ray was started"))
    taken_over(sweep)
    conduct._train(sweep.plan, sweep.driver, Console(file=io.StringIO()))
    assert sweep.conclude()[0] == 1 and sweep.written() == []


def test_ctrl_c_while_it_breaks_off_is_still_a_break(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """A KeyboardInterrupt out of Tune hides no reason: exit code 130 would invite whoever restarts it to go on."""

    def fit(*_: Any) -> None:
        taken_over(sweep)
        raise KeyboardInterrupt

    monkeypatch.setattr(conduct.ray_cluster, "connected", lambda *_: Interruption().listening())
    monkeypatch.setattr(conduct, "_fit", fit)
    conduct._train(sweep.plan, sweep.driver, Console(file=io.StringIO()))
    assert sweep.conclude()[0] == 1 and sweep.interruption.problem == TAKEN
