# Tables, figures and the page of the experiment. `snakemake --report` shows the same, with the captions of
# workflow/report.


report: "../report/experiment.rst"


from resalign.jobs import report as sources
from resalign.jobs.report import ReportJob


rule report:
    input:
        lambda wildcards: ReportJob.of(PLAN).inputs(),
        code=code("report"),
        templates=[
            f"src/resalign/{name}.html.j2"
            for name in ("report/page", "report/script", "display/parts", "display/style")
        ],
    output:
        page=report(
            f"{RESULT}/{sources.PAGE}",
            caption="../report/page.rst",
            category="Page",
            labels={"page": "The whole report", "format": "html"},
        ),
        table=shown_table(sources.TABLE, "table1", "Main table"),
        steps=shown_table(sources.STEPS, "steps", "Over fine-tuning"),
        per_run=shown_table(sources.PER_RUN, "per_run", "Single runs"),
        paired=shown_table(sources.PAIRED, "paired", "Paired comparisons"),
        survival=shown_table(sources.SURVIVAL, "survival", "What has not come back"),
        pareto=shown_table(sources.PARETO, "pareto", "Safety, utility and learnability"),
        sweeps=[
            shown_table(name, "sweep", Path(name).stem, "Sweeps")
            for label in PLAN.experiment.sweeps
            for name in sources.sweep_files(label)
        ],
        words=[f"{RESULT}/{sources.WORDS}"] if PLAN.experiment.sweeps else [],
        # Which figures there are depends on what was measured.
        figures=report(
            directory(f"{RESULT}/figures"),
            patterns=["{figure}.{format}"],
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}", "format": "{format}"},
        ),
        record=f"{RESULT}/run.json",
    log:
        f"logs/report/{PLAN.experiment.config.name}.log",
    conda:
        "../../envs/resalign.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(3000),
        runtime=per_attempt(30),
    params:
        job=lambda wildcards: ReportJob.of(PLAN).text(),
        folder=subpath(output[0], parent=True),
    shell:
        "python scripts/report.py --job - --threads {threads} --output {params.folder}"
        " <<< {params.job:q} 2>&1 | tee {log} && mkdir -p {output.figures}"
