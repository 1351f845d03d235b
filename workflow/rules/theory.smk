# The measured theory: `snakemake --cores 2 --configfile config/demo.yaml -- theory`. Proposition 1 of ResAlign and
# slices of the harmful loss, from the weights of unlearning and attacks; the linear model of concept resurgence.
from resalign.config import theory_jobs

THEORY = theory_jobs.folder(PLAN)


localrules:
    theory,


rule theory:
    input:
        f"{THEORY}/theory.md",
        f"{THEORY}/linear_model.md",


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
        "../../envs/unlearn.yaml"
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
rule theory_tables:
    input:
        jobs.report_files(PLAN),
        states=expand("{state}/{table}.csv", state=theory_jobs.measured_states(PLAN), table=theory_jobs.STATE_TABLES),
        code=jobs.code("theory_tables", *METRIC_MODULES),
    output:
        tables=expand(f"{THEORY}/{{table}}.csv", table=[*theory_jobs.STATE_TABLES, "regained"]),
        page=f"{THEORY}/theory.md",
        figures=expand(f"{THEORY}/{{figure}}.{{suffix}}", figure=theory_jobs.FIGURES, suffix=["png", "svg"]),
        record=f"{THEORY}/run.json",
        timing=f"{THEORY}/timing.json",
    log:
        f"logs/theory/{PLAN.experiment.config.name}.log",
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=growing(10),
    params:
        job=lambda wildcards: theory_jobs.table_job(PLAN),
        modules=METRIC_MODULES,
        folder=subpath(output.page, parent=True),
    shell:
        "python scripts/theory_tables.py --job - --threads {threads} --output {params.folder}"
        " --modules {params.modules} <<< {params.job:q} 2>&1 | tee {log}"


rule linear_model:
    input:
        code=jobs.code("linear_model"),
    output:
        table=f"{THEORY}/linear_model.csv",
        page=f"{THEORY}/linear_model.md",
        figures=expand(f"{THEORY}/linear_model.{{suffix}}", suffix=["png", "svg"]),
        record=f"{THEORY}/linear-model/run.json",
        timing=f"{THEORY}/linear-model/timing.json",
    log:
        f"logs/theory/{PLAN.experiment.config.name}.linear-model.log",
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        job=lambda wildcards: theory_jobs.linear_model_job(PLAN),
        folder=subpath(output.table, parent=True),
    shell:
        "python scripts/linear_model.py --job {params.job:q} --threads {threads} --output {params.folder}"
        " 2>&1 | tee {log}"
