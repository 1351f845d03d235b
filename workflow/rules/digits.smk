# The demo world, made from scikit-learn's handwritten digits. Nothing downstream knows that it is small.

DIGITS = jobs.digits_parts(PLAN)

for folder, part in DIGITS.items():

    rule:
        name:
            f"digits_{part.removeprefix('digits-').replace('-', '_')}"
        input:
            autoencoder=f"{jobs.autoencoder_of(folder)}/run.json" if part == "model" else [],
            code=jobs.digits_code(part),
        output:
            f"{folder}/run.json",
            f"{folder}/timing.json",
        log:
            f"logs/{folder}.log",
        # The model is the longest path of the demo: it goes first, so that the rest fills the other core.
        priority: 10 if part in ("autoencoder", "model") else 0
        conda:
            "../../envs/resalign.yaml"
        threads: 1
        resources:
            mem_mb=growing(3000),
            runtime=growing(20),
        params:
            job=verbatim(jobs.digits_job(PLAN, folder)),
            modules=f"resalign.digits.{jobs.DIGITS_MODULES.get(part, 'detectors')}",
            folder=subpath(output[0], parent=True),
        shell:
            "python {input.code[0]} --job {params.job:q} --threads {threads}"
            " --limit-minutes {resources.runtime} --output {params.folder}"
            " --modules {params.modules} 2>&1 | tee {log}"


# No part of the demo: `snakemake --cores 2 --configfile config/demo.yaml -- digits_bars` holds the world against its
# bars and fails if it is not good enough to experiment on.
if DIGITS and PLAN.experiment.config.reference and {"ip", "retained_accuracy"} <= set(PLAN.experiment.metrics):

    rule digits_bars:
        input:
            **jobs.bars_files(PLAN),
            code=jobs.code("digits_bars"),
        output:
            f"results/{PLAN.experiment.config.name}/bars.json",
        log:
            "logs/digits_bars.log",
        conda:
            "../../envs/resalign.yaml"
        threads: 1
        resources:
            mem_mb=growing(1000),
            runtime=growing(10),
        params:
            job=verbatim(jobs.bars_job(PLAN)),
            folder=subpath(output[0], parent=True),
        shell:
            "python scripts/digits_bars.py --job {params.job:q} --output {params.folder} 2>&1 | tee {log}"
