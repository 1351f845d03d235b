"""The tiny experiment of the scripts' tests, whose stages the library must repeat to the bit."""

from tests.scripts.conftest import scripts, tiny_plan, tiny_values, workshop

__all__ = ["scripts", "tiny_plan", "tiny_values", "workshop"]
