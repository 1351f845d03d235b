# Raw scores of every image; thresholds are applied when tables are made.


def score_job(label, images):
    scorers = PLAN.experiment.scorers
    return as_json(
        {
            "label": label,
            "images": images,
            "device": resources_of("score").device,
            "scorers": {
                name: {
                    "settings": scorer.resolved(),
                    # None where the network ships in a package
                    "folder": PLAN.folder(scorer.asset) if scorer.asset else None,
                }
                for name, scorer in scorers.items()
            },
        }
    )


SCORER_ASSETS = sorted(
    {file for scorer in PLAN.experiment.scorers.values() if scorer.asset for file in [marker(scorer.asset)] if file}
)


rule score:
    input:
        images=lambda wildcards: f"{PLAN.score[wildcards.run].parent.folder(wildcards.seed)}/{wildcards.tier}/images.csv",
        assets=SCORER_ASSETS,
        code=code("score", *PLAN.scorer_modules),
    output:
        scores="results/runs/score/{run}/seed-{seed}/{tier}/scores.parquet",
        record="results/runs/score/{run}/seed-{seed}/{tier}/run.json",
        timing="results/runs/score/{run}/seed-{seed}/{tier}/timing.json",
    log:
        "logs/score/{run}/seed-{seed}.{tier}.log",
    params:
        job=lambda wildcards, input: score_job(f"{PLAN.score[wildcards.run].label} seed {wildcards.seed}", input.images),
        modules=PLAN.scorer_modules,
        folder=subpath(output.scores, parent=True),
    threads: resources_of("score").threads
    resources:
        gpu=resources_of("score").gpu,
        mem_mb=resources_of("score").mem_mb,
        runtime=resources_of("score").runtime_minutes,
    conda:
        "../../envs/score.yaml"
    shell:
        "python scripts/score.py --job {params.job:q} --seed {wildcards.seed} --threads {threads}"
        " --output {params.folder} --modules {params.modules} 2>&1 | tee {log}"


# The real images that FID and KID compare with, scored once by the same networks.
if PLAN.reference_scores:

    rule score_reference:
        input:
            images=marker(PLAN.experiment.config.reference),
            assets=SCORER_ASSETS,
            code=code("score", *PLAN.scorer_modules),
        output:
            scores=f"{PLAN.reference_scores}/scores.parquet",
            record=f"{PLAN.reference_scores}/run.json",
            timing=f"{PLAN.reference_scores}/timing.json",
        log:
            "logs/score/reference.log",
        params:
            job=verbatim(score_job("reference", f"{PLAN.folder(PLAN.experiment.config.reference)}/metadata.csv")),
            modules=PLAN.scorer_modules,
            folder=PLAN.reference_scores,
        threads: resources_of("score").threads
        resources:
            gpu=resources_of("score").gpu,
            mem_mb=resources_of("score").mem_mb,
            runtime=resources_of("score").runtime_minutes,
        conda:
            "../../envs/score.yaml"
        shell:
            "python scripts/score.py --job {params.job:q} --threads {threads}"
            " --output {params.folder} --modules {params.modules} 2>&1 | tee {log}"
