# The resilience card of every model but the base, from the frames that the report is made from:
# `snakemake --cores 2 --configfile my-audit.yaml -- audit`.
from resalign.jobs import cards as card_jobs
from resalign.jobs.cards import CardsJob

AUDIT = card_jobs.folder(PLAN)


localrules:
    audit,


rule audit:
    input:
        card_jobs.card_files(PLAN),
        f"{AUDIT}/verdicts.csv",


# Functions of wildcards: only who asks for cards must have a model besides the base.
rule cards:
    input:
        lambda wildcards: CardsJob.of(PLAN).inputs(),
        code=code("cards"),
        templates=[f"src/resalign/{name}.j2" for name in ("display/style.html", "cards/card.html", "cards/card.md")],
    output:
        cards=card_jobs.card_files(PLAN),
        verdicts=f"{AUDIT}/verdicts.csv",
        record=f"{AUDIT}/run.json",
        timing=f"{AUDIT}/timing.json",
    log:
        f"logs/cards/{PLAN.experiment.config.name}.log",
    conda:
        "../../envs/resalign.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(3000),
        runtime=per_attempt(30),
    params:
        job=lambda wildcards: CardsJob.of(PLAN).text(),
        folder=subpath(output.verdicts, parent=True),
    shell:
        "python scripts/cards.py --job - --threads {threads} --output {params.folder} <<< {params.job:q} 2>&1 | tee {log}"
