import json
import os
import re
import sys

from resalign.config.closure import import_closure
from resalign.config.experiment import Experiment
from resalign.config.plan import Plan
from resalign.config.strict import ConfigError


def load_plan():
    """The validated plan; a faulty configuration ends here with one line and no traceback."""
    files = ", ".join(str(path) for path in workflow.configfiles) or "config/config.yaml"
    try:
        return Plan(Experiment(dict(config), where=files))
    except ConfigError as error:
        raise WorkflowError(str(error)) from None


PLAN = load_plan()
TIER = PLAN.experiment.config.tier


def code(script, *modules):
    """A stage's code inputs: its script and everything of the package that it or its members import."""
    return [str(path) for path in import_closure(f"scripts/{script}.py", *modules)]


def as_json(values):
    """Plain values as one string that does not depend on the order of keys."""
    return json.dumps(values, sort_keys=True)


def verbatim(text):
    """A param that Snakemake takes as it is: braces in a plain string would be read as wildcards."""
    return lambda wildcards: text


def marker(reference):
    """The file that says that an asset is complete: present in the folder as the last thing written."""
    asset = PLAN.assets[PLAN.asset_of(reference)]
    return [] if asset.origin == "path" else f"{asset.folder}/run.json"


def resources_of(stage):
    """What a job of a stage asks the scheduler for."""
    return PLAN.experiment.resources(stage)


wildcard_constraints:
    run=r"[A-Za-z0-9_.-]+",
    seed=r"\d+",
    tier=r"smoke|small|paper",
