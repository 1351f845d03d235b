# The images of one model state, or of all checkpoints of an attack. The images themselves lie beside the tiers, where
# no rule declares them, so that a larger tier extends what a smaller one has made.


def sample_source(wildcards):
    """The weights that are sampled: an attack's checkpoints, an unlearned model's weights, or the base model's own."""
    stage = PLAN.sample[wildcards.run]
    if stage.attack:
        return f"{stage.parent.folder(wildcards.seed)}/checkpoints.json"
    return parent_weights(stage, wildcards.seed)


def sample_job(wildcards):
    stage, config = PLAN.sample[wildcards.run], PLAN.experiment.config
    counts = config.tiers[wildcards.tier].prompts
    source = sample_source(wildcards) or None
    return as_json(
        {
            "label": f"{stage.label} seed {wildcards.seed}",
            "model": PLAN.folder(config.model),
            "weights": None if stage.attack else source,
            "checkpoints": source if stage.attack else None,
            "device": resources_of("sample").device,
            "sampling": config.sampling.model_dump(mode="json"),
            "prompts": {
                name: {
                    "path": PLAN.folder(prompts.source),
                    "columns": prompts.columns.model_dump(),
                    "along_the_way": prompts.along_the_way,
                    **counts[name].model_dump(),
                }
                for name, prompts in config.prompts.items()
            },
        }
    )


def sample_assets(wildcards):
    config = PLAN.experiment.config
    references = [config.model, *(prompts.source for prompts in config.prompts.values())]
    return sorted({file for reference in references for file in [marker(reference)] if file})


rule sample:
    input:
        weights=sample_source,
        assets=sample_assets,
        checked=CHECKED_INPUTS,
        code=code("sample"),
    output:
        images="results/runs/sample/{run}/seed-{seed}/{tier}/images.csv",
        record="results/runs/sample/{run}/seed-{seed}/{tier}/run.json",
        timing="results/runs/sample/{run}/seed-{seed}/{tier}/timing.json",
    log:
        "logs/sample/{run}/seed-{seed}.{tier}.log",
    params:
        job=sample_job,
        folder=subpath(output.images, parent=True),
    threads: resources_of("sample").threads
    resources:
        gpu=resources_of("sample").gpu,
        mem_mb=resources_of("sample").mem_mb,
        runtime=resources_of("sample").runtime_minutes,
    conda:
        "../../envs/sample.yaml"
    shell:
        "python scripts/sample.py --job {params.job:q} --seed {wildcards.seed} --threads {threads}"
        " --output {params.folder} 2>&1 | tee {log}"
