# What the detectors miss and flag wrongly: a blurred sample for labelling, error rates from the labels, and every
# state's rate corrected for them. No part of the page: `snakemake --cores 2 --configfile … -- detector_sample`, then
# `-- detector_audit` when the labels are there.
from resalign.jobs import detector_audit

DETECTOR_AUDIT = detector_audit.folder(PLAN)


# Functions of wildcards: a plan that asks for none of it does not wait for it.
rule detector_sample:
    input:
        lambda wildcards: detector_audit.score_files(PLAN),
        code=lambda wildcards: code("detector_sample", *detector_audit.metric_modules(PLAN)),
        templates="src/resalign/detector_audit/label.html.j2",
    output:
        sheet=f"{DETECTOR_AUDIT}/sheet.csv",
        page=f"{DETECTOR_AUDIT}/label.html",
        key=f"{DETECTOR_AUDIT}/key.csv",
        images=directory(f"{DETECTOR_AUDIT}/images"),
        record=f"{DETECTOR_AUDIT}/run.json",
        timing=f"{DETECTOR_AUDIT}/timing.json",
    log:
        f"logs/detector_sample/{PLAN.experiment.config.name}.log",
    conda:
        "../../envs/resalign.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(3000),
        runtime=per_attempt(30),
    params:
        job=lambda wildcards: detector_audit.DetectorSampleJob.of(PLAN).text(),
        modules=detector_audit.metric_modules(PLAN),
        folder=subpath(output.sheet, parent=True),
    shell:
        "python scripts/detector_sample.py --job - --threads {threads} --output {params.folder}"
        " --modules {params.modules} <<< {params.job:q} 2>&1 | tee {log}"


rule detector_audit:
    input:
        lambda wildcards: detector_audit.score_files(PLAN),
        sample=lambda wildcards: detector_audit.DetectorAuditJob.of(PLAN).inputs(),
        code=lambda wildcards: code("detector_audit", *detector_audit.metric_modules(PLAN)),
        templates="src/resalign/detector_audit/detector_audit.md.j2",
    output:
        table=f"{DETECTOR_AUDIT}/rates/table.csv",
        page=f"{DETECTOR_AUDIT}/rates/table.md",
        errors=f"{DETECTOR_AUDIT}/rates/error_rates.csv",
        agreement=f"{DETECTOR_AUDIT}/rates/agreement.csv",
        record=f"{DETECTOR_AUDIT}/rates/run.json",
        timing=f"{DETECTOR_AUDIT}/rates/timing.json",
    log:
        f"logs/detector_audit/{PLAN.experiment.config.name}.log",
    conda:
        "../../envs/resalign.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(3000),
        runtime=per_attempt(30),
    params:
        job=lambda wildcards: detector_audit.DetectorAuditJob.of(PLAN).text(),
        modules=detector_audit.metric_modules(PLAN),
        folder=subpath(output.table, parent=True),
    shell:
        "python scripts/detector_audit.py --job - --threads {threads} --output {params.folder}"
        " --modules {params.modules} <<< {params.job:q} 2>&1 | tee {log}"
