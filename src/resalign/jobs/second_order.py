"""The job of the second-order audit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resalign.config import registry
from resalign.config.report import ReportConfig
from resalign.jobs.inputs import Input
from resalign.jobs.job import Job

if TYPE_CHECKING:
    from resalign.config.plan import Plan


class SecondOrderJob(Job):
    """A job of scripts/second_order.py."""

    audit: dict[str, Any]  # settings of resalign.theory.second_order.Config
    horizon: dict[str, Any]  # settings of resalign.theory.horizon.Config
    report: ReportConfig
    pixels: int
    device: str
    model: Input
    forget: Input
    pool: Input

    @classmethod
    def of(cls, plan: Plan) -> SecondOrderJob:
        """The job of an experiment; its grids are the audit's defaults."""
        config = plan.experiment.config
        return cls(
            audit=_config("second_order").model_dump(mode="json"),
            horizon=_config("horizon").model_dump(mode="json"),
            report=config.report,
            pixels=config.pixels,
            device=plan.experiment.resources("unlearn").device,
            model=Input.asset(plan, config.model),
            forget=Input.asset(plan, config.concept.forget),
            pool=Input.asset(plan, config.concept.pool),
        )


def modules() -> tuple[str, ...]:
    """Modules that are found by name."""
    return tuple(dict.fromkeys((*_config("second_order").modules, *_config("horizon").modules)))


def _config(name: str) -> Any:
    return registry.member("theory", name).Config()
