# Tables, figures and the page of the experiment.


def report_rows():
    """Every model, fine-tuned or not, with the folders of its stages; {seed} stands for a training seed."""
    rows = []
    for score in PLAN.score.values():
        sample, trained = score.parent, score.parent.parent
        folders = {"score": f"{score.folder('{seed}')}/{TIER}", "sample": f"{sample.folder('{seed}')}/{TIER}"}
        while trained:
            folders[trained.stage] = trained.folder("{seed}")
            trained = trained.parent
        rows.append(
            {
                "model": score.model,
                "attack": PLAN.experiment.attacks[score.attack].name if score.attack else "none",
                "dataset": PLAN.experiment.attack_data[score.attack].dataset if score.attack else "",
                "seeds": PLAN.seeds(score),
                "folders": folders,
            }
        )
    return rows


REPORT_ROWS = report_rows()


def report_timings():
    """(stage, label, seed, folder) of every job behind the report, each once."""
    found = {}
    for row in REPORT_ROWS:
        label = ".".join(filter(None, [row["model"], row["dataset"]]))
        for stage, folder in row["folders"].items():
            # An unlearning run is behind several rows; its label is the model's.
            own = row["model"] if stage == "unlearn" else label
            for seed in row["seeds"]:
                found[folder.format(seed=seed)] = (stage, own, seed)
    for asset in PLAN.assets.values():
        if asset.origin != "path":
            found[asset.folder] = ("assets", asset.name, 0)
    for folder in AUTOENCODER:
        found[folder] = ("assets", "autoencoder", 0)
    return [[*key, folder] for folder, key in found.items()]


REPORT_TIMINGS = report_timings()


def report_job():
    experiment, config = PLAN.experiment, PLAN.experiment.config
    return as_json(
        {
            "name": config.name,
            "title": config.title,
            "subtitle": config.subtitle,
            "concept": config.concept.name,
            "tier": TIER,
            "training_seeds": experiment.tier.training_seeds,
            "sampling_seed": config.sampling.seed,
            "config": experiment.resolved(),
            "models": ["base", *experiment.unlearning],
            "base": "base",
            "datasets": list(dict.fromkeys(data.dataset for data in experiment.attack_data.values())),
            "heldout": {
                data.dataset: f"{PLAN.folder(data.heldout)}/metadata.csv" for data in experiment.attack_data.values()
            },
            "metrics": {label: metric.resolved() for label, metric in experiment.metrics.items()},
            "gallery": config.gallery,
            "flags": config.flags,
            "report": config.report.model_dump(mode="json"),
            "reference": f"{PLAN.reference_scores}/scores.parquet" if PLAN.reference_scores else None,
            "rows": REPORT_ROWS,
            "timings": REPORT_TIMINGS,
        }
    )


METRIC_MODULES = sorted({f"resalign.metrics.{metric.name}" for metric in PLAN.experiment.metrics.values()})
RESULT = f"results/{PLAN.experiment.config.name}"


rule report:
    input:
        scores=[f"{row['folders']['score'].format(seed=seed)}/scores.parquet" for row in REPORT_ROWS for seed in row["seeds"]],
        reference=f"{PLAN.reference_scores}/scores.parquet" if PLAN.reference_scores else [],
        timings=[f"{folder}/timing.json" for *_, folder in REPORT_TIMINGS],
        code=code("report", *METRIC_MODULES),
        templates=["src/resalign/report/page.html.j2", "src/resalign/report/style.html.j2"],
    output:
        page=f"{RESULT}/report.html",
        table=f"{RESULT}/tables/table1.csv",
        latex=f"{RESULT}/tables/table1.tex",
        record=f"{RESULT}/run.json",
    log:
        f"logs/report/{PLAN.experiment.config.name}.log",
    params:
        job=verbatim(report_job()),
        modules=METRIC_MODULES,
        folder=RESULT,
    threads: 1
    resources:
        mem_mb=3000,
        runtime=30,
    conda:
        "../../envs/report.yaml"
    shell:
        "python scripts/report.py --job {params.job:q} --threads {threads} --output {params.folder}"
        " --modules {params.modules} 2>&1 | tee {log}"
