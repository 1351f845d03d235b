"""One cluster, one undisturbed grid, and the scenarios that disturb copies of it, side by side."""

import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

import pytest

from . import scenarios
from .cluster import Cluster, install, missing
from .grid import Grid, copy_of_the_repository


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
    """The grids of :mod:`tests.slurm.scenarios`, all under way at once: most of their time is waiting."""
    grids = {scenario: whole.copy(scenario.__name__) for scenario in scenarios.ALONGSIDE}
    with ThreadPoolExecutor(len(grids)) as pool:
        found = {each.__name__: pool.submit(scenarios.run, each, grid) for each, grid in grids.items()}
        try:
            wait(found.values())
        finally:
            for grid in grids.values():
                grid.stop()
        for name, grid in zip(found, grids.values(), strict=True):
            print(f"{name}: {grid.seconds:.0f} s")  # noqa: T201 (shown by pytest -s)
        yield found


@pytest.fixture(scope="session")
def crashed(whole: Grid, disturbed: dict[str, "Future[Grid]"]) -> Grid:
    """A grid whose node has died, after the others have ended: they would have died with it."""
    return scenarios.run(scenarios.node_crash, whole.copy("node_crash"))
