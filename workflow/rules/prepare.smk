from resalign.jobs import prepare as prepared_jobs

# Image sets made from fetched archives and tables (unpacked, checked, filtered, split), or by a model from prompts.

PREPARED, GENERATED = prepared_jobs.patterns(ABLATIONS.prepared_sets())


rule prepare:
    input:
        assets=lambda wildcards: prepared_jobs.assets(*prepared_of(wildcards)),
        code=lambda wildcards: prepared_jobs.code(*prepared_of(wildcards)),
    output:
        "results/assets/{prepared}/run.json",
        "results/assets/{prepared}/timing.json",
    log:
        "logs/prepare/{prepared}.log",
    wildcard_constraints:
        prepared=f"(?=(?:{own('prepared')})/)(?:{PREPARED})",
    conda:
        "../../envs/resalign.yaml"
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        job=lambda wildcards: prepared_jobs.job(*prepared_of(wildcards)),
        module=lambda wildcards: prepared_jobs.module(*prepared_of(wildcards)),
        folder=subpath(output[0], parent=True),
    shell:
        "python scripts/prepare.py --job {params.job:q} --threads {threads} --output {params.folder}"
        " --modules {params.module} 2>&1 | tee {log}"


rule generate:
    input:
        assets=lambda wildcards: prepared_jobs.assets(*prepared_of(wildcards)),
        code=lambda wildcards: prepared_jobs.code(*prepared_of(wildcards)),
    output:
        "results/assets/{prepared}/run.json",
        "results/assets/{prepared}/timing.json",
    log:
        "logs/generate/{prepared}.log",
    wildcard_constraints:
        prepared=f"(?=(?:{own('prepared')})/)(?:{GENERATED})",
    conda:
        "../../envs/resalign.yaml"
    threads: RESOURCES["sample"].threads
    resources:
        gpu=RESOURCES["sample"].gpu,
        mem_mb=growing(RESOURCES["sample"].mem_mb),
        runtime=growing(RESOURCES["sample"].runtime_minutes),
    params:
        job=lambda wildcards: prepared_jobs.job(*prepared_of(wildcards)),
        module=lambda wildcards: prepared_jobs.module(*prepared_of(wildcards)),
        folder=subpath(output[0], parent=True),
    shell:
        "python scripts/generate.py --job {params.job:q} --threads {threads}"
        " --limit-minutes {resources.runtime} --output {params.folder} --modules {params.module} 2>&1 | tee {log}"
