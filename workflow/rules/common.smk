import functools
import re
import shlex
import sys
from pathlib import Path

from resalign.running import outcome
from resalign.jobs.inputs import code
from resalign.config import own_inputs
from resalign.config.ablations import Ablations, planned
from resalign.config.experiment import Experiment
from resalign.config.plan import Plan
from resalign.config.strict import ConfigError, read_yaml, typed
from snakemake.utils import update_config


def load_plans():
    """The validated plan and the declared ablations; a fault ends here with one line and no traceback."""
    files = ", ".join(str(path) for path in workflow.configfiles)
    try:
        values = {}
        for path in workflow.configfiles:
            update_config(values, read_yaml(path))  # Snakemake's own reader keeps the last of two equal keys
        update_config(values, typed(workflow.config_settings.config))
        plan = Plan(Experiment(values, where=files))
        return plan, Ablations(plan, values)
    except ConfigError as error:
        raise WorkflowError(str(error)) from None


def plan_of(stage, wildcards):
    """The plan of a run: the experiment's own, or an ablation's, which is made when it is asked for."""
    return ABLATIONS.made(stage, wildcards.run)[0]


def run_of(stage, wildcards):
    """A run, by the name of its folder."""
    return ABLATIONS.made(stage, wildcards.run)[1]


def planned_job(build, kind, folder, *names):
    """Wildcards to a job: ``build`` makes it of the plan that makes the folder, what it is there, and other wildcards."""

    # Of thousands of jobs not all are kept: each is needed when it is planned, and again when it is run.
    @functools.lru_cache(maxsize=256)
    def job(folder, *values):
        return build(*ABLATIONS.made(kind, folder), **dict(zip(names, values)))

    return lambda wildcards: job(*(wildcards[name] for name in (folder, *names)))


def checked_inputs(stage, wildcards):
    """Records that the user's own inputs of a run were checked."""
    return checked_of(stage, wildcards.run)


@functools.cache
def checked_of(stage, run):
    """The same by the name of the run's folder, once for all of its seeds."""
    plan, made = ABLATIONS.made(stage, run)
    return own_inputs.record(plan, made.model)


def own(kind):
    """The folders of one kind that the experiment itself makes, as a pattern."""
    return "|".join(map(re.escape, planned(PLAN, kind))) or "(?!)"


def ablated(kind, pattern):
    """What matches a pattern and is not the experiment's own."""
    return f"(?!(?:{own(kind)})/)(?:{pattern})"


def shown_table(name, about, title, subcategory="All"):
    """A table of every report, as Snakemake's own report shows it."""
    labels = {"table": title, "format": Path(name).suffix[1:]}
    caption = f"../report/{about}.rst"
    return report(f"{RESULT}/{name}", caption=caption, category="Tables", subcategory=subcategory, labels=labels)


def literal_param(text):
    """A param that Snakemake takes as it is; in a plain string it would read braces as wildcards."""
    return lambda wildcards: text


def quoted_folder(path):
    """A path's folder for a shell; Snakemake reads a prefix as a format."""
    return shlex.quote(str(Path(path).parent)).replace("{", "{{").replace("}", "}}")


def per_attempt(amount):
    """A resource that grows with each attempt: a job that ran out of it must not fail in the same way again."""
    return lambda wildcards, attempt: amount * attempt


def resources_of(stage):
    """The resources that the configuration gives a stage's jobs."""
    asked = RESOURCES[stage]
    return {"gpu": asked.gpu, "mem_mb": per_attempt(asked.mem_mb), "runtime": per_attempt(asked.runtime_minutes)}


# Ctrl-C and SIGTERM are for the stages, which save their state first: the shell and the pipe into the log live on. A
# scheduler kills a job at the end of its run time, so that a stage stops before; here the run time is an estimate alone.
LIMIT_IS_ENFORCED = "export RESALIGN_ENFORCE_LIMIT=1; " if workflow.remote_exec else ""
# `python` is the one that runs Snakemake, whether its environment is activated or not; but where --sdm activates an
# environment of the rule's, which it does before this prefix, that one's.
OWN_PYTHON = "" if workflow.deployment_settings.deployment_method else f"PATH={quoted_folder(sys.executable)}:$PATH; "
shell.prefix(f"set -euo pipefail; trap '' INT TERM; {LIMIT_IS_ENFORCED}{OWN_PYTHON}")

PLAN, ABLATIONS = load_plans()
RESULT = f"results/{PLAN.experiment.config.name}"
RESOURCES = {stage: PLAN.experiment.resources(stage) for stage in ("unlearn", "attack", "sample", "score")}
RUN = r"[A-Za-z0-9_.-]+"


wildcard_constraints:
    run=RUN,
    seed=r"\d+",
    tier=r"smoke|small|paper",
    reference=r"reference-[0-9a-f]+",
