# The measured theory: `snakemake --cores 2 --configfile config/demo.yaml -- theory`. Proposition 1 of ResAlign and
# slices of the harmful loss, from the weights of unlearning and attacks; the linear model of concept resurgence.
from resalign.jobs import theory as theory_jobs

THEORY = theory_jobs.folder(PLAN)


localrules:
    theory,


rule theory:
    input:
        theory_jobs.files(PLAN),


rule theory_state:
    input:
        unpack(lambda wildcards: theory_jobs.state_inputs(PLAN, wildcards.run, int(wildcards.seed))),
        code=jobs.code("theory"),
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
        gpu=RESOURCES["unlearn"].gpu,
        mem_mb=growing(RESOURCES["unlearn"].mem_mb),
        runtime=growing(RESOURCES["unlearn"].runtime_minutes),
    params:
        job=lambda wildcards: theory_jobs.state_job(PLAN, wildcards.run, int(wildcards.seed)),
        folder=subpath(output.record, parent=True),
    shell:
        "python scripts/theory.py --job {params.job:q} --seed {wildcards.seed} --threads {threads}"
        " --output {params.folder} 2>&1 | tee {log}"


# Joined with the safety metric of the report, so that sharpness stands beside what fine-tuning brings back.
rule theory_regained:
    input:
        jobs.report_files(PLAN),
        theory_jobs.parts(PLAN, "sharpness"),
        code=jobs.code("theory_regained", *METRIC_MODULES),
    output:
        table=f"{THEORY}/measured/{theory_jobs.REGAINED}.csv",
        record=f"{THEORY}/measured/run.json",
        timing=f"{THEORY}/measured/timing.json",
    log:
        f"logs/theory/{PLAN.experiment.config.name}.regained.log",
    conda:
        "../../envs/resalign.yaml"
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=growing(10),
    params:
        job=verbatim(theory_jobs.regained_job(PLAN)),
        modules=METRIC_MODULES,
        folder=subpath(output.table, parent=True),
    shell:
        "python scripts/theory_regained.py --job - --threads {threads} --output {params.folder}"
        " --modules {params.modules} <<< {params.job:q} 2>&1 | tee {log}"


# What a reader opens is made from what was measured, file by file, so that a deleted one is made again alone.
rule theory_table:
    input:
        lambda wildcards: theory_jobs.parts(PLAN, wildcards.table),
        code=jobs.code("theory_table"),
    output:
        f"{THEORY}/{{table}}.csv",
    log:
        f"logs/theory/{PLAN.experiment.config.name}.{{table}}.csv.log",
    wildcard_constraints:
        table="|".join(theory_jobs.TABLES),
    conda:
        "../../envs/resalign.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        job=lambda wildcards: theory_jobs.table_job(PLAN, wildcards.table),
        folder=subpath(output[0], parent=True),
    shell:
        "python scripts/theory_table.py --job - --output {params.folder} <<< {params.job:q} 2>&1 | tee {log}"


rule theory_shown:
    input:
        lambda wildcards: sum(theory_jobs.shown_parts(PLAN, wildcards.shown).values(), []),
        code=jobs.code("theory_shown", *METRIC_MODULES),
    output:
        f"{THEORY}/{{shown}}",
    log:
        f"logs/theory/{PLAN.experiment.config.name}.{{shown}}.log",
    wildcard_constraints:
        shown="|".join(map(re.escape, theory_jobs.SHOWN)),
    conda:
        "../../envs/resalign.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        job=lambda wildcards: theory_jobs.shown_job(PLAN, wildcards.shown),
        folder=subpath(output[0], parent=True),
    shell:
        "python scripts/theory_shown.py --job - --output {params.folder} <<< {params.job:q} 2>&1 | tee {log}"


rule linear_model:
    input:
        code=jobs.code("linear_model"),
    output:
        table=f"{THEORY}/measured/linear-model/linear_model.csv",
        record=f"{THEORY}/measured/linear-model/run.json",
        timing=f"{THEORY}/measured/linear-model/timing.json",
    log:
        f"logs/theory/{PLAN.experiment.config.name}.linear-model.log",
    conda:
        "../../envs/resalign.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        job=verbatim(theory_jobs.linear_model_job(PLAN)),
        folder=subpath(output.table, parent=True),
    shell:
        "python scripts/linear_model.py --job {params.job:q} --threads {threads} --output {params.folder}"
        " 2>&1 | tee {log}"


rule linear_model_shown:
    input:
        rules.linear_model.output.table,
        code=jobs.code("linear_model_shown"),
    output:
        f"{THEORY}/{{shown}}",
    log:
        f"logs/theory/{PLAN.experiment.config.name}.{{shown}}.log",
    wildcard_constraints:
        shown="|".join(map(re.escape, theory_jobs.LINEAR_MODEL)),
    conda:
        "../../envs/resalign.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        job=lambda wildcards: theory_jobs.linear_model_shown_job(PLAN, wildcards.shown),
        folder=subpath(output[0], parent=True),
    shell:
        "python scripts/linear_model_shown.py --job {params.job:q} --output {params.folder} 2>&1 | tee {log}"
