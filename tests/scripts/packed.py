"""The tiny experiment finished with its paper, theory and one ablation; its archive, and archives made of that one."""

import zipfile
from collections.abc import Mapping
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from resalign.artifact.archive import write_archive
from resalign.artifact.layout import FORMAT, MANIFESTS, covers
from resalign.config.ablations import Ablations
from resalign.config.plan import Plan
from resalign.hashes import Entry, to_text
from resalign.jobs import artifact, exhibit, theory
from resalign.jobs.ablation import AblationJob
from resalign.jobs.exhibit import ExhibitJob

from .conftest import Workshop

SCRIPTS = ("theory", "linear_model", "theory_shown", "ablation", "exhibit")
PAPER = "results/tiny/paper/"
SMALL = {
    "batch_size": 4,
    "batches": 2,
    "probes": 4,
    "displacement_pairs": 2,
    "slice_positions": [0.0, 0.5, 1.0],
    "linear_model": {"dimension": 4, "subspaces": [[1, 1]], "overlaps": [0.5], "curvatures": [2.0], "positions": [9]},
}
ABLATION = "results/tiny/ablations/gamma"
# Figure 5 reads it; what it adds to the experiment is one attack.
DECLARATION = {
    "title": "Learning rate",
    "models": ["graddiff"],
    "metrics": ["ip"],
    "grid": {"attacks.mine.lr": [1e-3, 2e-3]},
}
# Tests by prompt need two prompts.
COUNTS = {"unsafe": {"prompts": 2, "images": 1}, "benign": {"prompts": 2, "images": 1}}
TIER = {"training_seeds": [0], "prompts": COUNTS}
CHANGES = {"theory": SMALL, "tiers": {"smoke": TIER, "small": TIER, "paper": TIER}}


@dataclass(frozen=True)
class Packed:
    """A finished experiment and its archive."""

    workshop: Workshop
    plan: Plan
    archive: Path
    clone: Path

    @classmethod
    def of(cls, place: Workshop, plan: Plan, clone: Path, output: str) -> "Packed":
        """Packs what the clone's source has made."""
        with chdir(place.folder):
            job = artifact.ArtifactJob.of(plan, declared(plan))
        with mock.patch.object(place.scripts["artifact"], "ROOT", clone):
            folder = place.call("artifact", job, output)
        return cls(place, plan, folder / "tiny.zip", clone)

    def again(self, output: str, plan: Plan | None = None) -> "Packed":
        return Packed.of(self.workshop, plan or self.plan, self.clone, output)

    def members(self) -> dict[str, bytes]:
        with zipfile.ZipFile(self.archive) as opened:
            return {info.filename.partition("/")[2]: opened.read(info) for info in opened.infolist()}


def make_paper(place: Workshop, plan: Plan) -> None:
    """Theory, the ablation and its runs, exhibits."""
    for run, state in theory.states(plan).items():
        place.call("theory", theory.StateJob.of(plan, run, 0), state.folder(0))
    place.call("linear_model", theory.LinearModelJob.of(plan), theory.linear_model_folder(plan))
    place.call("theory_shown", theory.TheoryShownJob.of(plan), theory.folder(plan))
    ablations = declared(plan)
    for variant in ablations.variants("gamma").values():
        other = variant.plan
        for stages, step in ((other.attack, place.attack), (other.sample, place.sample), (other.score, place.score)):
            for stage in stages.values():
                if stage.label == "graddiff.mine" and not Path(stage.folder(0)).exists():
                    step(other, stage, 0)
    place.call("ablation", AblationJob.of(ablations, "gamma"), ABLATION)
    for name in exhibit.planned(plan):
        place.call("exhibit", ExhibitJob.of(plan, name), exhibit.folder(plan))


def declared(plan: Plan) -> Ablations:
    return Ablations(plan, plan.experiment.config.model_dump(mode="json", exclude_unset=True))


def repacked(members: Mapping[str, bytes], path: Path) -> Path:
    """An archive whose manifests and digest are right: whoever changed it covered their tracks."""
    entries = {name: Entry.of(content) for name, content in members.items()}
    texts = {
        name: to_text({member: entry for member, entry in entries.items() if covers(name, member)}, FORMAT).encode()
        for name in MANIFESTS
    }
    write_archive(path, {**members, **texts})
    return path
