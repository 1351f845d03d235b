# Raw scores of every image; thresholds are applied when tables are made.


rule score:
    input:
        images=lambda wildcards: jobs.score_images(PLAN, **wildcards),
        assets=jobs.scorer_assets(PLAN),
        code=jobs.code("score", *PLAN.scorer_modules),
    output:
        scores="results/runs/score/{run}/seed-{seed}/{tier}/scores.parquet",
        record="results/runs/score/{run}/seed-{seed}/{tier}/run.json",
        timing="results/runs/score/{run}/seed-{seed}/{tier}/timing.json",
    log:
        "logs/score/{run}/seed-{seed}.{tier}.log",
    conda:
        "../../envs/score.yaml"
    threads: RESOURCES["score"].threads
    resources:
        gpu=RESOURCES["score"].gpu,
        mem_mb=growing(RESOURCES["score"].mem_mb),
        runtime=growing(RESOURCES["score"].runtime_minutes),
    params:
        job=lambda wildcards, input: jobs.score_job(
            PLAN, f"{PLAN.score[wildcards.run].label} seed {wildcards.seed}", input.images
        ),
        modules=PLAN.scorer_modules,
        folder=subpath(output.scores, parent=True),
    shell:
        "python scripts/score.py --job {params.job:q} --seed {wildcards.seed} --threads {threads}"
        " --limit-minutes {resources.runtime} --output {params.folder} --modules {params.modules} 2>&1 | tee {log}"


# The real images that FID and KID compare with, scored once by the same networks.
if PLAN.reference_scores:

    rule score_reference:
        input:
            images=jobs.markers(PLAN, [PLAN.experiment.config.reference]),
            assets=jobs.scorer_assets(PLAN),
            code=jobs.code("score", *PLAN.scorer_modules),
        output:
            scores=f"{PLAN.reference_scores}/scores.parquet",
            record=f"{PLAN.reference_scores}/run.json",
            timing=f"{PLAN.reference_scores}/timing.json",
        log:
            "logs/score/reference.log",
        conda:
            "../../envs/score.yaml"
        threads: RESOURCES["score"].threads
        resources:
            gpu=RESOURCES["score"].gpu,
            mem_mb=growing(RESOURCES["score"].mem_mb),
            runtime=growing(RESOURCES["score"].runtime_minutes),
        params:
            job=verbatim(
                jobs.score_job(
                    PLAN,
                    "reference",
                    f"{PLAN.folder(PLAN.experiment.config.reference)}/metadata.csv",
                    PLAN.experiment.config.pixels,
                )
            ),
            modules=PLAN.scorer_modules,
            folder=subpath(output[0], parent=True),
        shell:
            "python scripts/score.py --job {params.job:q} --threads {threads}"
            " --limit-minutes {resources.runtime} --output {params.folder} --modules {params.modules} 2>&1 | tee {log}"
