# One model and one training seed: the weights that a method changed.


rule unlearn:
    input:
        assets=lambda wildcards: jobs.unlearn_assets(PLAN, wildcards.run),
        checked=lambda wildcards: own_inputs.record(PLAN, PLAN.unlearn[wildcards.run].model),
        code=lambda wildcards: jobs.code("unlearn", *PLAN.unlearn[wildcards.run].modules),
    output:
        weights="results/runs/unlearn/{run}/seed-{seed}/weights.safetensors",
        history="results/runs/unlearn/{run}/seed-{seed}/history.csv",
        record="results/runs/unlearn/{run}/seed-{seed}/run.json",
        timing="results/runs/unlearn/{run}/seed-{seed}/timing.json",
    log:
        "logs/unlearn/{run}/seed-{seed}.log",
    conda:
        "../../envs/unlearn.yaml"
    threads: RESOURCES["unlearn"].threads
    resources:
        gpu=RESOURCES["unlearn"].gpu,
        mem_mb=growing(RESOURCES["unlearn"].mem_mb),
        runtime=growing(RESOURCES["unlearn"].runtime_minutes),
    params:
        job=lambda wildcards: jobs.unlearn_job(PLAN, wildcards.run),
        modules=lambda wildcards: PLAN.unlearn[wildcards.run].modules,
        folder=subpath(output.weights, parent=True),
    shell:
        "python scripts/unlearn.py --job {params.job:q} --seed {wildcards.seed} --threads {threads}"
        " --limit-minutes {resources.runtime} --output {params.folder} --modules {params.modules} 2>&1 | tee {log}"
