from resalign.jobs.sample import SampleJob

# The images of one model state, or of all checkpoints of an attack. The images themselves lie beside the tiers, where
# no rule declares them, so that a larger tier extends what a smaller one has made.
sample_job = planned_job(SampleJob.of, "sample", "run", "seed", "tier")


rule sample:
    input:
        lambda wildcards: sample_job(wildcards).inputs(),
        checked=lambda wildcards: checked_inputs("sample", wildcards),
        code=code("sample"),
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
        **resources_of("sample"),
    params:
        job=lambda wildcards: sample_job(wildcards).text(),
        folder=subpath(output.images, parent=True),
    shell:
        "python scripts/sample.py --job {params.job:q} --seed {wildcards.seed} --threads {threads}"
        " --limit-minutes {resources.runtime} --output {params.folder} 2>&1 | tee {log}"
