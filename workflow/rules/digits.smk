# The demo world, made from scikit-learn's handwritten digits. Nothing downstream knows that it is small.

DIGITS = {asset.folder: asset for asset in PLAN.assets.values() if asset.origin == "digits"}
DIGITS_MODEL = [folder for folder, asset in DIGITS.items() if asset.resolved["digits"] == "model"]
AUTOENCODER = [f"{folder}-autoencoder" for folder in DIGITS_MODEL]


def digits_job(part, **others):
    """What scripts/digits.py needs to make one part."""
    world = PLAN.experiment.config.digits.model_dump(mode="json")
    return as_json({"part": part, "digits": world, **others})


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
            job=verbatim(digits_job(part, autoencoder=f"{folder}-autoencoder")),
            modules=f"resalign.digits.{'generator' if part == 'model' else 'config'}",
            folder=folder,
        threads: 2 if part == "model" else 1
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
            job=verbatim(digits_job("autoencoder")),
            folder=folder,
        threads: 1
        resources:
            mem_mb=3000,
            runtime=20,
        conda:
            "../../envs/data.yaml"
        shell:
            "python {input.code[0]} --job {params.job:q} --threads {threads} --output {params.folder} 2>&1 | tee {log}"
