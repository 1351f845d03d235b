# The archive of the experiment that somebody else can verify: `snakemake --cores 2 -- artifact`, then
# `make verify ARTIFACT=results/<experiment>/artifact/<experiment>.zip`. docs/artifact.md.
from resalign.jobs import artifact as contents
from resalign.artifact.source import fingerprint


localrules:
    artifact,


rule artifact:
    input:
        contents.archive(PLAN),


rule pack:
    input:
        # The archive's members, and nothing else of the result.
        files=lambda wildcards: contents.result_files(PLAN),
        code=code("artifact"),
        templates=[f"src/resalign/artifact/{name}.j2" for name in ("readme.md", "crate.json")],
    output:
        archive=contents.archive(PLAN),
        digest=f"{contents.archive(PLAN)}.sha256",
        record=f"{contents.folder(PLAN)}/run.json",
        timing=f"{contents.folder(PLAN)}/timing.json",
    log:
        f"logs/artifact/{PLAN.experiment.config.name}.log",
    conda:
        "../../envs/resalign.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(3000),
        runtime=per_attempt(60),
    params:
        job=lambda wildcards: contents.ArtifactJob.of(PLAN, ABLATIONS).text(),
        # The archive has the source: only what packs it depends on the revision.
        source=lambda wildcards: fingerprint(Path(workflow.basedir).parent),
        folder=subpath(output.archive, parent=True),
    shell:
        "python scripts/artifact.py --job - --threads {threads} --output {params.folder}"
        " <<< {params.job:q} 2>&1 | tee {log}"
