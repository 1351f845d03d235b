# What attacks train on, compared with what is held out of them, with unlearning's images and with evaluation.
from resalign.jobs import overlap

OVERLAP = overlap.folder(PLAN)

if OVERLAP:

    rule overlap:
        input:
            overlap.OverlapJob.of(PLAN).inputs(),
            code=code("overlap"),
        output:
            found=f"{OVERLAP}/overlap.json",
            record=f"{OVERLAP}/run.json",
            timing=f"{OVERLAP}/timing.json",
        log:
            f"logs/overlap/{Path(OVERLAP).name}.log",
        # Before any training that could run as well, so that a refusal comes at once.
        priority: 100
        conda:
            "../../envs/resalign.yaml"
        threads: 1
        resources:
            mem_mb=per_attempt(3000),
            runtime=per_attempt(60),
        params:
            job=literal_param(overlap.OverlapJob.of(PLAN).text()),
            folder=subpath(output.found, parent=True),
        shell:
            "python scripts/overlap.py --job - --threads {threads} --output {params.folder}"
            " <<< {params.job:q} 2>&1 | tee {log}"
