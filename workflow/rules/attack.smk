# One model fine-tuned on one data set with one training seed: its weights along the way.


rule attack:
    input:
        weights=lambda wildcards: jobs.parent_weights(PLAN.attack[wildcards.run], wildcards.seed),
        assets=lambda wildcards: jobs.attack_assets(PLAN, wildcards.run),
        checked=lambda wildcards: own_inputs.record(PLAN, PLAN.attack[wildcards.run].model),
        code=lambda wildcards: jobs.code("attack", *PLAN.attack[wildcards.run].modules),
    output:
        checkpoints="results/runs/attack/{run}/seed-{seed}/checkpoints.json",
        history="results/runs/attack/{run}/seed-{seed}/history.csv",
        data="results/runs/attack/{run}/seed-{seed}/data.json",
        record="results/runs/attack/{run}/seed-{seed}/run.json",
        timing="results/runs/attack/{run}/seed-{seed}/timing.json",
    log:
        "logs/attack/{run}/seed-{seed}.log",
    conda:
        "../../envs/attack.yaml"
    threads: RESOURCES["attack"].threads
    resources:
        gpu=RESOURCES["attack"].gpu,
        mem_mb=growing(RESOURCES["attack"].mem_mb),
        runtime=growing(RESOURCES["attack"].runtime_minutes),
    params:
        job=lambda wildcards: jobs.attack_job(PLAN, wildcards.run, wildcards.seed),
        modules=lambda wildcards: PLAN.attack[wildcards.run].modules,
        folder=subpath(output.checkpoints, parent=True),
    shell:
        "python scripts/attack.py --job {params.job:q} --seed {wildcards.seed} --threads {threads}"
        " --limit-minutes {resources.runtime} --output {params.folder} --modules {params.modules} 2>&1 | tee {log}"
