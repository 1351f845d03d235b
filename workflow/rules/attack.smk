from resalign.jobs.attack import AttackJob

# One model fine-tuned on one data set with one training seed: its weights along the way.
attack_job = planned_job(AttackJob.of, "attack", "run", "seed")


rule attack:
    input:
        lambda wildcards: attack_job(wildcards).inputs(),
        checked=lambda wildcards: checked_inputs("attack", wildcards),
        code=lambda wildcards: code("attack", *run_of("attack", wildcards).modules),
    output:
        checkpoints="results/runs/attack/{run}/seed-{seed}/checkpoints.json",
        history="results/runs/attack/{run}/seed-{seed}/history.csv",
        data="results/runs/attack/{run}/seed-{seed}/data.json",
        record="results/runs/attack/{run}/seed-{seed}/run.json",
        timing="results/runs/attack/{run}/seed-{seed}/timing.json",
    log:
        "logs/attack/{run}/seed-{seed}.log",
    wildcard_constraints:
        run=own("attack"),
    conda:
        "../../envs/resalign.yaml"
    threads: RESOURCES["attack"].threads
    resources:
        **resources_of("attack"),
    params:
        job=lambda wildcards: attack_job(wildcards).text(),
        modules=lambda wildcards: run_of("attack", wildcards).modules,
        folder=subpath(output.checkpoints, parent=True),
    shell:
        "python scripts/attack.py --job {params.job:q} --seed {wildcards.seed} --threads {threads}"
        " --limit-minutes {resources.runtime} --output {params.folder} --modules {params.modules} 2>&1 | tee {log}"
