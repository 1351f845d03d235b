# Folders and files of the user's own are checked before any long work; the demo has none.
if CHECKED_INPUTS:

    rule check_inputs:
        input:
            code=jobs.code("check_inputs"),
        output:
            CHECKED_INPUTS,
        log:
            "logs/check_inputs.log",
        conda:
            "../../envs/data.yaml"
        threads: 1
        params:
            job=verbatim(jobs.as_json(own_inputs.found(PLAN))),
            folder=subpath(output[0], parent=True),
        shell:
            "python scripts/check_inputs.py --job {params.job:q} --output {params.folder} 2>&1 | tee {log}"
