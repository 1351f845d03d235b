import os
import re

# Downloads: the only rules that touch the network. Every file is pinned, and checked before it is used.

FETCHED = {os.path.basename(asset.folder): asset for asset in PLAN.assets.values() if asset.origin in ("hub", "url")}


localrules:
    fetch,


rule fetch:
    input:
        code=jobs.code("fetch"),
    output:
        "results/assets/{asset}/run.json",
        "results/assets/{asset}/timing.json",
    log:
        "logs/fetch/{asset}.log",
    wildcard_constraints:
        asset="|".join(map(re.escape, FETCHED)) or "(?!)",
    conda:
        "../../envs/data.yaml"
    threads: 1
    params:
        job=lambda wildcards: jobs.as_json(
            {"asset": FETCHED[wildcards.asset].name, **FETCHED[wildcards.asset].resolved}
        ),
        folder=subpath(output[0], parent=True),
    shell:
        "python scripts/fetch.py --job {params.job:q} --threads {threads} --output {params.folder} 2>&1 | tee {log}"
