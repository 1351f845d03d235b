"""Step loops that are stopped, and taken up again by another attempt."""

import itertools
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from resalign.running import attempt as module
from resalign.running.attempt import TIME_LIMIT_STATUS, Attempt, Interrupted
from resalign.running.folder import StateFolder

STEPS = 10


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def handlers_put_back() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def work(attempt: Attempt, during: Callable[[int], None] = lambda step: None) -> tuple[torch.Tensor, list[int]]:
    """A sum of random numbers, of a stream and of the process, over two phases; and this attempt's steps."""
    torch.manual_seed(0)
    total, stream, done = torch.zeros(1), torch.Generator().manual_seed(0), []
    for phase in ("first", "second"):
        for step in attempt.steps(range(STEPS), phase=phase, total=total, stream=stream):
            total += torch.rand(1, generator=stream) + torch.rand(1)
            done.append(step)
            during(len(done))
    return total, done


def test_a_stopped_loop_goes_on_where_it_was(tmp_path: Path) -> None:
    expected, _ = work(Attempt())
    for stop_after in (3, STEPS - 2, 4):
        with StateFolder(tmp_path, {}) as folder:
            attempt = Attempt(folder)
            with pytest.raises(Interrupted, match="stopped by SIGTERM: saved after") as stopped:
                work(attempt, lambda done, a=attempt, n=stop_after: a.stop(signal.SIGTERM) if done == n else None)  # type: ignore[misc]
            assert stopped.value.status == 128 + signal.SIGTERM
    with StateFolder(tmp_path, {}) as folder:
        total, done = work(Attempt(folder))
    assert torch.equal(total, expected)
    assert len(done) == 2 * STEPS - 3 - (STEPS - 2) - 4


def test_a_stop_in_the_last_step_of_a_job_is_no_stop(tmp_path: Path) -> None:
    with StateFolder(tmp_path, {}) as folder:
        attempt = Attempt(folder)
        _, done = work(attempt, lambda done: attempt.stop(signal.SIGTERM) if done == 2 * STEPS else None)
    assert len(done) == 2 * STEPS


def test_a_stop_between_loops_ends_the_process_at_once() -> None:
    with pytest.raises(Interrupted, match="nothing new to save"):
        Attempt().stop(signal.SIGTERM)


def test_a_job_stops_before_its_time_limit(tmp_path: Path, clock: Clock) -> None:
    def second(done: int) -> None:
        clock.now += 1

    with StateFolder(tmp_path, {}) as folder:
        attempt = Attempt(folder, deadline=clock.now + 5.5, clock=clock)
        with pytest.raises(Interrupted, match="the time limit is near: saved after first 5 of 10") as stopped:
            work(attempt, second)
    assert stopped.value.status == TIME_LIMIT_STATUS
    # The seconds of all attempts are counted.
    with StateFolder(tmp_path, {}) as folder:
        attempt = Attempt(folder, clock=clock)
        assert attempt.unfinished == "first"
        work(attempt, second)
        assert attempt.seconds == 2 * STEPS
        assert attempt.number == 2
        assert attempt.unfinished is None


@pytest.mark.parametrize("loop", ["steps", "pieces"])
def test_work_is_saved_at_a_fixed_interval(
    loop: str, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved_at, kept_at = [], []
    monkeypatch.setattr(StateFolder, "save", lambda self, state: saved_at.append(clock.now))
    with StateFolder(tmp_path, {}) as folder:
        attempt = Attempt(folder, clock=clock)
        pieces = attempt.pieces(100, keep=lambda: kept_at.append(clock.now))
        for _ in pieces if loop == "pieces" else attempt.steps(range(100)):
            clock.now += module.SAVE_INTERVAL_SECONDS / 10
    assert len(saved_at) == 10
    assert {later - earlier for earlier, later in itertools.pairwise(saved_at)} == {module.SAVE_INTERVAL_SECONDS}
    assert kept_at == (saved_at if loop == "pieces" else [])


def test_a_signal_while_a_state_is_saved_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = StateFolder.save
    with StateFolder(tmp_path, {}) as folder:
        attempt = Attempt(folder)

        def disturbed(self: StateFolder, state: dict[str, object]) -> None:
            attempt.stop(signal.SIGTERM)
            whole(self, state)

        monkeypatch.setattr(StateFolder, "save", disturbed)
        monkeypatch.setattr(module, "SAVE_INTERVAL_SECONDS", 0.0)
        with pytest.raises(Interrupted, match="saved after first 2 of 10"):
            work(attempt)
        assert folder.load() is not None


def test_pieces_are_left_after_one_of_them() -> None:
    attempt, made, kept = Attempt(), [], []

    def make() -> None:
        for index in attempt.pieces(STEPS, keep=lambda: kept.append([*made])):
            made.append(index)
            if index == 2:
                attempt.stop(signal.SIGTERM)

    with pytest.raises(Interrupted, match="saved after pieces 3 of 10"):
        make()
    assert made == [0, 1, 2]
    assert kept == [made]


def test_the_first_steps_seconds_stand_apart(clock: Clock) -> None:
    attempt = Attempt(clock=clock)
    for step in attempt.steps(range(STEPS)):
        clock.now += 1 if step else 30
    assert (attempt.first_step_seconds, attempt.step_seconds) == (30, 30 + STEPS - 1)


def test_without_a_folder_loops_are_plain_loops() -> None:
    _, done = work(Attempt())
    assert done == [*range(STEPS), *range(STEPS)]


def test_two_loops_of_one_job_need_names_of_their_own() -> None:
    attempt = Attempt()
    list(attempt.steps(range(2)))
    with pytest.raises(ValueError, match="two loops of one job are called 'steps'"):
        list(attempt.steps(range(2)))
