# Raw scores of every image; thresholds are applied when tables are made.


rule score:
    input:
        images=lambda wildcards: jobs.score_images(plan_of("score", wildcards), **wildcards),
        assets=lambda wildcards: jobs.scorer_assets(plan_of("score", wildcards)),
        code=lambda wildcards: jobs.code("score", *plan_of("score", wildcards).scorer_modules),
    output:
        scores="results/runs/score/{run}/seed-{seed}/{tier}/scores.parquet",
        record="results/runs/score/{run}/seed-{seed}/{tier}/run.json",
        timing="results/runs/score/{run}/seed-{seed}/{tier}/timing.json",
    log:
        "logs/score/{run}/seed-{seed}.{tier}.log",
    wildcard_constraints:
        run=own("score"),
    conda:
        "../../envs/resalign.yaml"
    threads: RESOURCES["score"].threads
    resources:
        gpu=RESOURCES["score"].gpu,
        mem_mb=growing(RESOURCES["score"].mem_mb),
        runtime=growing(RESOURCES["score"].runtime_minutes),
    params:
        job=lambda wildcards, input: jobs.score_job(
            plan_of("score", wildcards), f"{run_of('score', wildcards).label} seed {wildcards.seed}", input.images
        ),
        modules=lambda wildcards: plan_of("score", wildcards).scorer_modules,
        folder=subpath(output.scores, parent=True),
    shell:
        "python scripts/score.py --job {params.job:q} --seed {wildcards.seed} --threads {threads}"
        " --limit-minutes {resources.runtime} --output {params.folder} --modules {params.modules} 2>&1 | tee {log}"


# Real images that metrics compare with, each set scored once by the same networks.


rule score_reference:
    input:
        images=lambda wildcards: jobs.markers(reference_of(wildcards)[0], reference_of(wildcards)[1:]),
        assets=lambda wildcards: jobs.scorer_assets(reference_of(wildcards)[0]),
        code=lambda wildcards: jobs.code("score", *reference_of(wildcards)[0].scorer_modules),
    output:
        scores="results/runs/score/{reference}/scores.parquet",
        record="results/runs/score/{reference}/run.json",
        timing="results/runs/score/{reference}/timing.json",
    log:
        "logs/score/{reference}.log",
    wildcard_constraints:
        reference=own("reference"),
    conda:
        "../../envs/resalign.yaml"
    threads: RESOURCES["score"].threads
    resources:
        gpu=RESOURCES["score"].gpu,
        mem_mb=growing(RESOURCES["score"].mem_mb),
        runtime=growing(RESOURCES["score"].runtime_minutes),
    params:
        job=lambda wildcards: jobs.reference_job(*reference_of(wildcards)),
        modules=lambda wildcards: reference_of(wildcards)[0].scorer_modules,
        folder=subpath(output[0], parent=True),
    shell:
        "python scripts/score.py --job {params.job:q} --threads {threads}"
        " --limit-minutes {resources.runtime} --output {params.folder} --modules {params.modules} 2>&1 | tee {log}"
