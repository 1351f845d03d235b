# The measured frames: of an experiment's results only this rule opens raw scores; an ablation's has `ablation_measured`.
from resalign.jobs import measure as measure_jobs
from resalign.jobs.measure import MeasureJob

METRIC_MODULES = measure_jobs.metric_modules(PLAN)


rule measure:
    input:
        lambda wildcards: MeasureJob.of(PLAN).inputs(),
        code=code("measure", *METRIC_MODULES),
    output:
        frames=measure_jobs.files(PLAN),
        record=f"{RESULT}/measured/run.json",
        timing=f"{RESULT}/measured/timing.json",
    log:
        f"logs/measure/{PLAN.experiment.config.name}.log",
    conda:
        "../../envs/resalign.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(6000),
        runtime=lambda wildcards, attempt: attempt * MeasureJob.of(PLAN).minutes,
    params:
        job=lambda wildcards: MeasureJob.of(PLAN).text(),
        modules=METRIC_MODULES,
        folder=subpath(output.record, parent=True),
    shell:
        "python scripts/measure.py --job - --threads {threads} --output {params.folder}"
        " --modules {params.modules} <<< {params.job:q} 2>&1 | tee {log}"
