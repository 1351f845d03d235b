# No part of any experiment's page: `snakemake --cores 2 --configfile config/studies/resilience.yaml -- study` compares
# an experiment's methods and components, and `-- selection` chooses the settings of a search. Both are made from the
# same small files, without the runs: counts.csv and manifest.json.
from resalign.jobs import study as study_jobs

STUDY = f"{RESULT}/study"


# Functions of wildcards throughout: an experiment that cannot be a study must not fail where none is asked for.
rule study_counts:
    input:
        lambda wildcards: study_jobs.StudyJob.of(PLAN).inputs(),
        code=code("study"),
    output:
        counts=f"{STUDY}/counts.csv",
        manifest=f"{STUDY}/manifest.json",
        record=f"{STUDY}/run.json",
        timing=f"{STUDY}/timing.json",
    log:
        f"logs/study/{PLAN.experiment.config.name}.counts.log",
    conda:
        "../../envs/resalign.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(3000),
        runtime=per_attempt(10),
    params:
        job=lambda wildcards: study_jobs.StudyJob.of(PLAN).text(),
        folder=subpath(output.counts, parent=True),
    shell:
        "python scripts/study.py --job - --threads {threads} --output {params.folder}"
        " <<< {params.job:q} 2>&1 | tee {log}"


rule selection:
    input:
        counts=rules.study_counts.output.counts,
        manifest=rules.study_counts.output.manifest,
        code=study_jobs.module_code("resalign.study.selection"),
    output:
        table=f"{STUDY}/selection.csv",
        page=f"{STUDY}/selection.md",
    log:
        f"logs/study/{PLAN.experiment.config.name}.selection.log",
    conda:
        "../../envs/resalign.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    params:
        folder=lambda wildcards: study_jobs.folder(PLAN, "selection"),
    shell:
        "python -m resalign.study.selection {params.folder} 2>&1 | tee {log}"


rule study:
    input:
        counts=rules.study_counts.output.counts,
        manifest=rules.study_counts.output.manifest,
        code=study_jobs.module_code("resalign.study.build"),
    output:
        table=f"{STUDY}/table.csv",
        claims=f"{STUDY}/claims.csv",
        fronts=f"{STUDY}/fronts.csv",
        page=f"{STUDY}/study.md",
    log:
        f"logs/study/{PLAN.experiment.config.name}.log",
    conda:
        "../../envs/resalign.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    params:
        folder=lambda wildcards: study_jobs.folder(PLAN, "study"),
    shell:
        "python -m resalign.study.build {params.folder} 2>&1 | tee {log}"
