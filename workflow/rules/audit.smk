# The resilience card of every model but the base, of the scores that the report is made of:
# `snakemake --cores 2 --configfile my-audit.yaml -- audit`.
from resalign.jobs import cards as card_jobs

AUDIT = card_jobs.folder(PLAN)


rule audit:
    input:
        jobs.report_files(PLAN),
        code=jobs.code("audit", *METRIC_MODULES),
        templates=[f"src/resalign/{name}.j2" for name in ("display/style.html", "cards/card.html", "cards/card.md")],
    output:
        cards=card_jobs.card_files(PLAN),
        verdicts=f"{AUDIT}/verdicts.csv",
        record=f"{AUDIT}/run.json",
        timing=f"{AUDIT}/timing.json",
    log:
        f"logs/audit/{PLAN.experiment.config.name}.log",
    conda:
        "../../envs/resalign.yaml"
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=growing(30),
    params:
        # A function: only who asks for cards must have a model besides the base.
        job=lambda wildcards: card_jobs.card_job(PLAN),
        modules=METRIC_MODULES,
        folder=subpath(output.verdicts, parent=True),
    shell:
        "python scripts/audit.py --job - --threads {threads} --output {params.folder}"
        " --modules {params.modules} <<< {params.job:q} 2>&1 | tee {log}"
