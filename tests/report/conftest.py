import pytest

from resalign.analysis.measurements import Measurements
from tests.analysis.experiment import make_measurements


@pytest.fixture(scope="session")
def measurements() -> Measurements:
    return make_measurements()
