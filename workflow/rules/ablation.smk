# Ablations, config/ablations.yaml: `snakemake --cores 2 --configfile config/demo.yaml -- results/ablations/gamma`, or
# `-- ablations` for all. A variant's runs have rules of their own: forcing these leaves the experiment's runs alone.
from resalign.jobs import ablation as ablation_jobs
from resalign.jobs.ablation import AblationJob, AblationShownJob

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


# Everything that is measured of the runs, by one job; copies for the reader, and table and figure, are made from it.
rule ablation_measured:
    input:
        lambda wildcards: AblationJob.of(ABLATIONS, wildcards.ablation).inputs(),
        checked=rules.check_scorers.output.found,
        code=lambda wildcards: code("ablation", *ablation_jobs.metric_modules(ABLATIONS, wildcards.ablation)),
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
        mem_mb=per_attempt(6000),
        runtime=lambda wildcards, attempt: attempt * AblationJob.of(ABLATIONS, wildcards.ablation).minutes,
    params:
        job=lambda wildcards: AblationJob.of(ABLATIONS, wildcards.ablation).text(),
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
        # Titles and kinds of metrics are in their modules.
        code=lambda wildcards: code("ablation_shown", *ablation_jobs.metric_modules(ABLATIONS, wildcards.ablation)),
    output:
        expand("results/ablations/{{ablation}}/{shown}", shown=ablation_jobs.SHOWN),
    log:
        "logs/ablations/{ablation}.shown.log",
    conda:
        "../../envs/resalign.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    params:
        job=lambda wildcards, input: AblationShownJob.of(ABLATIONS, wildcards.ablation, input.values).text(),
        folder=subpath(output[0], parent=True),
    shell:
        "python scripts/ablation_shown.py --job - --output {params.folder} <<< {params.job:q} 2>&1 | tee {log}"


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
