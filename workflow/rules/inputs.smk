# Folders and files of the user's own are checked before any long work; the demo has none.


def own(reference):
    """Whether a reference names something of the user's own that lies in place."""
    return PLAN.assets[PLAN.asset_of(reference)].origin == "path"


def inputs_job():
    """Everything of the user's own, by what it must be."""
    config, attacks = PLAN.experiment.config, PLAN.experiment.attack_data.values()
    images = [config.concept.forget, config.concept.retain, config.concept.pool]
    images += [reference for data in attacks for reference in (data.train, data.heldout)]
    images += [config.reference] if config.reference else []
    released = [m.config.checkpoint for m in PLAN.experiment.unlearning.values() if m.name == "imported"]
    counts = PLAN.experiment.tier.prompts
    return {
        "pixels": config.pixels,
        "pipelines": [PLAN.folder(config.model)] if own(config.model) else [],
        "images": sorted({PLAN.folder(reference) for reference in images if own(reference)}),
        "prompts": [
            [PLAN.folder(prompts.source), counts[name].prompts, prompts.columns.model_dump()]
            for name, prompts in config.prompts.items()
            if own(prompts.source)
        ],
        # A checkpoint's shapes can be held against the model's only where both are here already.
        "checkpoints": [
            [PLAN.folder(reference), PLAN.folder(config.model)] for reference in released if own(reference) and own(config.model)
        ],
    }


INPUTS = inputs_job()
HAS_OWN_INPUTS = any(INPUTS[kind] for kind in ("pipelines", "images", "prompts", "checkpoints"))
CHECKED_INPUTS = f"results/{PLAN.experiment.config.name}/inputs.json" if HAS_OWN_INPUTS else []


if HAS_OWN_INPUTS:

    rule check_inputs:
        input:
            files=[path for path, *_ in INPUTS["prompts"] if os.path.isfile(path)],
            code=code("check_inputs"),
        output:
            CHECKED_INPUTS,
        log:
            "logs/check_inputs.log",
        params:
            job=verbatim(as_json(INPUTS)),
            folder=subpath(output[0], parent=True),
        threads: 1
        conda:
            "../../envs/data.yaml"
        shell:
            "python scripts/check_inputs.py --job {params.job:q} --output {params.folder} 2>&1 | tee {log}"
