# Tables, figures and the page of the experiment.

METRIC_MODULES = sorted({f"resalign.metrics.{metric.name}" for metric in PLAN.experiment.metrics.values()})
RESULT = f"results/{PLAN.experiment.config.name}"


rule report:
    input:
        jobs.report_files(PLAN),
        code=jobs.code("report", *METRIC_MODULES),
        templates=[f"src/resalign/report/{name}.html.j2" for name in ("page", "parts", "style")],
    output:
        page=f"{RESULT}/report.html",
        table=f"{RESULT}/tables/table1.csv",
        latex=f"{RESULT}/tables/table1.tex",
        record=f"{RESULT}/run.json",
    log:
        f"logs/report/{PLAN.experiment.config.name}.log",
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=growing(30),
    params:
        job=verbatim(jobs.report_job(PLAN)),
        modules=METRIC_MODULES,
        folder=subpath(output[0], parent=True),
    shell:
        "python scripts/report.py --job - --threads {threads} --output {params.folder}"
        " --modules {params.modules} <<< {params.job:q} 2>&1 | tee {log}"
