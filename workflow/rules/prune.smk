# Images that are not kept are removed once they are scored, while other runs are still being sampled. The record is a
# result; the images themselves are outputs of no rule.
from resalign.jobs import prune as prune_jobs
from resalign.jobs.prune import PruneJob

prune_job = planned_job(PruneJob.of, "score", "run", "seed", "tier")


localrules:
    prune,


rule prune:
    input:
        lambda wildcards: prune_job(wildcards).inputs(),
        # Scores of a detector that is refused decide nothing.
        checked=rules.check_scorers.output.found,
        code=code("prune", prune_jobs.metric_module(PLAN)),
    output:
        f"results/runs/prune/{{run}}/seed-{{seed}}/{{tier}}/{prune_jobs.RECORD}",
    log:
        "logs/prune/{run}/seed-{seed}.{tier}.log",
    wildcard_constraints:
        run=own("score"),
    # Before more images are made, as are scores (1).
    priority: 2
    conda:
        "../../envs/resalign.yaml"
    threads: 1
    params:
        job=lambda wildcards: prune_job(wildcards).text(),
        folder=subpath(output[0], parent=True),
    shell:
        "python scripts/prune.py --job {params.job:q} --output {params.folder} 2>&1 | tee {log}"
