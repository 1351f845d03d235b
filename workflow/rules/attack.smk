# One model fine-tuned on one data set with one training seed: its weights along the way.


def parent_weights(stage, seed):
    """The unlearned weights that a run starts from; the base model has none of its own."""
    return f"{stage.parent.folder(seed)}/weights.safetensors" if stage.parent else []


def attack_job(wildcards):
    stage, config = PLAN.attack[wildcards.run], PLAN.experiment.config
    data = PLAN.experiment.attack_data[stage.attack]
    return as_json(
        {
            "label": stage.label,
            "attack": stage.resolved["attack"],
            "pixels": config.pixels,
            "device": resources_of("attack").device,
            "model": PLAN.folder(config.model),
            "weights": parent_weights(stage, wildcards.seed) or None,
            "train": PLAN.folder(data.train),
            "heldout": PLAN.folder(data.heldout),
        }
    )


def attack_assets(wildcards):
    data = PLAN.experiment.attack_data[PLAN.attack[wildcards.run].attack]
    references = [PLAN.experiment.config.model, data.train, data.heldout]
    return sorted({file for reference in references for file in [marker(reference)] if file})


rule attack:
    input:
        weights=lambda wildcards: parent_weights(PLAN.attack[wildcards.run], wildcards.seed),
        assets=attack_assets,
        checked=CHECKED_INPUTS,
        code=lambda wildcards: code("attack", *PLAN.attack[wildcards.run].modules),
    output:
        checkpoints="results/runs/attack/{run}/seed-{seed}/checkpoints.json",
        history="results/runs/attack/{run}/seed-{seed}/history.csv",
        record="results/runs/attack/{run}/seed-{seed}/run.json",
        timing="results/runs/attack/{run}/seed-{seed}/timing.json",
    log:
        "logs/attack/{run}/seed-{seed}.log",
    params:
        job=attack_job,
        modules=lambda wildcards: PLAN.attack[wildcards.run].modules,
        folder=subpath(output.checkpoints, parent=True),
    threads: resources_of("attack").threads
    resources:
        gpu=resources_of("attack").gpu,
        mem_mb=resources_of("attack").mem_mb,
        runtime=resources_of("attack").runtime_minutes,
    conda:
        "../../envs/attack.yaml"
    shell:
        "python scripts/attack.py --job {params.job:q} --seed {wildcards.seed} --threads {threads}"
        " --output {params.folder} --modules {params.modules} 2>&1 | tee {log}"
