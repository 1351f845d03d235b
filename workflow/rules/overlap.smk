# What attacks train on, compared with what is held out of them, with unlearning's images and with evaluation.
from resalign.jobs import overlap

OVERLAP = overlap.folder(PLAN)

if OVERLAP:

    rule overlap:
        input:
            assets=jobs.markers(PLAN, overlap.references(PLAN)),
            code=jobs.code("overlap"),
        output:
            found=f"{OVERLAP}/overlap.json",
            record=f"{OVERLAP}/run.json",
            timing=f"{OVERLAP}/timing.json",
        log:
            f"logs/overlap/{Path(OVERLAP).name}.log",
        # Before any training that could run as well: what is refused is to be said at once.
        priority: 100
        conda:
            "../../envs/resalign.yaml"
        threads: 1
        resources:
            mem_mb=growing(3000),
            runtime=growing(60),
        params:
            job=verbatim(jobs.as_json(overlap.job(PLAN))),
            folder=subpath(output.found, parent=True),
        shell:
            "python scripts/overlap.py --job - --threads {threads} --output {params.folder}"
            " <<< {params.job:q} 2>&1 | tee {log}"
