# One model and one training seed: the weights that a method changed.


rule unlearn:
    input:
        assets=lambda wildcards: jobs.unlearn_assets(plan_of("unlearn", wildcards), wildcards.run),
        checked=lambda wildcards: own_inputs.record(plan_of("unlearn", wildcards), run_of("unlearn", wildcards).model),
        code=lambda wildcards: jobs.code("unlearn", *run_of("unlearn", wildcards).modules),
    output:
        weights="results/runs/unlearn/{run}/seed-{seed}/weights.safetensors",
        history="results/runs/unlearn/{run}/seed-{seed}/history.csv",
        record="results/runs/unlearn/{run}/seed-{seed}/run.json",
        timing="results/runs/unlearn/{run}/seed-{seed}/timing.json",
    log:
        "logs/unlearn/{run}/seed-{seed}.log",
    wildcard_constraints:
        run=own("unlearn"),
    conda:
        "../../envs/resalign.yaml"
    threads: RESOURCES["unlearn"].threads
    resources:
        gpu=RESOURCES["unlearn"].gpu,
        mem_mb=growing(RESOURCES["unlearn"].mem_mb),
        runtime=growing(RESOURCES["unlearn"].runtime_minutes),
    params:
        job=lambda wildcards: jobs.unlearn_job(plan_of("unlearn", wildcards), wildcards.run),
        modules=lambda wildcards: run_of("unlearn", wildcards).modules,
        folder=subpath(output.weights, parent=True),
    shell:
        "python scripts/unlearn.py --job {params.job:q} --seed {wildcards.seed} --threads {threads}"
        " --limit-minutes {resources.runtime} --output {params.folder} --modules {params.modules} 2>&1 | tee {log}"
