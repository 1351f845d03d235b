# Folders and files of the user's own are checked before any long work; the demo has none.


rule check_inputs:
    input:
        code=jobs.code("check_inputs"),
    output:
        "results/inputs/{inputs}/inputs.json",
    log:
        "logs/check_inputs/{inputs}.log",
    wildcard_constraints:
        inputs=own("inputs"),
    # Before everything else that could run as well: what is wrong is to be said at once.
    priority: 100
    conda:
        "../../envs/data.yaml"
    threads: 1
    params:
        job=lambda wildcards: jobs.as_json(ABLATIONS.made("inputs", wildcards.inputs)[1]),
        folder=subpath(output[0], parent=True),
    shell:
        "python scripts/check_inputs.py --job {params.job:q} --output {params.folder} 2>&1 | tee {log}"
