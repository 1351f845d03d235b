# The paper's tables and figures, each exhibit by a job of its own: `snakemake --cores 2 -- paper`. docs/paper.md.
from resalign.jobs import exhibit as exhibit_jobs
from resalign.jobs.exhibit import ExhibitJob

for kind, suffixes in exhibit_jobs.SUFFIXES.items():

    rule:
        name:
            f"exhibit_{kind}"
        input:
            lambda wildcards: ExhibitJob.of(PLAN, wildcards.exhibit).inputs(),
            code=lambda wildcards: exhibit_jobs.exhibit_code(PLAN, wildcards.exhibit),
        output:
            expand("{folder}/{{exhibit}}{suffix}", folder=exhibit_jobs.folder(PLAN), suffix=suffixes),
        log:
            f"logs/paper/{PLAN.experiment.config.name}.{{exhibit}}.log",
        wildcard_constraints:
            exhibit="|".join(exhibit_jobs.of_kind(kind)),
        conda:
            "../../envs/resalign.yaml"
        threads: 1
        resources:
            mem_mb=per_attempt(1500),
            runtime=per_attempt(10),
        params:
            job=lambda wildcards: ExhibitJob.of(PLAN, wildcards.exhibit).text(),
            folder=subpath(output[0], parent=True),
        shell:
            "python scripts/exhibit.py --job - --output {params.folder} <<< {params.job:q} 2>&1 | tee {log}"


rule paper:
    input:
        exhibit_jobs.paper_files(PLAN),
        rules.theory.input,
        [rules.check_scorers.output.found, *([rules.overlap.output.found] if OVERLAP else [])],
    message:
        exhibit_jobs.message(PLAN)
