"""One cluster, an undisturbed grid, scenarios that disturb copies of it side by side, and the paper's run in small."""

import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

import pytest

from tests.assets.hub_server import serving

from . import scenarios
from .cluster import Cluster, install, missing
from .grid import Grid, copy_of_the_repository
from .paper import paper_grid


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running cluster, gone after the tests; its packages are installed if that is possible."""
    install()
    if reason := missing():
        pytest.fail(f"no SLURM to test on: {reason}", pytrace=False)
    # So that a time-out outside ends the daemons too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    made = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="session")
def whole(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grid]:
    """A grid that nothing has disturbed."""
    grid = Grid(copy_of_the_repository(tmp_path_factory.mktemp("grids") / "whole"), cluster)
    try:
        assert grid.run() == 0, grid.log.read_text()[-5000:]
        yield grid
    finally:
        grid.stop()


@pytest.fixture(scope="session")
def disturbed(whole: Grid) -> Iterator[dict[str, "Future[Grid]"]]:
    """The grids of :mod:`tests.slurm.scenarios`, by name, side by side: most of their time is waiting."""
    grids = {scenario: whole.copy(scenario.__name__) for scenario in scenarios.ALL}
    with ThreadPoolExecutor(len(grids)) as pool:
        try:
            found = {each: pool.submit(scenarios.run, each, grids[each]) for each in scenarios.ALL[:-1]}
            # The last one kills the jobs of all others too: only the longest is still under way then.
            wait([found[each] for each in scenarios.ALL[1:-1]])
            found[scenarios.ALL[-1]] = pool.submit(scenarios.run, scenarios.ALL[-1], grids[scenarios.ALL[-1]])
            wait(found.values())
        finally:
            for grid in grids.values():
                grid.stop()
        for scenario, grid in grids.items():
            print(f"{scenario.__name__}: {grid.seconds:.0f} s")  # noqa: T201 (shown by pytest -s)
        yield {scenario.__name__: future for scenario, future in found.items()}


@pytest.fixture(scope="session")
def paper(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grid]:
    """The paper's experiment in small, at its end."""
    with serving() as server:
        grid = paper_grid(tmp_path_factory.mktemp("paper") / "copy", cluster, server)
        try:
            assert grid.run() == 0, grid.log.read_text()[-5000:]
            yield grid
        finally:
            grid.stop()
