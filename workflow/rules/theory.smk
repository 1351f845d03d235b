# The measured theory: `snakemake --cores 2 --configfile config/demo.yaml -- theory`. Proposition 1 of ResAlign and
# slices of the harmful loss, from the weights of unlearning and attacks; the linear model of concept resurgence.
from resalign.jobs import theory as theory_jobs

THEORY = theory_jobs.folder(PLAN)
state_job = lambda wildcards: theory_jobs.StateJob.of(PLAN, wildcards.run, int(wildcards.seed))


localrules:
    theory,


rule theory:
    input:
        theory_jobs.files(PLAN),


rule theory_state:
    input:
        lambda wildcards: state_job(wildcards).inputs(),
        code=code("theory"),
    output:
        tables=expand("results/runs/theory/{{run}}/seed-{{seed}}/{table}.csv", table=theory_jobs.STATE_TABLES),
        record="results/runs/theory/{run}/seed-{seed}/run.json",
        timing="results/runs/theory/{run}/seed-{seed}/timing.json",
    log:
        "logs/theory/{run}/seed-{seed}.log",
    conda:
        "../../envs/resalign.yaml"
    threads: RESOURCES["unlearn"].threads
    resources:
        **resources_of("unlearn"),
    params:
        job=lambda wildcards: state_job(wildcards).text(),
        folder=subpath(output.record, parent=True),
    shell:
        "python scripts/theory.py --job {params.job:q} --seed {wildcards.seed} --threads {threads}"
        " --output {params.folder} 2>&1 | tee {log}"


rule linear_model:
    input:
        code=code("linear_model"),
    output:
        table=f"{theory_jobs.linear_model_folder(PLAN)}/{theory_jobs.LINEAR_MODEL}",
        record=f"{theory_jobs.linear_model_folder(PLAN)}/run.json",
        timing=f"{theory_jobs.linear_model_folder(PLAN)}/timing.json",
    log:
        f"logs/theory/{PLAN.experiment.config.name}.linear-model.log",
    conda:
        "../../envs/resalign.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    params:
        job=lambda wildcards: theory_jobs.LinearModelJob.of(PLAN).text(),
        folder=subpath(output.table, parent=True),
    shell:
        "python scripts/linear_model.py --job {params.job:q} --threads {threads} --output {params.folder}"
        " 2>&1 | tee {log}"


rule theory_shown:
    input:
        lambda wildcards: theory_jobs.TheoryShownJob.of(PLAN).inputs(),
        checked=[rules.check_scorers.output.found, *([rules.overlap.output.found] if OVERLAP else [])],
        code=code("theory_shown"),
    output:
        files=theory_jobs.files(PLAN),
        record=f"{THEORY}/run.json",
        timing=f"{THEORY}/timing.json",
    log:
        f"logs/theory/{PLAN.experiment.config.name}.log",
    conda:
        "../../envs/resalign.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(3000),
        runtime=per_attempt(10),
    params:
        job=lambda wildcards: theory_jobs.TheoryShownJob.of(PLAN).text(),
        folder=subpath(output.record, parent=True),
    shell:
        "python scripts/theory_shown.py --job - --threads {threads} --output {params.folder}"
        " <<< {params.job:q} 2>&1 | tee {log}"
