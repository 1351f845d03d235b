import json

from resalign.assets.blocked import lost, refusal
from resalign.assets.doctor import gpu_line, missing_lines
from resalign.jobs.fetch import FetchJob
from resalign.running.adopt import adopt_command, foreign_runs
from resalign.running.notes import note_damage

# Downloads: the only rules that touch the network. Every file is pinned, and checked before it is used.


localrules:
    fetch,


fetch_job = planned_job(FetchJob.of, "fetched", "asset")


rule fetch:
    input:
        code=code("fetch"),
    output:
        "results/assets/{asset}/run.json",
        "results/assets/{asset}/timing.json",
    log:
        "logs/fetch/{asset}.log",
    wildcard_constraints:
        asset=own("fetched"),
    # Before all else: what cannot be had ends a run while it has cost nothing.
    priority: 1
    conda:
        "../../envs/resalign.yaml"
    threads: 1
    params:
        job=lambda wildcards: fetch_job(wildcards).text(),
        folder=subpath(output[0], parent=True),
    shell:
        "python scripts/fetch.py --job {params.job:q} --threads {threads} --output {params.folder} 2>&1 | tee {log}"


# What a plan cannot run without is named before anything runs, and in a dry run too.
if workflow.is_main_process:
    for line in note_damage(Path("results")):
        logger.info(f"damaged: {line}; it is made again")
    for line in missing_lines(PLAN):
        logger.info(f"missing asset {line}")
    if foreign := foreign_runs(PLAN):
        adopt = adopt_command(workflow.configfiles, workflow.config_settings.config)
        logger.info(f"{foreign} runs in results/ were made in another folder; to take them over: {adopt}")
    # Where jobs are sent elsewhere (--jobs), this machine needs no GPU.
    if workflow.resource_settings.nodes is None and (line := gpu_line(PLAN)):
        logger.info(f"missing GPU: {line}")
