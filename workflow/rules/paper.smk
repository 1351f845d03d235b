# The paper's tables and figures, each file by a job of its own: `snakemake --cores 2 -- paper`. docs/paper.md.
from resalign.jobs import paper as exhibit_jobs


rule measure:
    input:
        lambda wildcards: exhibit_jobs.measure_files(PLAN),
        code=jobs.code("measure", *METRIC_MODULES),
    output:
        frames=expand("{folder}/{frame}.csv", folder=f"{RESULT}/measured", frame=exhibit_jobs.FRAMES),
        names=f"{RESULT}/measured/names.json",
        record=f"{RESULT}/measured/run.json",
        timing=f"{RESULT}/measured/timing.json",
    log:
        f"logs/measure/{PLAN.experiment.config.name}.log",
    conda:
        "../../envs/resalign.yaml"
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=growing(30),
    params:
        job=verbatim(exhibit_jobs.measure_job(PLAN)),
        modules=METRIC_MODULES,
        folder=subpath(output.names, parent=True),
    shell:
        "python scripts/measure.py --job - --threads {threads} --output {params.folder}"
        " --modules {params.modules} <<< {params.job:q} 2>&1 | tee {log}"


rule exhibit:
    input:
        lambda wildcards: list(exhibit_jobs.frames_of(PLAN, wildcards.exhibit).values()),
        code=lambda wildcards: exhibit_jobs.exhibit_code(PLAN, wildcards.exhibit),
    output:
        f"{RESULT}/paper/{{exhibit}}.{{suffix}}",
    log:
        f"logs/paper/{PLAN.experiment.config.name}.{{exhibit}}.{{suffix}}.log",
    wildcard_constraints:
        exhibit="|".join(exhibit_jobs.exhibits()),
        suffix="csv|tex|png|svg",
    conda:
        "../../envs/resalign.yaml"
    threads: 1
    resources:
        mem_mb=growing(1500),
        runtime=growing(10),
    params:
        job=lambda wildcards: exhibit_jobs.exhibit_job(PLAN, wildcards.exhibit),
    shell:
        "python scripts/exhibit.py --job {params.job:q} --exhibit {wildcards.exhibit} --output {output}"
        " 2>&1 | tee {log}"


rule paper:
    input:
        exhibit_jobs.paper_files(PLAN),
        rules.theory.input,
    message:
        exhibit_jobs.message(PLAN)
