# The demo world, made from scikit-learn's handwritten digits. Nothing downstream knows that it is small.

DIGITS = {asset.folder: asset for asset in PLAN.assets.values() if asset.origin == "digits"}
DIGITS_MODEL = [folder for folder, asset in DIGITS.items() if asset.resolved["digits"] == "model"]
AUTOENCODER = [f"{folder}-autoencoder" for folder in DIGITS_MODEL]


def digits_job(part, folder):
    """What scripts/digits.py needs to make one part; the model is trained in its own autoencoder's latent space."""
    world = PLAN.experiment.config.digits.model_dump(mode="json")
    return as_json({"part": part, "digits": world, "autoencoder": f"{folder}-autoencoder" if part == "model" else None})


def digits_code(part):
    """The code that makes one part: its own module's closure, so that editing a detector retrains no generator."""
    modules = {"data": "datasets", "autoencoder": "autoencoder", "model": "generator", "clip": "clip"}
    name = modules.get(part, "detectors")
    return ["scripts/digits.py", *(str(path) for path in import_closure("resalign.stage", f"resalign.digits.{name}"))]


for folder, asset in DIGITS.items():
    part = asset.resolved["digits"]

    rule:
        name:
            f"digits_{part.replace('-', '_')}"
        input:
            autoencoder=f"{folder}-autoencoder/run.json" if part == "model" else [],
            code=digits_code(part),
        output:
            f"{folder}/run.json",
            f"{folder}/timing.json",
        log:
            f"logs/digits/{asset.name}.log",
        params:
            job=verbatim(digits_job(part, folder)),
            modules=f"resalign.digits.{'generator' if part == 'model' else 'config'}",
            folder=folder,
        # The model is the longest path of the demo: it goes first, so that the rest fills the other core.
        priority: 10 if part == "model" else 0
        threads: 1
        resources:
            mem_mb=3000,
            runtime=20,
        conda:
            "../../envs/data.yaml"
        shell:
            "python {input.code[0]} --job {params.job:q} --threads {threads} --output {params.folder}"
            " --modules {params.modules} 2>&1 | tee {log}"


for folder in AUTOENCODER:

    rule:
        name:
            "digits_autoencoder"
        input:
            code=digits_code("autoencoder"),
        output:
            f"{folder}/run.json",
            f"{folder}/timing.json",
        log:
            "logs/digits/autoencoder.log",
        params:
            job=verbatim(digits_job("autoencoder", folder)),
            folder=folder,
        priority: 10
        threads: 1
        resources:
            mem_mb=3000,
            runtime=20,
        conda:
            "../../envs/data.yaml"
        shell:
            "python {input.code[0]} --job {params.job:q} --threads {threads} --output {params.folder} 2>&1 | tee {log}"


# Not part of the demo: `snakemake --cores 2 --configfile config/demo.yaml -- digits_bars` remakes what is missing,
# retrains nothing that is there, and fails if the world is not good enough to experiment on.
def bars_inputs():
    """The untouched model's scores and the reference images' scores."""
    base = next(stage for stage in PLAN.score.values() if stage.model == "base" and stage.attack is None)
    return {
        "scores": f"{base.folder(PLAN.seeds(base)[0])}/{TIER}/scores.parquet",
        "reference": f"{PLAN.reference_scores}/scores.parquet",
    }


if DIGITS and PLAN.reference_scores and {"ip", "retained_accuracy"} <= set(PLAN.experiment.metrics):

    rule digits_bars:
        input:
            **bars_inputs(),
            code=code("digits_bars"),
        output:
            f"results/{PLAN.experiment.config.name}/bars.json",
        log:
            "logs/digits/bars.log",
        params:
            job=verbatim(
                as_json(
                    {
                        **bars_inputs(),
                        "ip": PLAN.experiment.metrics["ip"].config.model_dump(mode="json"),
                        "retained_accuracy": PLAN.experiment.metrics["retained_accuracy"].config.model_dump(mode="json"),
                        "detectors": {
                            asset.resolved["digits"]: folder
                            for folder, asset in DIGITS.items()
                            if asset.resolved["digits"] not in ("data", "model", "clip")
                        },
                    }
                )
            ),
            folder=subpath(output[0], parent=True),
        threads: 1
        resources:
            mem_mb=1000,
            runtime=10,
        conda:
            "../../envs/report.yaml"
        shell:
            "python scripts/digits_bars.py --job {params.job:q} --output {params.folder} 2>&1 | tee {log}"
