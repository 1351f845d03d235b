from resalign.config import jobs
from resalign.config.experiment import Experiment
from resalign.config.plan import Plan
from resalign.config.strict import ConfigError, typed
from snakemake.utils import update_config


def load_plan():
    """The validated plan; a faulty configuration ends here with one line and no traceback."""
    files = ", ".join(str(path) for path in workflow.configfiles)
    values = dict(config)
    update_config(values, typed(workflow.config_settings.overwrite_config))
    try:
        return Plan(Experiment(values, where=files))
    except ConfigError as error:
        raise WorkflowError(str(error)) from None


def verbatim(text):
    """A param that Snakemake takes as it is: braces in a plain string would be read as wildcards."""
    return lambda wildcards: text


PLAN = load_plan()
RESOURCES = {stage: PLAN.experiment.resources(stage) for stage in ("unlearn", "attack", "sample", "score")}
CHECKED_INPUTS = jobs.checked_inputs(PLAN)


wildcard_constraints:
    run=r"[A-Za-z0-9_.-]+",
    seed=r"\d+",
    tier=r"smoke|small|paper",
