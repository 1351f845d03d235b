import os
import re

from resalign.config import prepared_jobs

# Image sets made from fetched archives and tables (unpacked, checked, filtered, split), or by a model from prompts.

PREPARED = {os.path.basename(asset.folder): name for name, asset in PLAN.assets.items() if asset.origin == "prepared"}
GENERATED = {folder for folder, name in PREPARED.items() if prepared_jobs.is_generated(PLAN, name)}


rule prepare:
    input:
        assets=lambda wildcards: prepared_jobs.assets(PLAN, PREPARED[wildcards.prepared]),
        code=lambda wildcards: prepared_jobs.code(PLAN, PREPARED[wildcards.prepared]),
    output:
        "results/assets/{prepared}/run.json",
        "results/assets/{prepared}/timing.json",
    log:
        "logs/prepare/{prepared}.log",
    wildcard_constraints:
        prepared="|".join(map(re.escape, sorted(set(PREPARED) - GENERATED))) or "(?!)",
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        job=lambda wildcards: prepared_jobs.job(PLAN, PREPARED[wildcards.prepared]),
        module=lambda wildcards: prepared_jobs.module(PLAN, PREPARED[wildcards.prepared]),
        folder=subpath(output[0], parent=True),
    shell:
        "python scripts/prepare.py --job {params.job:q} --threads {threads} --output {params.folder}"
        " --modules {params.module} 2>&1 | tee {log}"


rule generate:
    input:
        assets=lambda wildcards: prepared_jobs.assets(PLAN, PREPARED[wildcards.prepared]),
        code=lambda wildcards: prepared_jobs.code(PLAN, PREPARED[wildcards.prepared]),
    output:
        "results/assets/{prepared}/run.json",
        "results/assets/{prepared}/timing.json",
    log:
        "logs/generate/{prepared}.log",
    wildcard_constraints:
        prepared="|".join(map(re.escape, sorted(GENERATED))) or "(?!)",
    conda:
        "../../envs/sample.yaml"
    threads: RESOURCES["sample"].threads
    resources:
        gpu=RESOURCES["sample"].gpu,
        mem_mb=growing(RESOURCES["sample"].mem_mb),
        runtime=growing(RESOURCES["sample"].runtime_minutes),
    params:
        job=lambda wildcards: prepared_jobs.job(PLAN, PREPARED[wildcards.prepared]),
        module=lambda wildcards: prepared_jobs.module(PLAN, PREPARED[wildcards.prepared]),
        folder=subpath(output[0], parent=True),
    shell:
        "python scripts/generate.py --job {params.job:q} --threads {threads}"
        " --limit-minutes {resources.runtime} --output {params.folder} --modules {params.module} 2>&1 | tee {log}"
