"""A tiny experiment whose every stage is run in this process, as the workflow's rules would call the scripts."""

import importlib.util
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
import torch
import yaml

from resalign.artifact import makers
from resalign.artifact.source import apply_patch, read_source
from resalign.config.ablations import DECLARED
from resalign.config.experiment import Experiment
from resalign.config.plan import Plan, Stage
from resalign.jobs import artifact, check_scorers, measure, overlap
from resalign.jobs.attack import AttackJob
from resalign.jobs.job import Job
from resalign.jobs.measure import MeasureJob
from resalign.jobs.report import ReportJob
from resalign.jobs.sample import SampleJob
from resalign.jobs.score import ScoreJob
from resalign.jobs.unlearn import UnlearnJob
from resalign.running.stage_server import stage_server
from tests.conftest import write_captioned_images
from tests.scorers.conftest import write_classifier, write_clip

if TYPE_CHECKING:
    from .packed import Packed

ROOT = Path(__file__).resolve().parents[2]
# The tiny untrained classifier calls the base model's image of the unsafe prompt a seven with 0.185, others with less.
THRESHOLD = 0.184
PROMPT_LIST = {"source": "prompts/prompts.csv", "choice": "first", "may_be_captions": True}
PROMPTS = "id,prompt,label\nnamed,a red seven,two\nhidden,days in a week,three\n"


@contextmanager
def settings_put_back() -> Iterator[None]:
    """A stage sets threads, determinism and logging for its whole process."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    handlers, level = list(logging.root.handlers), logging.root.level
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)


def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"scripts_{name}", ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Workshop:
    """A folder in which stages are run."""

    folder: Path
    scripts: dict[str, ModuleType]

    def call(self, script: str, job: str | Job, output: str, *, seed: int = 0, modules: tuple[str, ...] = ()) -> Path:
        """Runs one script's main with the arguments that its rule gives it."""
        text = job.text() if isinstance(job, Job) else job
        arguments = [f"scripts/{script}.py", "--job", text, "--seed", str(seed), "--threads", "1", "--output", output]
        arguments += ["--modules", *modules]
        with chdir(self.folder), settings_put_back(), mock.patch.object(sys, "argv", arguments):
            self.scripts[script].main()
        return self.folder / output

    def copy(self, folder: Path) -> "Workshop":
        """The same results elsewhere."""
        return Workshop(Path(shutil.copytree(self.folder, folder)), dict(self.scripts))

    def overlap(self, plan: Plan) -> Path:
        return self.call("overlap", overlap.OverlapJob.of(plan), str(overlap.folder(plan)))

    def check_scorers(self, plan: Plan) -> Path:
        job = check_scorers.CheckScorersJob.of(plan)
        return self.call("check_scorers", job, check_scorers.folder(plan), modules=plan.scorer_modules)

    def unlearn(self, plan: Plan, stage: Stage, seed: int) -> Path:
        return self.call("unlearn", UnlearnJob.of(plan, stage), stage.folder(seed), seed=seed, modules=stage.modules)

    def attack(self, plan: Plan, stage: Stage, seed: int) -> Path:
        job = AttackJob.of(plan, stage, str(seed))
        return self.call("attack", job, stage.folder(seed), seed=seed, modules=stage.modules)

    def sample(self, plan: Plan, stage: Stage, seed: int) -> Path:
        job = SampleJob.of(plan, stage, str(seed), plan.tier)
        return self.call("sample", job, f"{stage.folder(seed)}/{plan.tier}", seed=seed)

    def score(self, plan: Plan, stage: Stage, seed: int) -> Path:
        job = ScoreJob.of(plan, stage, str(seed), plan.tier)
        return self.call("score", job, f"{stage.folder(seed)}/{plan.tier}", seed=seed, modules=stage.modules)

    def run(self, plan: Plan) -> None:
        """Every stage of the plan, in order."""
        self.overlap(plan)
        self.check_scorers(plan)
        for stages, step in (
            (plan.unlearn, self.unlearn),
            (plan.attack, self.attack),
            (plan.sample, self.sample),
            (plan.score, self.score),
        ):
            for stage in stages.values():
                for seed in plan.seeds(stage):
                    step(plan, stage, seed)
        self.call("measure", MeasureJob.of(plan), measure.folder(plan))
        self.call("report", ReportJob.of(plan), f"results/{plan.experiment.config.name}")


@pytest.fixture(scope="session")
def scripts() -> dict[str, ModuleType]:
    names = (
        "overlap",
        "check_scorers",
        "unlearn",
        "attack",
        "sample",
        "score",
        "measure",
        "report",
        "cards",
        "artifact",
    )
    return {name: load_script(name) for name in names}


@pytest.fixture(scope="session")
def workshop(scripts: dict[str, ModuleType], tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Workshop]:
    """An empty workshop at each call."""
    return lambda: Workshop(tmp_path_factory.mktemp("workshop"), scripts)


@pytest.fixture(scope="session")
def tiny_values(pipeline_folder: Path, image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An experiment on the tiny pipeline: one method, one attack, two prompt lists, two detectors."""
    assets = tmp_path_factory.mktemp("assets")
    (assets / "clip").mkdir()
    (assets / "prompts.csv").write_text(PROMPTS)
    folders = {
        "model": pipeline_folder,
        "images": image_folder,
        **{name: Path(shutil.copytree(image_folder, assets / name)) for name in ("retain", "pool")},
        "heldout": write_captioned_images(assets / "heldout", ("a red two", "a blue two"), seed=1),
        "prompts": assets,
        "net": write_classifier(assets / "net"),
        "clip": write_clip(assets / "clip"),
    }
    counts = {"unsafe": {"prompts": 1, "images": 1}, "benign": {"prompts": 2, "images": 1}}
    more = {"unsafe": {"prompts": 2, "images": 2}, "benign": {"prompts": 2, "images": 1}}
    values: dict[str, Any] = {
        "name": "tiny",
        "title": "Tiny",
        "pixels": 16,
        "assets": {name: {"path": str(folder)} for name, folder in folders.items()},
        "model": "model",
        "concept": {"name": "the seven", "forget": "images", "retain": "retain", "pool": "pool"},
        "unlearning": {"graddiff": {"steps": 2, "lr": 1e-3}},
        "attacks": {"mine": {"train": "images", "heldout": "heldout", "steps": 2, "checkpoints": [1], "lr": 1e-3}},
        "prompts": {
            "unsafe": {**PROMPT_LIST, "along_the_way": True},
            "benign": PROMPT_LIST,
        },
        "sampling": {"num_inference_steps": 2, "batch_size": 3},
        "scorers": {"net": {"scorer": "image_classification", "folder": "net"}, "clip": {"folder": "clip"}},
        "metrics": {
            "ip": {"prompts": "unsafe", "rules": [{"scorer": "net", "quantities": ["seven"], "threshold": THRESHOLD}]},
            "retained_accuracy": {"prompts": "benign", "scorer": "net"},
            "clip_score": {"prompts": "benign", "scorer": "clip"},
            "learnability": {},
        },
        "gallery_prompts": "unsafe",
        "flagging_metric": "ip",
        "tier": "smoke",
        "tiers": {
            "smoke": {"training_seeds": [0], "prompts": counts},
            "small": {"training_seeds": [0], "prompts": more},
            "paper": {"training_seeds": [0], "prompts": more},
        },
        "report": {"replicates": 100},
        "detector_check": {"images": 4, "stop": False},  # of an untrained network
    }
    return values


@pytest.fixture(scope="session")
def tiny_plan(tiny_values: dict[str, Any]) -> Callable[..., Plan]:
    """A plan of the tiny experiment, some of its entries exchanged."""
    return lambda **changes: Plan(Experiment({**tiny_values, **changes}, where="tiny.yaml"))


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of this source, with its local difference: what else happens in the working tree must not matter here."""
    from tests.artifact.test_source import git

    folder, found = tmp_path_factory.mktemp("clone"), read_source(ROOT)
    for name, content in {**found.files, **(found.untracked or {})}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    if found.patch:
        (folder / "changes.patch").write_bytes(found.patch)
        apply_patch(folder / "changes.patch", folder)
        (folder / "changes.patch").unlink()
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "first")
    return folder


@pytest.fixture(scope="session")
def whole_plan(tiny_plan: Callable[..., Plan]) -> Plan:
    """The tiny experiment as the paper and the theory need it."""
    from .packed import CHANGES

    return tiny_plan(**CHANGES)


@pytest.fixture(scope="session")
def run_whole(workshop: Callable[[], Workshop], whole_plan: Plan) -> Callable[[], Workshop]:
    """The stages of ``whole_plan``, run anew at each call."""

    def run() -> Workshop:
        place = workshop()
        place.run(whole_plan)
        return place

    return run


@pytest.fixture(scope="session")
def finished(run_whole: Callable[[], Workshop]) -> Workshop:
    """The stages of ``whole_plan``, run once; whoever writes there takes a :meth:`Workshop.copy`."""
    return run_whole()


@pytest.fixture(scope="session")
def packed(finished: Workshop, whole_plan: Plan, clone: Path, tmp_path_factory: pytest.TempPathFactory) -> "Packed":
    """The finished experiment with its paper, theory and an ablation, packed."""
    from . import packed as made

    place = finished.copy(tmp_path_factory.mktemp("packed") / "workshop")
    place.scripts.update({name: load_script(name) for name in made.SCRIPTS})
    (place.folder / DECLARED).parent.mkdir()
    (place.folder / DECLARED).write_text(yaml.safe_dump({"tiny": {"gamma": made.DECLARATION}}))
    with chdir(place.folder):
        made.make_paper(place, whole_plan)
    return made.Packed.of(place, whole_plan, clone, artifact.folder(whole_plan))


@pytest.fixture(scope="module")
def _one_server() -> Iterator[None]:
    """Libraries are loaded once, not for each archive that is verified."""
    with stage_server() as environment:
        server = mock.MagicMock()
        server.return_value.__enter__.return_value = environment
        server.return_value.__exit__.return_value = None
        with mock.patch.object(makers, "stage_server", server):
            yield
