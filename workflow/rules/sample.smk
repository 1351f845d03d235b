# The images of one model state, or of all checkpoints of an attack. The images themselves lie beside the tiers, where
# no rule declares them, so that a larger tier extends what a smaller one has made.


rule sample:
    input:
        weights=lambda wildcards: jobs.parent_weights(run_of("sample", wildcards), wildcards.seed),
        assets=lambda wildcards: jobs.sample_assets(plan_of("sample", wildcards), wildcards.run),
        checked=lambda wildcards: own_inputs.record(plan_of("sample", wildcards), run_of("sample", wildcards).model),
        code=jobs.code("sample"),
    output:
        images="results/runs/sample/{run}/seed-{seed}/{tier}/images.csv",
        record="results/runs/sample/{run}/seed-{seed}/{tier}/run.json",
        timing="results/runs/sample/{run}/seed-{seed}/{tier}/timing.json",
    log:
        "logs/sample/{run}/seed-{seed}.{tier}.log",
    wildcard_constraints:
        run=own("sample"),
    conda:
        "../../envs/resalign.yaml"
    threads: RESOURCES["sample"].threads
    resources:
        gpu=RESOURCES["sample"].gpu,
        mem_mb=growing(RESOURCES["sample"].mem_mb),
        runtime=growing(RESOURCES["sample"].runtime_minutes),
    params:
        job=lambda wildcards: jobs.sample_job(plan_of("sample", wildcards), **wildcards),
        folder=subpath(output.images, parent=True),
    shell:
        "python scripts/sample.py --job {params.job:q} --seed {wildcards.seed} --threads {threads}"
        " --limit-minutes {resources.runtime} --output {params.folder} 2>&1 | tee {log}"
