from resalign.jobs.score import ScoreJob

# Raw scores of every image; thresholds are applied when tables are made.
score_job = planned_job(ScoreJob.of, "score", "run", "seed", "tier")


rule score:
    input:
        lambda wildcards: score_job(wildcards).inputs(),
        code=lambda wildcards: code("score", *plan_of("score", wildcards).scorer_modules),
    output:
        scores="results/runs/score/{run}/seed-{seed}/{tier}/scores.parquet",
        record="results/runs/score/{run}/seed-{seed}/{tier}/run.json",
        timing="results/runs/score/{run}/seed-{seed}/{tier}/timing.json",
    log:
        "logs/score/{run}/seed-{seed}.{tier}.log",
    wildcard_constraints:
        run=own("score"),
    priority: 1 if PLAN.experiment.config.keep_images != "all" else 0  # images that go make room for others
    conda:
        "../../envs/resalign.yaml"
    threads: RESOURCES["score"].threads
    resources:
        **resources_of("score"),
    params:
        job=lambda wildcards: score_job(wildcards).text(),
        modules=lambda wildcards: plan_of("score", wildcards).scorer_modules,
        folder=subpath(output.scores, parent=True),
    shell:
        "python scripts/score.py --job {params.job:q} --seed {wildcards.seed} --threads {threads}"
        " --limit-minutes {resources.runtime} --output {params.folder} --modules {params.modules} 2>&1 | tee {log}"


# Real images that metrics compare with, each set scored once by the same networks.
reference_job = planned_job(ScoreJob.of_reference, "reference", "reference")
reference_modules = planned_job(lambda plan, run: plan.scorer_modules, "reference", "reference")


rule score_reference:
    input:
        lambda wildcards: reference_job(wildcards).inputs(),
        code=lambda wildcards: code("score", *reference_modules(wildcards)),
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
        **resources_of("score"),
    params:
        job=lambda wildcards: reference_job(wildcards).text(),
        modules=reference_modules,
        folder=subpath(output[0], parent=True),
    shell:
        "python scripts/score.py --job {params.job:q} --threads {threads}"
        " --limit-minutes {resources.runtime} --output {params.folder} --modules {params.modules} 2>&1 | tee {log}"
