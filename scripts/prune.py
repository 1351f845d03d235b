"""Removes the scored images of one run that are not to be kept; raw scores and lists of images stay."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from resalign.analysis.collect import is_kept, read_without_features
from resalign.config.plan import RESULTS
from resalign.diffusion.images import ImageStore
from resalign.hashes import IMAGES, read, seal, verified
from resalign.jobs.prune import RECORD, PruneJob
from resalign.running.stage import parse_arguments, run_stage, write_json
from resalign.shards import SUFFIX

if TYPE_CHECKING:
    import pandas as pd


def main() -> None:
    """Command line of the rule prune."""
    import pandas as pd

    arguments = parse_arguments(__doc__, PruneJob)
    job = arguments.job
    images, scores = Path(job.images), Path(job.scores)
    own, kept = defaultdict[Path, set[str]](set), defaultdict[Path, set[str]](set)  # names of images by their store
    for manifest in images.parents[1].glob(f"*/{images.name}"):  # of all tiers, which share the stores
        frame = decided(manifest, scores.parents[1] / manifest.parent.name / scores.name, job)
        for (prompts, steps), state in frame.groupby(["prompt_set", "steps"]):
            store = images.parents[1] / IMAGES / str(prompts) / f"step-{steps}"
            kept[store].update(state.loc[state["kept"], "name"])
            if manifest == images:
                own[store].update(state["name"])
    for table in Path(RESULTS).glob("*/measured/samples.csv"):  # what the pages of all experiments show
        for path in map(Path, pd.read_csv(table, usecols=["path"])["path"]):
            kept[path.parent.parent if path.parent.suffix == SUFFIX else path.parent].add(path.name)
    freed = sum(ImageStore(store).drop(names - kept[store]) for store, names in sorted(own.items()))
    left = sum(len(names & {Path(name).name for name in read(store) or ()}) for store, names in own.items())
    record = {"job": job.plain(), "images": sum(map(len, own.values())), "kept": left, "freed_bytes": freed}
    write_json(arguments.output / RECORD, record)
    seal(arguments.output)


def decided(manifest: Path, scores: Path, job: PruneJob) -> pd.DataFrame:
    """The images of a list, with the columns ``name`` and ``kept``: all are, where these have no scores."""
    import pandas as pd

    frame = pd.read_csv(verified(manifest), dtype={"prompt_set": str}, keep_default_na=False)
    frame = frame.assign(kept=True, name=[Path(path).name for path in frame["path"]])
    scored = read_without_features(scores) if scores.is_file() else frame[:0]
    if list(scored["sha256"]) == list(frame["sha256"]):
        frame["kept"] = is_kept(scored, job)
    return frame


if __name__ == "__main__":
    run_stage(main)
