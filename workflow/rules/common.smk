from pathlib import Path

from resalign.config import jobs, own_inputs
from resalign.config.experiment import Experiment
from resalign.config.plan import Plan
from resalign.config.strict import ConfigError, typed
from resalign.report import efficiency
from resalign.resume.folder import forget_finished
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


def growing(amount):
    """A resource that each further attempt has more of: one that ran out of it must not fail in the same way again."""
    return lambda wildcards, attempt: amount * attempt


# Ctrl-C and SIGTERM are for the stages, which save their state first: the shell and the pipe into the log live on. A
# scheduler kills a job at the end of its run time, so that a stage stops before; here the run time is an estimate alone.
LIMIT_IS_ENFORCED = "export RESALIGN_ENFORCE_LIMIT=1; " if workflow.remote_exec else ""
shell.prefix("set -euo pipefail; trap '' INT TERM; " + LIMIT_IS_ENFORCED)

PLAN = load_plan()
RESOURCES = {stage: PLAN.experiment.resources(stage) for stage in ("unlearn", "attack", "sample", "score")}


wildcard_constraints:
    run=r"[A-Za-z0-9_.-]+",
    seed=r"\d+",
    tier=r"smoke|small|paper",
    reference=r"reference-[0-9a-f]+",
