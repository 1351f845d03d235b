"""Removes the scored images of one run that are not to be kept; raw scores and lists of images stay."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from resalign.analysis.collect import is_kept, read_without_features
from resalign.diffusion.images import ImageStore
from resalign.hashes import IMAGES, verified
from resalign.jobs.prune import RECORD, PruneJob
from resalign.running.stage import parse_arguments, run_stage, write_json

if TYPE_CHECKING:
    import pandas as pd

IMAGE = ["prompt_set", "steps", "name"]  # in the store of a run, which all its tiers share


def main() -> None:
    """Command line of the rule prune."""
    arguments = parse_arguments(__doc__, PruneJob)
    job = arguments.job
    images, scores = Path(job.images), Path(job.scores)
    own, kept = set[tuple[str, int, str]](), set[tuple[str, int, str]]()
    for manifest in images.parents[1].glob(f"*/{images.name}"):
        frame = decided(manifest, scores.parents[1] / manifest.parent.name / scores.name, job)
        kept |= set(frame.loc[frame["kept"], IMAGE].itertuples(index=False, name=None))
        if manifest == images:
            own = set(frame[IMAGE].itertuples(index=False, name=None))
    stores: dict[Path, set[str]] = {}
    for prompts, steps, name in own - kept:
        stores.setdefault(images.parents[1] / IMAGES / prompts / f"step-{steps}", set()).add(name)
    freed = sum(ImageStore(folder).drop(names) for folder, names in sorted(stores.items()))
    record = {"job": job.plain(), "images": len(own), "kept": len(own & kept), "freed_bytes": freed}
    write_json(arguments.output / RECORD, record)


def decided(manifest: Path, scores: Path, job: PruneJob) -> pd.DataFrame:
    """The images of a list, with the column ``kept``: every one where these have no scores."""
    import pandas as pd

    frame = pd.read_csv(verified(manifest), dtype={"prompt_set": str}, keep_default_na=False)
    frame = frame.assign(kept=True, name=[Path(path).name for path in frame["path"]])
    scored = read_without_features(scores) if scores.is_file() else frame[:0]
    if list(scored["sha256"]) == list(frame["sha256"]):
        frame["kept"] = is_kept(scored, job)
    return frame


if __name__ == "__main__":
    run_stage(main)
