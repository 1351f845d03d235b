"""Where core-seconds go, by examples that were worked out by hand."""

import random

import pytest

from resalign.accounting.core_time import GAP_SECONDS, CoreTime, core_time
from resalign.accounting.job_records import JobRecord

from .records import record


def of(*jobs: JobRecord, run_started_at: float | None = None) -> CoreTime:
    return core_time(jobs, run_started_at=run_started_at)


def test_one_job_alone():
    # 10 s on one core: 2 s of imports, 7 s of work, 1 s of records.
    found = of(record(100, 110, 7, 2))
    assert found == CoreTime(10, 1, 1, own=7, process=3, snakemake=0, no_job_ready=0)
    assert found.overhead == pytest.approx(0.3)


def test_a_core_waits_for_a_dependency():
    # Core A: a from 0 to 10, then c, which reads a's and b's results, from 12 to 20. Core B: b from 0 to 4.
    # 4 to 10: core B idle, c waits for a: 6 s no job ready. 10 to 12: c is ready, two cores are free, one would do:
    # 2 s Snakemake, 2 s no job ready. 12 to 20: core B has nothing: 8 s. In all 20 × 2 = 40.
    a, b = record(0, 10, 9, 1), record(0, 4, 3, 1)
    c = record(12, 20, 7, 1, inputs_at=10)
    assert of(a, b, c) == CoreTime(20, 1, 2, own=19, process=3, snakemake=2, no_job_ready=16)


def test_a_ready_job_that_does_not_run_is_snakemakes():
    # b has no inputs and could have run beside a from the start: from 0 to 5 a core is idle because of Snakemake.
    found = of(record(0, 10, 10, 0), record(5, 10, 5, 0))
    assert found == CoreTime(10, 1, 2, own=15, process=0, snakemake=5, no_job_ready=0)
    assert found.overhead == pytest.approx(0.25)


def test_the_start_of_snakemake_counts_where_it_is_known():
    jobs = record(8, 20, 12, 0), record(8, 20, 12, 0)
    found = of(*jobs, run_started_at=5)
    assert found == CoreTime(15, 1, 2, own=24, process=0, snakemake=6, no_job_ready=0)
    assert of(*jobs, run_started_at=30) == of(*jobs)  # a run that has started none of these jobs


def test_time_between_runs_is_nobodys():
    # Two runs a day apart; the second's Snakemake began 4 s before its job, which reads the first one's result.
    day = 86400.0
    jobs = record(0, 10, 10, 0), record(day, day + 10, 10, 0, inputs_at=10)
    assert of(*jobs) == CoreTime(20, 2, 1, own=20, process=0, snakemake=0, no_job_ready=0)
    assert of(*jobs, run_started_at=day - 4) == CoreTime(24, 2, 1, own=20, process=0, snakemake=4, no_job_ready=0)


@pytest.mark.parametrize(("gap", "runs", "wall"), [(GAP_SECONDS, 1, GAP_SECONDS + 20), (GAP_SECONDS + 0.1, 2, 20)])
def test_a_gap_up_to_the_bound_is_wall_time(gap: float, runs: int, wall: float):
    found = of(record(0, 10, 10, 0), record(10 + gap, 20 + gap, 10, 0, inputs_at=10))
    assert (found.runs, found.wall_seconds, found.own) == (runs, pytest.approx(wall), 20)


def test_threads_are_cores():
    # Four threads for 10 s, then two for 5 s: 60 core-seconds of which 10 found nothing that was ready.
    found = of(record(0, 10, 8, 1, threads=4), record(10, 15, 5, 0, threads=2, inputs_at=10))
    assert found == CoreTime(15, 1, 4, own=42, process=8, snakemake=0, no_job_ready=10)


def test_a_job_that_does_not_fit_is_not_snakemakes():
    # 0 to 10: one of four cores is free, and the job that waits needs two.
    jobs = record(0, 10, 10, 0, threads=3), record(10, 12, 2, 0, threads=2), record(10, 12, 2, 0, threads=2)
    assert of(*jobs).no_job_ready == pytest.approx(10)


def test_clocks_that_differ_make_no_core():
    # The second job's clock is .7 s early: still one core, and its seconds add up.
    found = of(record(0, 10, 8, 2), record(9.3, 20, 8, 2.7, inputs_at=10))
    assert (found.cores, found.available) == (1, 20)
    assert sum(found.kinds().values()) == pytest.approx(20)
    assert found.snakemake == 0
    assert of(record(0, 10, 8, 2), record(8.5, 20, 8, 2)).cores == 2
    assert of(record(0, 0.5, 0.4, 0.1, threads=3)).cores == 3


def test_earlier_attempts_lie_outside_the_interval():
    # 30 s of work over two attempts; the last was 10 s long, 1 s of it start.
    found = of(record(0, 10, 30, 1))
    assert (found.own, found.process) == (9, 1)


def test_all_kinds_add_up():
    rng = random.Random(0)
    for _ in range(20):
        jobs = []
        for _ in range(30):
            start, length, threads = rng.uniform(0, 500), rng.uniform(0.1, 40), rng.choice([1, 1, 2])
            inputs_at = rng.choice([None, start - rng.uniform(0, 50)])
            own, start_up = length * rng.random(), length / 10
            jobs.append(record(start, start + length, own, start_up, threads=threads, inputs_at=inputs_at))
        found = of(*jobs, run_started_at=rng.choice([None, -10.0]))
        assert sum(found.kinds().values()) == pytest.approx(found.available)
        assert min(found.own, found.process, found.snakemake) >= 0


def test_no_job():
    with pytest.raises(ValueError, match="no job's time was recorded"):
        core_time([])
