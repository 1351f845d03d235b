# No part of any experiment's page: `snakemake --cores 2 --configfile config/studies/tuning.yaml -- tune` searches the
# fields that the key `tuning` names, a job for each searcher and seed, and writes a configuration with the settings found.
from resalign.jobs import tune as tune_jobs

TUNING = f"{RESULT}/tuning"


# Functions of wildcards throughout: an experiment that tunes nothing must not fail where nothing is tuned.
rule search:
    input:
        lambda wildcards: tune_jobs.TuneJob.search(PLAN, wildcards.searcher).inputs(),
        checked=own_inputs.record(PLAN),
        code=lambda wildcards: code("tune", *tune_jobs.modules(PLAN, wildcards.searcher)),
    output:
        trials=f"{TUNING}/{{searcher}}/seed-{{seed}}/trials.csv",
        record=f"{TUNING}/{{searcher}}/seed-{{seed}}/run.json",
        timing=f"{TUNING}/{{searcher}}/seed-{{seed}}/timing.json",
    log:
        f"logs/tuning/{PLAN.experiment.config.name}.{{searcher}}.seed-{{seed}}.log",
    wildcard_constraints:
        searcher="[a-z0-9_]+",
    conda:
        "../../envs/resalign.yaml"
    threads: RESOURCES["unlearn"].threads
    resources:
        gpu=RESOURCES["unlearn"].gpu,
        mem_mb=per_attempt(RESOURCES["unlearn"].mem_mb),
        runtime=lambda wildcards, attempt: attempt * RESOURCES["unlearn"].runtime_minutes * tune_jobs.trainings(PLAN),
    params:
        job=lambda wildcards: tune_jobs.TuneJob.search(PLAN, wildcards.searcher).text(),
        modules=lambda wildcards: tune_jobs.modules(PLAN, wildcards.searcher),
        folder=subpath(output.trials, parent=True),
    shell:
        "python scripts/tune.py --job {params.job:q} --seed {wildcards.seed} --threads {threads}"
        " --limit-minutes {resources.runtime} --output {params.folder} --modules {params.modules} 2>&1 | tee {log}"


rule tune:
    input:
        lambda wildcards: tune_jobs.TunedJob.of(PLAN).inputs(),
        code=code("tuned"),
    output:
        files=expand(f"{TUNING}/{{name}}", name=tune_jobs.SHOWN),
        record=f"{TUNING}/run.json",
        timing=f"{TUNING}/timing.json",
    log:
        f"logs/tuning/{PLAN.experiment.config.name}.log",
    conda:
        "../../envs/resalign.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(10),
    params:
        job=lambda wildcards: tune_jobs.TunedJob.of(PLAN).text(),
        folder=subpath(output.record, parent=True),
    shell:
        "python scripts/tuned.py --job - --threads {threads} --output {params.folder}"
        " <<< {params.job:q} 2>&1 | tee {log}"
