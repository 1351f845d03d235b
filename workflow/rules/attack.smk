# One model fine-tuned on one data set with one training seed: its weights along the way.


rule attack:
    input:
        weights=lambda wildcards: jobs.parent_weights(run_of("attack", wildcards), wildcards.seed),
        assets=lambda wildcards: jobs.attack_assets(plan_of("attack", wildcards), wildcards.run),
        checked=lambda wildcards: own_inputs.record(plan_of("attack", wildcards), run_of("attack", wildcards).model),
        code=lambda wildcards: jobs.code("attack", *run_of("attack", wildcards).modules),
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
        gpu=RESOURCES["attack"].gpu,
        mem_mb=growing(RESOURCES["attack"].mem_mb),
        runtime=growing(RESOURCES["attack"].runtime_minutes),
    params:
        job=lambda wildcards: jobs.attack_job(plan_of("attack", wildcards), wildcards.run, wildcards.seed),
        modules=lambda wildcards: run_of("attack", wildcards).modules,
        folder=subpath(output.checkpoints, parent=True),
    shell:
        "python scripts/attack.py --job {params.job:q} --seed {wildcards.seed} --threads {threads}"
        " --limit-minutes {resources.runtime} --output {params.folder} --modules {params.modules} 2>&1 | tee {log}"
