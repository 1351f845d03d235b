from resalign.jobs.digits import BarsJob, DigitsJob, digits_parts

# The demo world, made from scikit-learn's handwritten digits. Nothing downstream knows that it is small.

DIGITS = {folder: DigitsJob.of(PLAN, folder) for folder in digits_parts(PLAN)}

for folder, digits in DIGITS.items():

    rule:
        name:
            f"digits_{digits.part.removeprefix('digits-').replace('-', '_')}"
        input:
            digits.inputs(),
            code=digits.code(),
        output:
            f"{folder}/run.json",
            f"{folder}/timing.json",
        log:
            f"logs/{folder}.log",
        # The model is the longest path of the demo: it goes first, so that the rest fills the other core.
        priority: 10 if digits.part in ("autoencoder", "model") else 0
        conda:
            "../../envs/resalign.yaml"
        threads: 1
        resources:
            mem_mb=per_attempt(3000),
            runtime=per_attempt(20),
        params:
            job=literal_param(digits.text()),
            modules=digits.module,
            folder=subpath(output[0], parent=True),
        shell:
            "python scripts/digits.py --job {params.job:q} --threads {threads}"
            " --limit-minutes {resources.runtime} --output {params.folder}"
            " --modules {params.modules} 2>&1 | tee {log}"


# No part of the demo: `snakemake --cores 2 --configfile config/demo.yaml -- digits_bars` holds the world against its
# bars and fails if it is not good enough to experiment on.
if DIGITS and PLAN.experiment.config.reference and {"ip", "retained_accuracy"} <= set(PLAN.experiment.metrics):

    rule digits_bars:
        input:
            BarsJob.of(PLAN).inputs(),
            code=code("digits_bars"),
        output:
            f"results/{PLAN.experiment.config.name}/bars.json",
        log:
            "logs/digits_bars.log",
        conda:
            "../../envs/resalign.yaml"
        threads: 1
        resources:
            mem_mb=per_attempt(1000),
            runtime=per_attempt(10),
        params:
            job=literal_param(BarsJob.of(PLAN).text()),
            folder=subpath(output[0], parent=True),
        shell:
            "python scripts/digits_bars.py --job {params.job:q} --output {params.folder} 2>&1 | tee {log}"
