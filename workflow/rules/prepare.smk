from resalign.jobs.prepare import PrepareJob, patterns

# Image sets made from fetched archives and tables (unpacked, checked, filtered, split), or by a model from prompts.

PREPARED, GENERATED = patterns(ABLATIONS.prepared_sets())
prepare_job = planned_job(PrepareJob.of, "prepared", "prepared")


rule prepare:
    input:
        lambda wildcards: prepare_job(wildcards).inputs(),
        code=lambda wildcards: prepare_job(wildcards).code(),
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
        mem_mb=per_attempt(8000),
        runtime=per_attempt(240),
    params:
        job=lambda wildcards: prepare_job(wildcards).text(),
        module=lambda wildcards: prepare_job(wildcards).module,
        folder=subpath(output[0], parent=True),
    shell:
        "python scripts/prepare.py --job {params.job:q} --threads {threads} --output {params.folder}"
        " --modules {params.module} 2>&1 | tee {log}"


rule generate:
    input:
        lambda wildcards: prepare_job(wildcards).inputs(),
        code=lambda wildcards: prepare_job(wildcards).code(),
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
        **resources_of("sample"),
    params:
        job=lambda wildcards: prepare_job(wildcards).text(),
        module=lambda wildcards: prepare_job(wildcards).module,
        folder=subpath(output[0], parent=True),
    shell:
        "python scripts/generate.py --job {params.job:q} --threads {threads}"
        " --limit-minutes {resources.runtime} --output {params.folder} --modules {params.module} 2>&1 | tee {log}"
