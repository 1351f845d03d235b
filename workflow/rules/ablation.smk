# Ablations, config/ablations.yaml: `snakemake --cores 2 --configfile config/demo.yaml -- results/ablations/gamma`, or
# `-- ablations` for all. A variant's runs have rules of their own: forcing these leaves the experiment's runs alone.
from resalign.jobs import ablation as ablation_jobs

# An experiment's measured values lie with its results. results/ablations is what was asked for last: where two
# experiments have an ablation of one name, Snakemake sees that the files come from elsewhere, and makes them again.
MEASURED = f"{RESULT}/ablations/{{ablation}}"


wildcard_constraints:
    ablation="|".join(map(re.escape, ABLATIONS.entries)) or "(?!)",


use rule fetch as ablated_fetch with:
    wildcard_constraints:
        asset=ablated("fetched", f"(?!(?:{PREPARED}|{GENERATED})/){RUN}-[0-9a-f]{{10}}"),


use rule prepare as ablated_prepare with:
    wildcard_constraints:
        prepared=ablated("prepared", PREPARED),


use rule generate as ablated_generate with:
    wildcard_constraints:
        prepared=ablated("prepared", GENERATED),


use rule check_inputs as ablated_check_inputs with:
    wildcard_constraints:
        inputs=ablated("inputs", "[0-9a-f]+"),


use rule unlearn as ablated_unlearn with:
    wildcard_constraints:
        run=ablated("unlearn", RUN),


use rule attack as ablated_attack with:
    wildcard_constraints:
        run=ablated("attack", RUN),


use rule sample as ablated_sample with:
    wildcard_constraints:
        run=ablated("sample", RUN),


use rule score as ablated_score with:
    wildcard_constraints:
        run=ablated("score", RUN),


use rule score_reference as ablated_score_reference with:
    wildcard_constraints:
        reference=ablated("reference", "reference-[0-9a-f]+"),


# Everything that is read off the runs, in one go; what a reader opens is copied, laid out and drawn from it, file by
# file, so that a deleted one is made again alone.
rule ablation_measured:
    input:
        lambda wildcards: ablation_jobs.measured_files(ABLATIONS, wildcards.ablation),
        checked=rules.check_scorers.output.found,
        code=lambda wildcards: jobs.code("ablation", *ablation_jobs.metric_modules(ABLATIONS, wildcards.ablation)),
    output:
        values=f"{MEASURED}/values.csv",
        runs=f"{MEASURED}/per_run.csv",
        variants=f"{MEASURED}/variants.json",
        record=f"{MEASURED}/run.json",
        timing=f"{MEASURED}/timing.json",
    log:
        f"logs/ablations/{PLAN.experiment.config.name}.{{ablation}}.log",
    conda:
        "../../envs/resalign.yaml"
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=growing(30),
    params:
        job=lambda wildcards: ablation_jobs.measuring_job(ABLATIONS, wildcards.ablation),
        modules=lambda wildcards: ablation_jobs.metric_modules(ABLATIONS, wildcards.ablation),
        folder=subpath(output.values, parent=True),
    shell:
        "python scripts/ablation.py --job - --threads {threads} --output {params.folder}"
        " --modules {params.modules} <<< {params.job:q} 2>&1 | tee {log}"


rule ablation_file:
    input:
        f"{MEASURED}/{{file}}",
    output:
        "results/ablations/{ablation}/{file}",
    log:
        "logs/ablations/{ablation}.{file}.log",
    wildcard_constraints:
        file="|".join(map(re.escape, ablation_jobs.COPIED)),
    conda:
        "../../envs/resalign.yaml"
    threads: 1
    shell:
        "cp {input} {output} 2>&1 | tee {log}"


rule ablation_shown:
    input:
        values=f"{MEASURED}/values.csv",
        code=lambda wildcards: ablation_jobs.showing_code(ABLATIONS, wildcards.ablation),
    output:
        "results/ablations/{ablation}/{shown}",
    log:
        "logs/ablations/{ablation}.{shown}.log",
    wildcard_constraints:
        shown="|".join(map(re.escape, ablation_jobs.SHOWN)),
    conda:
        "../../envs/resalign.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        job=lambda wildcards: ablation_jobs.showing_job(ABLATIONS, wildcards.ablation),
    shell:
        "python -m resalign.ablations.shown --job {params.job:q} --values {input.values} --output {output}"
        " 2>&1 | tee {log}"


# A folder of other rules' outputs is no target in Snakemake, but a rule that is named as the folder is one.
for ablation in ABLATIONS.entries:
    for target in (f"results/ablations/{ablation}", f"results/ablations/{ablation}/"):

        rule:
            name:
                target
            input:
                ablation_jobs.files(ablation),


rule ablations:
    input:
        [ablation_jobs.files(ablation) for ablation in ABLATIONS.entries],


localrules:
    ablated_fetch,
    ablation_file,
    ablations,
