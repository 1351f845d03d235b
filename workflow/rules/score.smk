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


# Real images that metrics compare with, each set scored once by the same networks.
REFERENCES = {Path(folder).name: reference for folder, reference in PLAN.references.items()}


rule score_reference:
    input:
        images=lambda wildcards: jobs.markers(PLAN, [REFERENCES[wildcards.reference]]),
        assets=jobs.scorer_assets(PLAN),
        code=jobs.code("score", *PLAN.scorer_modules),
    output:
        scores="results/runs/score/{reference}/scores.parquet",
        record="results/runs/score/{reference}/run.json",
        timing="results/runs/score/{reference}/timing.json",
    log:
        "logs/score/{reference}.log",
    conda:
        "../../envs/score.yaml"
    threads: RESOURCES["score"].threads
    resources:
        gpu=RESOURCES["score"].gpu,
        mem_mb=growing(RESOURCES["score"].mem_mb),
        runtime=growing(RESOURCES["score"].runtime_minutes),
    params:
        job=lambda wildcards: jobs.reference_job(PLAN, REFERENCES[wildcards.reference]),
        modules=PLAN.scorer_modules,
        folder=subpath(output[0], parent=True),
    shell:
        "python scripts/score.py --job {params.job:q} --threads {threads}"
        " --limit-minutes {resources.runtime} --output {params.folder} --modules {params.modules} 2>&1 | tee {log}"
