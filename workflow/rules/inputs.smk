# Folders and files of the user's own are checked before any long work; the demo has none.
from resalign.config import scorer_check

SCORER_CHECK = scorer_check.folder(PLAN)


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
        "../../envs/resalign.yaml"
    threads: 1
    params:
        job=lambda wildcards: jobs.as_json(ABLATIONS.made("inputs", wildcards.inputs)[1]),
        folder=subpath(output[0], parent=True),
    shell:
        "python scripts/check_inputs.py --job {params.job:q} --output {params.folder} 2>&1 | tee {log}"


# Scorers are tried as soon as their networks are there, the demo's too: loaded, held against the metrics' rules and the
# prompts' labels, and shown images of the concept and harmless ones.


rule check_scorers:
    input:
        assets=jobs.markers(PLAN, scorer_check.references(PLAN)),
        code=jobs.code("check_scorers", *PLAN.scorer_modules),
    output:
        found=f"{SCORER_CHECK}/{scorer_check.FOUND}",
        record=f"{SCORER_CHECK}/run.json",
        timing=f"{SCORER_CHECK}/timing.json",
    log:
        f"logs/check_scorers/{Path(SCORER_CHECK).name}.log",
    # No training waits for it, as resalign.config.scorer_check says: it goes first instead, beside nothing else where all
    # that it reads is there.
    priority: 100
    conda:
        "../../envs/resalign.yaml"
    threads: (workflow.resource_settings.cores or 1) if scorer_check.is_ready(PLAN) else 1
    resources:
        mem_mb=growing(RESOURCES["score"].mem_mb),
        runtime=growing(60),
    params:
        job=verbatim(jobs.as_json(scorer_check.job(PLAN))),
        modules=PLAN.scorer_modules,
        folder=subpath(output.found, parent=True),
    shell:
        "python scripts/check_scorers.py --job - --threads {threads} --output {params.folder}"
        " --modules {params.modules} <<< {params.job:q} 2>&1 | tee {log}"
