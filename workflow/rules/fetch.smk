# Downloads: the only rules that touch the network. Every file is pinned, and checked before it is used.

FETCHED = {asset.folder: asset for asset in PLAN.assets.values() if asset.origin in ("hub", "url")}


localrules:
    fetch,


rule fetch:
    input:
        code=code("fetch"),
    output:
        "results/assets/{asset}/run.json",
        "results/assets/{asset}/timing.json",
    log:
        "logs/fetch/{asset}.log",
    wildcard_constraints:
        asset="|".join(re.escape(folder.rsplit("/", 1)[1]) for folder in FETCHED) or "(?!)",
    params:
        job=lambda wildcards: as_json(
            {"asset": FETCHED[f"results/assets/{wildcards.asset}"].name, **FETCHED[f"results/assets/{wildcards.asset}"].resolved}
        ),
        folder=subpath(output[0], parent=True),
    threads: 1
    conda:
        "../../envs/data.yaml"
    shell:
        "python scripts/fetch.py --job {params.job:q} --threads {threads} --output {params.folder} 2>&1 | tee {log}"
