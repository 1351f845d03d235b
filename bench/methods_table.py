r"""A page of docs/studies: every model of an experiment before and after each attack, what it cost and did.

python -m resalign.running.stage_server snakemake --cores 2 --max-jobs-per-timespan 1000/10s \
    --configfile config/studies/methods.yaml -- results/methods/paper/methods.csv
python bench/methods_table.py config/studies/methods.yaml
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pandas as pd

from resalign.accounting.job_records import JobRecord, read_job_records
from resalign.analysis.frames import read_csv
from resalign.analysis.measurements import NOT_ATTACKED
from resalign.config.experiment import BASE
from resalign.config.plan import RESULTS, Plan, load_plan
from resalign.jobs.report import report_timings

PAGES = Path("docs/studies")
# Of metrics with a table each, those whose label is no header; and metrics of unlearning alone, which share a table.
HEADERS = {"ip": "IP", "us": "US", "ip_implicit": "IP on implicit prompts", "fid": "FID", "kid": "KID"}
MOVED = {"weight_distance": "‖θ − θ₀‖", "loss_barrier": "barrier"}
DIGITS = {"fid": 1, "kid": 4, "weight_distance": 1, "loss_barrier": 3}


def main() -> None:
    """Writes the page NAME.md, or prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configfile")
    parser.add_argument("--print", action="store_true", help="print the page, and write nothing")
    parsed = parser.parse_args()
    plan = load_plan(parsed.configfile, {})
    text = page(plan, parsed.configfile)
    if parsed.print:
        print(text, end="")
    else:
        (PAGES / f"{plan.experiment.config.name}.md").write_text(text, encoding="utf-8")


def page(plan: Plan, configfile: str) -> str:
    """The whole page."""
    exhibit = f"{RESULTS}/{plan.experiment.config.name}/paper/methods.csv"
    values = read_csv(Path(exhibit))
    records = read_job_records(report_timings(plan))
    names = {label: plan.experiment.titles.get(label, label) for label in plan.experiment.models}
    states = [(NOT_ATTACKED, "before"), *((attack, f"after {attack}") for attack in plan.experiment.attacks)]
    head, sections = ["model", *(title for _, title in states)], []
    for metric in dict.fromkeys(values["metric"]):
        if metric not in MOVED:
            rows = [[names[m], *(cell(values, m, attack, metric) for attack, _ in states)] for m in names]
            sections.append(f"## {HEADERS.get(metric, metric.replace('_', ' '))}\n\n{markdown([head, *rows])}\n")
    moved = {metric: header for metric, header in MOVED.items() if metric in plan.experiment.metrics}
    head = ["model", *moved.values(), "seconds", "peak memory", "note"]
    costs = [[names[m], *(cell(values, m, NOT_ATTACKED, metric) for metric in moved), *cost(records, m)] for m in names]
    notes = {model: words.note for model, words in plan.experiment.words.items()}
    costs = [[*row, notes.get(model, "")] for row, model in zip(costs, names, strict=True)]
    seeds = ", ".join(str(seed) for seed in plan.experiment.tier.training_seeds)
    hours = sum(record.device_hours for record in records)
    tables = "\n".join(sections)
    prompts = " ".join(f"**{of.title or name}**: {of.about}" for name, of in plan.experiment.config.prompts.items())
    return f"""# {plan.experiment.config.title}

Made by `python bench/methods_table.py {configfile}` after the command in that file; the jobs behind it took {hours:.1f}
hours of one core. Training seeds {seeds}. Each value has its 95 % interval: over prompts and training seeds for rates,
over training seeds for the others. Seconds are of one core, a mean over seeds, and include what is measured of weights.

{prompts}

{tables}
## What unlearning did and cost

{markdown([head, *costs])}
"""


def cell(values: pd.DataFrame, model: str, attack: str, metric: str) -> str:
    """A value with its interval."""
    found = values[(values["model"] == model) & (values["attack"] == attack) & (values["metric"] == metric)]
    if found.empty:
        return "–"
    mean, low, high = (float(found[name].iloc[0]) for name in ("mean", "low", "high"))
    digits = DIGITS.get(metric, 2)
    interval = "" if math.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{mean:.{digits}f}{interval}"


def cost(records: list[JobRecord], model: str) -> list[str]:
    """Seconds and peak memory of unlearning."""
    own = [record for record in records if (record.stage, record.label) == ("unlearn", model)]
    if model == BASE or not own:
        return ["–", "–"]
    seconds = sum(record.seconds for record in own) / len(own)
    return [f"{seconds:.0f}", f"{max(record.peak_memory_mb for record in own):,.0f} MB"]


def markdown(rows: list[list[str]]) -> str:
    """A table whose first row is its header."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


if __name__ == "__main__":
    main()
