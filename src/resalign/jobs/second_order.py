"""The jobs of the second-order audit: one for each draw, and one that shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resalign.config import registry
from resalign.config.report import ReportConfig
from resalign.jobs.inputs import Input
from resalign.jobs.job import Job

if TYPE_CHECKING:
    from resalign.config.plan import Plan

TABLES = ("audit", "gamma", "horizon", "costs")  # the files of a draw, and of all of them
FIGURES = ("audit", "gamma", "horizon")


class DrawJob(Job):
    """A job of scripts/second_order_draw.py, the same for every draw; the seed is the draw."""

    audit: dict[str, Any]  # settings of resalign.theory.second_order.Config
    horizon: dict[str, Any]  # settings of resalign.theory.horizon.Config
    pixels: int
    device: str
    model: Input
    forget: Input
    pool: Input

    @classmethod
    def of(cls, plan: Plan) -> DrawJob:
        """The job of an experiment; its grids are the audit's defaults."""
        config = plan.experiment.config
        return cls(
            audit=_config("second_order").model_dump(mode="json"),
            horizon=_config("horizon").model_dump(mode="json"),
            pixels=config.pixels,
            device=plan.experiment.resources("unlearn").device,
            model=Input.asset(plan, config.model),
            forget=Input.asset(plan, config.concept.forget),
            pool=Input.asset(plan, config.concept.pool),
        )


class SecondOrderJob(Job):
    """A job of scripts/second_order.py."""

    report: ReportConfig
    draws: tuple[Input, ...]  # a folder of tables each

    @classmethod
    def of(cls, plan: Plan) -> SecondOrderJob:
        """The job of an experiment."""
        folders = [folder(plan, draw) for draw in _config("second_order").draws]
        draws = tuple(Input(where, [f"{where}/{name}.csv" for name in TABLES]) for where in folders)
        return cls(report=plan.experiment.config.report, draws=draws)


def folder(plan: Plan, draw: int | str) -> str:
    """Where a draw's tables go."""
    return f"results/{plan.experiment.config.name}/second-order/draw-{draw}"


def modules() -> tuple[str, ...]:
    """Modules that are found by name."""
    return tuple(dict.fromkeys((*_config("second_order").modules, *_config("horizon").modules)))


def _config(name: str) -> Any:
    return registry.member("theory", name).Config()
