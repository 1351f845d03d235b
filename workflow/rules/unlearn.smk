# One model and one training seed: the weights that a method changed.


def unlearn_job(wildcards):
    stage, config = PLAN.unlearn[wildcards.run], PLAN.experiment.config
    released = stage.resolved.get("checkpoint") and PLAN.folder(stage.resolved["method"]["checkpoint"])
    return as_json(
        {
            "label": stage.label,
            "method": stage.resolved["method"],
            "prompts": config.concept.prompts,
            "pixels": config.pixels,
            "device": resources_of("unlearn").device,
            "checkpoint": released,
            "model": PLAN.folder(config.model),
            **{name: PLAN.folder(getattr(config.concept, name)) for name in ("forget", "retain", "pool")},
        }
    )


def unlearn_assets(wildcards):
    concept, method = PLAN.experiment.config.concept, PLAN.unlearn[wildcards.run].resolved["method"]
    references = [PLAN.experiment.config.model, concept.forget, concept.retain, concept.pool]
    if "checkpoint" in method:
        references.append(method["checkpoint"])
    return sorted({file for reference in references for file in [marker(reference)] if file})


rule unlearn:
    input:
        assets=unlearn_assets,
        checked=CHECKED_INPUTS,
        code=lambda wildcards: code("unlearn", *PLAN.unlearn[wildcards.run].modules),
    output:
        weights="results/runs/unlearn/{run}/seed-{seed}/weights.safetensors",
        history="results/runs/unlearn/{run}/seed-{seed}/history.csv",
        record="results/runs/unlearn/{run}/seed-{seed}/run.json",
        timing="results/runs/unlearn/{run}/seed-{seed}/timing.json",
    log:
        "logs/unlearn/{run}/seed-{seed}.log",
    params:
        job=unlearn_job,
        modules=lambda wildcards: PLAN.unlearn[wildcards.run].modules,
        folder=subpath(output.weights, parent=True),
    threads: resources_of("unlearn").threads
    resources:
        gpu=resources_of("unlearn").gpu,
        mem_mb=resources_of("unlearn").mem_mb,
        runtime=resources_of("unlearn").runtime_minutes,
    conda:
        "../../envs/unlearn.yaml"
    shell:
        "python scripts/unlearn.py --job {params.job:q} --seed {wildcards.seed} --threads {threads}"
        " --output {params.folder} --modules {params.modules} 2>&1 | tee {log}"
