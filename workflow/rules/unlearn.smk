from resalign.jobs.unlearn import UnlearnJob

# One model and one training seed: the weights that a method changed.
unlearn_job = planned_job(UnlearnJob.of, "unlearn", "run")


rule unlearn:
    input:
        lambda wildcards: unlearn_job(wildcards).inputs(),
        checked=lambda wildcards: checked_inputs("unlearn", wildcards),
        code=lambda wildcards: code("unlearn", *run_of("unlearn", wildcards).modules),
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
        **resources_of("unlearn"),
    params:
        job=lambda wildcards: unlearn_job(wildcards).text(),
        modules=lambda wildcards: run_of("unlearn", wildcards).modules,
        folder=subpath(output.weights, parent=True),
    shell:
        "python scripts/unlearn.py --job {params.job:q} --seed {wildcards.seed} --threads {threads}"
        " --limit-minutes {resources.runtime} --output {params.folder} --modules {params.modules} 2>&1 | tee {log}"
