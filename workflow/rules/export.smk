# An unlearned model for others, with its card: a whole pipeline folder, or a delta on its base.
# `snakemake --cores 2 --configfile … -- export` for every model's delta at the first training seed, or one folder:
# `-- results/<experiment>/export/<model>/seed-<seed>/<whole or delta>/model`.
from resalign.jobs import export as export_jobs
from resalign.jobs.export import ExportJob

EXPORT = export_jobs.folder(PLAN)
export_job = lambda wildcards: ExportJob.of(PLAN, wildcards.model, wildcards.seed, wildcards.form)


localrules:
    export,


rule export:
    input:
        lambda wildcards: export_jobs.deltas(PLAN),


rule export_model:
    input:
        lambda wildcards: export_job(wildcards).inputs(),
        base=lambda wildcards: PLAN.completion_files(PLAN.experiment.config.model),
        code=code("export"),
        templates=[
            f"src/resalign/{name}.j2"
            for name in ("display/style.html", "cards/card.html", "cards/card.md", "cards/model_card.md")
        ],
    output:
        folder=directory(f"{EXPORT}/{{model}}/seed-{{seed}}/{{form}}/model"),
        record=f"{EXPORT}/{{model}}/seed-{{seed}}/{{form}}/run.json",
        timing=f"{EXPORT}/{{model}}/seed-{{seed}}/{{form}}/timing.json",
    log:
        f"logs/export/{PLAN.experiment.config.name}/{{model}}.seed-{{seed}}.{{form}}.log",
    wildcard_constraints:
        model=r"[A-Za-z0-9_.-]+",
        form="|".join(export_jobs.FORMS),
    conda:
        "../../envs/resalign.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(RESOURCES["unlearn"].mem_mb),
        runtime=per_attempt(30),
    params:
        job=lambda wildcards: export_job(wildcards).text(),
        folder=subpath(output.folder, parent=True),
    shell:
        "python scripts/export.py --job - --seed {wildcards.seed} --threads {threads}"
        " --output {params.folder} <<< {params.job:q} 2>&1 | tee {log}"
