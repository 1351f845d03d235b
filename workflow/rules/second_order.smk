# No part of any experiment: `snakemake --cores 2 --configfile config/demo.yaml -- second_order` holds the hypergradient
# estimators against the derivative through every step and central differences on the experiment's base model, sweeps γ,
# and compares them over up to 300 steps; `resalign compare-hypergradients` runs it, a job for each draw. Weights of every
# step are held in float64, and Adam's moments: a small model's.
from resalign.jobs import second_order

SECOND_ORDER = f"{RESULT}/second-order"
SECOND_ORDER_DRAW = second_order.DrawJob.of(PLAN)
SECOND_ORDER_SHOWN = second_order.SecondOrderJob.of(PLAN)


rule second_order_draw:
    input:
        SECOND_ORDER_DRAW.inputs(),
        checked=own_inputs.record(PLAN),
        code=code("second_order_draw", *second_order.modules()),
    output:
        tables=expand(f"{second_order.folder(PLAN, '{{draw}}')}/{{name}}.csv", name=second_order.TABLES),
        record=f"{second_order.folder(PLAN, '{draw}')}/run.json",
        timing=f"{second_order.folder(PLAN, '{draw}')}/timing.json",
    log:
        f"logs/second-order/{PLAN.experiment.config.name}.draw-{{draw}}.log",
    wildcard_constraints:
        draw=r"\d+",
    conda:
        "../../envs/resalign.yaml"
    threads: RESOURCES["unlearn"].threads
    resources:
        gpu=RESOURCES["unlearn"].gpu,
        mem_mb=per_attempt(12000),
        runtime=per_attempt(60),
    params:
        job=literal_param(SECOND_ORDER_DRAW.text()),
        modules=second_order.modules(),
        folder=subpath(output.record, parent=True),
    shell:
        "python scripts/second_order_draw.py --job - --seed {wildcards.draw} --threads {threads} --output {params.folder}"
        " --modules {params.modules} <<< {params.job:q} 2>&1 | tee {log}"


rule second_order:
    input:
        SECOND_ORDER_SHOWN.inputs(),
        code=code("second_order"),
    output:
        tables=expand(f"{SECOND_ORDER}/{{name}}.csv", name=second_order.TABLES),
        texts=expand(f"{SECOND_ORDER}/{{name}}.md", name=["table", "costs"]),
        figures=expand(f"{SECOND_ORDER}/{{name}}.{{suffix}}", name=second_order.FIGURES, suffix=["png", "svg"]),
        record=f"{SECOND_ORDER}/run.json",
        timing=f"{SECOND_ORDER}/timing.json",
    log:
        f"logs/second-order/{PLAN.experiment.config.name}.log",
    conda:
        "../../envs/resalign.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(10),
    params:
        job=literal_param(SECOND_ORDER_SHOWN.text()),
        folder=subpath(output.record, parent=True),
    shell:
        "python scripts/second_order.py --job - --threads {threads} --output {params.folder}"
        " <<< {params.job:q} 2>&1 | tee {log}"
