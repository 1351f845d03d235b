# Folders and files of the user's own are checked before any long work; the demo has none.
from resalign.jobs import check_scorers
from resalign.jobs.check_inputs import CheckInputsJob

SCORER_CHECK = check_scorers.folder(PLAN)
check_inputs_job = planned_job(lambda plan, job: CheckInputsJob.parse(job, where="own inputs"), "inputs", "inputs")


rule check_inputs:
    input:
        code=code("check_inputs"),
    output:
        "results/inputs/{inputs}/inputs.json",
    log:
        "logs/check_inputs/{inputs}.log",
    wildcard_constraints:
        inputs=own("inputs"),
    # Before everything else that could run as well, so that a fault is reported at once.
    priority: 100
    conda:
        "../../envs/resalign.yaml"
    threads: 1
    params:
        job=lambda wildcards: check_inputs_job(wildcards).text(),
        folder=subpath(output[0], parent=True),
    shell:
        "python scripts/check_inputs.py --job {params.job:q} --output {params.folder} 2>&1 | tee {log}"


# Scorers are tried as soon as their networks are there, the demo's too: loaded, held against the metrics' rules and the
# prompts' labels, and shown images of the concept and harmless ones.


rule check_scorers:
    input:
        check_scorers.CheckScorersJob.of(PLAN).inputs(),
        code=code("check_scorers", *PLAN.scorer_modules),
    output:
        found=f"{SCORER_CHECK}/{check_scorers.FOUND}",
        record=f"{SCORER_CHECK}/run.json",
        timing=f"{SCORER_CHECK}/timing.json",
    log:
        f"logs/check_scorers/{Path(SCORER_CHECK).name}.log",
    # No training waits for it, see resalign.jobs.check_scorers: it goes first instead, alone where its inputs are there.
    priority: 100
    conda:
        "../../envs/resalign.yaml"
    # Inside a cluster's job, Snakemake's cores are the node's, not the job's.
    threads: (workflow.resource_settings.cores or 1) if check_scorers.is_ready(PLAN) and not workflow.remote_exec else 1
    resources:
        mem_mb=per_attempt(RESOURCES["score"].mem_mb),
        runtime=per_attempt(60),
    params:
        job=literal_param(check_scorers.CheckScorersJob.of(PLAN).text()),
        modules=PLAN.scorer_modules,
        folder=subpath(output.found, parent=True),
    shell:
        "python scripts/check_scorers.py --job - --threads {threads} --output {params.folder}"
        " --modules {params.modules} <<< {params.job:q} 2>&1 | tee {log}"
