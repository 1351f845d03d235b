# No part of any experiment: `snakemake --cores 1 --configfile config/demo.yaml -- second_order` holds the hypergradient
# estimators against the derivative through every step and central differences on the experiment's base model, sweeps γ,
# and compares them over up to 300 steps; `resalign compare-hypergradients` runs it. Weights of every step are held in
# float64, and Adam's moments: a small model's.
from resalign.jobs import second_order

SECOND_ORDER = second_order.SecondOrderJob.of(PLAN)


rule second_order:
    input:
        SECOND_ORDER.inputs(),
        checked=own_inputs.record(PLAN),
        code=code("second_order", *second_order.modules()),
    output:
        audit=f"{RESULT}/second-order/audit.csv",
        gamma=f"{RESULT}/second-order/gamma.csv",
        horizon=f"{RESULT}/second-order/horizon.csv",
        costs=expand(f"{RESULT}/second-order/costs.{{suffix}}", suffix=["csv", "md"]),
        table=f"{RESULT}/second-order/table.md",
        figures=expand(
            f"{RESULT}/second-order/{{name}}.{{suffix}}", name=["audit", "gamma", "horizon"], suffix=["png", "svg"]
        ),
        record=f"{RESULT}/second-order/run.json",
        timing=f"{RESULT}/second-order/timing.json",
    log:
        f"logs/second-order/{PLAN.experiment.config.name}.log",
    conda:
        "../../envs/resalign.yaml"
    threads: RESOURCES["unlearn"].threads
    resources:
        gpu=RESOURCES["unlearn"].gpu,
        mem_mb=per_attempt(12000),
        runtime=per_attempt(60),
    params:
        job=literal_param(SECOND_ORDER.text()),
        modules=second_order.modules(),
        folder=subpath(output.audit, parent=True),
    shell:
        "python scripts/second_order.py --job - --threads {threads} --output {params.folder}"
        " --modules {params.modules} <<< {params.job:q} 2>&1 | tee {log}"
