# No part of any experiment: `snakemake --cores 1 --configfile config/demo.yaml -- second_order` holds the hypergradient
# estimators against unrolled differentiation and central differences on the experiment's base model, and sweeps γ. It
# needs the graph of a whole fine-tuning in float64: a small model's.


rule second_order:
    input:
        assets=jobs.second_order_assets(PLAN),
        checked=own_inputs.record(PLAN),
        code=jobs.code("second_order", *jobs.second_order_modules()),
    output:
        audit=f"{RESULT}/second-order/audit.csv",
        gamma=f"{RESULT}/second-order/gamma.csv",
        table=f"{RESULT}/second-order/table.md",
        figures=expand(f"{RESULT}/second-order/{{name}}.{{suffix}}", name=["audit", "gamma"], suffix=["png", "svg"]),
        record=f"{RESULT}/second-order/run.json",
        timing=f"{RESULT}/second-order/timing.json",
    log:
        f"logs/second-order/{PLAN.experiment.config.name}.log",
    conda:
        "../../envs/resalign.yaml"
    threads: RESOURCES["unlearn"].threads
    resources:
        gpu=RESOURCES["unlearn"].gpu,
        mem_mb=growing(12000),
        runtime=growing(30),
    params:
        job=verbatim(jobs.second_order_job(PLAN)),
        modules=jobs.second_order_modules(),
        folder=subpath(output.audit, parent=True),
    shell:
        "python scripts/second_order.py --job - --threads {threads} --output {params.folder}"
        " --modules {params.modules} <<< {params.job:q} 2>&1 | tee {log}"
