"""Whole experiments: every mistake ends in one error that names file and key, before anything is planned."""

from collections.abc import Callable
from typing import Any

import pytest

from resalign.config.digits import DIGITS
from resalign.config.experiment import Experiment
from resalign.config.strict import ConfigError

from .conftest import DELETED, ROOT, Demo

Read = Callable[..., Experiment]
LONG = "a" * 181
DREAMBOOTH = {"attacks.pages.attack": "dreambooth"}


def error(read: Read, changes: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        read(changes)
    text = str(caught.value)
    assert text.startswith("config/demo.yaml: ")
    return text


@pytest.mark.parametrize(
    ("family", "what", "key", "nearest"),
    [
        ("unlearning", "unlearning", "method", "esd"),
        ("attacks", "attacks", "attack", "full"),
        ("scorers", "scorers", "scorer", "clip"),
        ("metrics", "metrics", "metric", "fid"),
    ],
)
def test_unknown_members_name_the_nearest(read: Read, family: str, what: str, key: str, nearest: str) -> None:
    misspelt = f"{nearest}x"
    entry = {key: misspelt, "train": "digits-data/pool", "heldout": "digits-data/pool"} if family == "attacks" else {}
    text = error(read, {f"{family}.{misspelt}": entry})
    assert f"{family}.{misspelt}: no {what} named '{misspelt}'; did you mean '{nearest}'? allowed: [" in text
    text = error(read, {f"{family}.label": {**entry, key: misspelt}})
    assert f"{family}.label: no {what} named '{misspelt}'; did you mean '{nearest}'?" in text


@pytest.mark.parametrize(
    ("changes", "key", "got"),
    [
        ({"model": "digit-model"}, "model", "asset named 'digit-model'; did you mean 'digits-model'?"),
        ({"concept.pool": "digits-dat/pool"}, "concept.pool", "asset named 'digits-dat'; did you mean 'digits-data'?"),
        ({"attacks.pages.train": "x/train"}, "attacks.pages.train", "asset named 'x'"),
        ({"attacks.pages.heldout": "x/train"}, "attacks.pages.heldout", "asset named 'x'"),
        ({"prompts.unsafe.source": "x/p.csv"}, "prompts.unsafe.source", "asset named 'x'"),
        ({"scorers.resnet.folder": "x"}, "scorers.resnet.folder", "asset named 'x'"),
        ({"scorers.q16": {"folder": "digits-clip", "head": "x"}}, "scorers.q16.head", "asset named 'x'"),
        ({"scorers.q16": {"folder": "x", "head": "digits-clip"}}, "scorers.q16.folder", "asset named 'x'"),
        ({"reference": "x"}, "reference", "asset named 'x'"),
        (
            {"unlearning.mace": {"method": "imported", "checkpoint": "x"}},
            "unlearning.mace.checkpoint",
            "asset named 'x'",
        ),
        ({"gallery_prompts": "unsaf"}, "gallery_prompts", "prompt list named 'unsaf'; did you mean 'unsafe'?"),
        ({"flagging_metric": "pi"}, "flagging_metric", "metric named 'pi'; did you mean 'ip'?"),
        ({"metrics.ip.prompts": "x"}, "metrics.ip.prompts", "prompt list named 'x'"),
        ({"metrics.fid.scorer": "klip"}, "metrics.fid", "scorer named 'klip'; did you mean 'clip'?"),
        ({"metrics.us.rule.scorer": "resnt"}, "metrics.us", "scorer named 'resnt'; did you mean 'resnet'?"),
        ({"tiers.small": DELETED}, "tier", "tier named 'small'"),
        ({"tiers.paper.prompts.benign": DELETED}, "tiers.paper.prompts", "prompt count named 'benign'"),
        (
            {"assets.digits-data.digits": "dta"},
            "assets.digits-data.digits",
            "demo world named 'dta'; did you mean 'data'?",
        ),
    ],
)
def test_dangling_references_name_key_and_nearest(read: Read, changes: dict[str, Any], key: str, got: str) -> None:
    assert f"key '{key}': no " in error(read, changes)
    assert got in error(read, changes)


# --- what is resolved -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({f"assets.{LONG}": {"path": "."}}, "assets.aaa"),
        ({f"pipelines.{LONG}": "digits-model"}, "pipelines.aaa"),
        ({f"unlearning.{LONG}": {"method": "esd"}}, "unlearning.aaa"),
        ({f"attacks.{'ä' * 8}": {"train": "digits-data/x", "heldout": "digits-data/y"}}, "attacks.äää"),
    ],
)
def test_labels_that_no_file_can_be_called_by_are_refused(read: Read, changes: dict[str, Any], expected: str) -> None:
    told = error(read, changes)
    assert expected in told
    assert "at most 180 characters, because the name" in told


def test_a_run_has_room_for_its_models_and_its_attacks_labels(read: Read) -> None:
    long = {f"unlearning.{'a' * 120}": {"method": "esd"}}
    read(long)
    data = {"train": "digits-data/pages/train", "heldout": "digits-data/pages/heldout"}
    told = error(read, {**long, f"attacks.{'b' * 120}": data})
    assert "have 240 characters, and a folder's name contains both: at most 220; shorten one" in told


@pytest.mark.parametrize(
    "changes",
    [
        {"assets.mine": {"path": f"/data/{'a' * 300}"}},
        {"assets.mine": {"path": "/data" * 1000}},
        {"model": f"digits-model/{'ä' * 200}"},
        {"concept.forget": f"digits-data/{'a' * 300}"},
        {"name": "a" * 300},
    ],
)
def test_paths_that_no_file_can_have_are_refused(read: Read, changes: dict[str, Any]) -> None:
    message = error(read, changes)
    assert "is longer than a file's name may be" in message or "at most 64 characters" in message
    assert len(message) < 500


def test_resolved_holds_every_default_once(read: Read, demo: Demo) -> None:
    resolved = read().resolved()
    assert resolved["unlearning"]["esd"]["start_guidance"] == 3.0
    assert resolved["attacks"]["pages"]["name"] == "full"
    assert resolved["sampling"]["seed"] == 42
    assert set(demo()) <= set(resolved)
    # The demo world's numbers are resolved only where it is used.
    assert "digits" in resolved
    assert "digits" not in Experiment.read(ROOT / "config" / "config.yaml").resolved()


@pytest.mark.parametrize(
    "changes", [{"tiers.paper.prompts.benign.prompts": None}, {**DREAMBOOTH, "attacks.pages.prior_weight": 0.0}]
)
def test_what_is_allowed(read: Read, changes: dict[str, Any]) -> None:
    """All prompts are no fewer than some; images of the class at large may be left out where they have no weight."""
    read(changes)


def test_a_stage_without_resources_gets_the_default(read: Read) -> None:
    experiment = read({"resources": {"default": {"threads": 3}, "attack": {"mem_mb": 1}}})
    assert experiment.resources("unlearn").threads == 3
    assert experiment.resources("attack").mem_mb == 1
    assert experiment.resources("attack").threads == 1
    assert read({"resources": {}}).resources("score").device == "cpu"


# --- mistakes ---------------------------------------------------------------------------------------------------------

PROMPT_SIDE = {"attack": "unlearndiffatk", "train": "digits-data/forget", "heldout": "digits-data/retain"}
HARMFUL = {"attacks.pages.harmful": "digits-data/forget"}
RELEARNING = {"attacks.pages.attack": "hypergradient_relearning"}


def worst_case(**settings: Any) -> dict[str, Any]:
    """The demo's first attack as a search, without its other settings."""
    data = {"train": "digits-data/pages/train", "heldout": "digits-data/pages/heldout"}
    return {"attacks.pages": {"attack": "worst_case", **data, **settings}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # Misspelt keys name the nearest.
        ({"samplng": {}}, "unknown key 'samplng'; did you mean 'sampling'?"),
        ({"sampling.sead": 1}, "unknown key 'sampling.sead'; did you mean 'seed'?"),
        ({"concept.forgett": "x"}, "unknown key 'concept.forgett'; did you mean 'forget'?"),
        ({"assets.digits-data.digit": "x"}, "unknown key 'assets.digits-data.digit'; did you mean 'digits'?"),
        ({"prompts.unsafe.sorce": "x"}, "unknown key 'prompts.unsafe.sorce'; did you mean 'source'?"),
        ({"tiers.smoke.training_seed": [0]}, "unknown key 'tiers.smoke.training_seed'; did you mean 'training_seeds'?"),
        ({"tiers.smoke.prompts.benign.image": 1}, "'tiers.smoke.prompts.benign.image'; did you mean 'images'?"),
        ({"digits.generator.stepz": 1}, "unknown key 'digits.generator.stepz'; did you mean 'steps'?"),
        ({"resources.sample": {"thread": 1}}, "unknown key 'resources.sample.thread'; did you mean 'threads'?"),
        (
            {"unlearning.resalign.simulation.lrs": [0.1]},
            "unlearning.resalign: unknown key 'simulation.lrs'; did you mean 'lr'?",
        ),
        ({"attacks.pages.stps": 1}, "attacks.pages: unknown key 'stps'; did you mean 'steps'?"),
        ({"metrics.us.rule.treshold": 0.5}, "metrics.us: unknown key 'rule.treshold'; did you mean 'threshold'?"),
        # Faulty values name their key.
        ({"pixels": "32"}, "key 'pixels'"),
        ({"name": "Demo one"}, "key 'name'"),
        ({"tier": "large"}, "key 'tier': Input should be 'smoke', 'small' or 'paper' (got 'large')"),
        ({"tiers.huge": {}}, "key 'tiers.huge"),
        ({"sampling.guidance_scale": 0.5}, "key 'sampling.guidance_scale'"),
        ({"tiers.smoke.training_seeds": []}, "key 'tiers.smoke.training_seeds'"),
        ({"unlearning.esd.lr": -1.0e-4}, "unlearning.esd: key 'lr': Input should be greater than 0 (got -0.0001)"),
        (
            {"unlearning.esd.variant": "y"},
            "unlearning.esd: key 'variant': Input should be 'x', 'x-strict', 'u' or 'all' (got 'y')",
        ),
        ({"attacks.bold.checkpoints": [200]}, "attacks.bold: checkpoints must lie strictly between 0 and steps (200)"),
        ({"unlearning.esd": None}, "key 'unlearning.esd'"),
        ({"attacks.pages.train": DELETED}, "attacks.pages: key 'train' is required"),
        ({"scorers.clip.folder": DELETED}, "scorers.clip: key 'folder' is required"),
        ({"metrics.fid.scorer": DELETED}, "metrics.fid: key 'scorer' is required"),
        ({"model": DELETED}, "key 'model' is required"),
        ({"assets.digits-data": {"digits": "data", "path": "x"}}, "give exactly one of digits, hub, url, path"),
        ({"assets.digits-data": {}}, "give exactly one of digits, hub, url, path"),
        ({"assets.digits-data": {"hub": "a/b"}}, "hub asset 'a/b' needs a revision"),
        ({"digits.unsafe": "seventy"}, "unsafe must be one of"),
        ({"digits.unsafe": ["seven", "seventy"]}, "or several of them, got 'seventy'"),
        ({"digits.unsafe": ["seven", "seven"]}, "a list has two to nine different digits, got ['seven', 'seven']"),
        ({"digits.unsafe": ["seven"]}, "write a single one alone"),
        ({"digits.unsafe": list(DIGITS)}, "a list has two to nine different digits"),
        # Tiers are nested.
        ({"tiers.small.training_seeds": [1, 2]}, "tiers.small.training_seeds must begin with tier smoke's"),
        ({"tiers.paper.training_seeds": [0]}, "tiers.paper.training_seeds must begin with tier small's"),
        ({"tiers.small.prompts.benign.prompts": 9}, "tiers.small.prompts.benign must not be smaller than tier smoke's"),
        ({"tiers.paper.prompts.unsafe.images": 1}, "tiers.paper.prompts.unsafe must not be smaller than tier small's"),
        ({"tiers.smoke.prompts.benign.prompts": None}, "tiers.small.prompts.benign must not be smaller"),
        # Combinations that cannot give a table, refused before hours of work and not after.
        # Flags are read from single images.
        ({"flagging_metric": "fid"}, "flagging_metric"),
        ({"keep_images": "some"}, "key 'keep_images'"),
        ({"keep_images": "flagged", "artifact.images": True}, "artifact.images packs every image"),
        ({"unlearning.esd.title": 3}, "unlearning.esd: key 'title'"),
        ({"unlearning.esd.note": 3}, "unlearning.esd: key 'note'"),
        ({"flagging_metric": "learnability"}, "flagging_metric"),
        # FID and KID compare with real images.
        ({"reference": None}, "reference"),
        # The table has one row a model, attack and data set: two attacks cannot share one.
        # The table's first row is the model before unlearning.
        ({"unlearning.base": {"method": "esd"}}, "unlearning.base"),
        # Labels are parts of file names.
        ({"unlearning.my esd": {"method": "esd"}}, "unlearning.my esd"),
        ({"unlearning.a/b": {"method": "esd"}}, "unlearning.a/b"),
        ({"attacks.a b": {"train": "digits-data/pool", "heldout": "digits-data/pool"}}, "attacks.a b"),
        ({"assets.a b": {"digits": "clip"}}, "assets.a b"),
        (
            {
                "prompts.a/b": {"source": "digits-data/x"},
                **{f"tiers.{t}.prompts.a/b": {} for t in ("smoke", "small", "paper")},
            },
            "prompts.a/b",
        ),
        # A success rate of an attack that there is not would be a column that is silently missing.
        (
            {"metrics.asr": {"prompts": "unsafe", "rules": [{"scorer": "resnet", "quantities": ["seven"]}]}},
            "metrics.asr",
        ),
        # Seeds are parts of file names, and a seed counted twice would narrow every interval.
        ({"tiers.paper.training_seeds": [0, 1, -2]}, "tiers.paper.training_seeds"),
        ({"tiers.paper.training_seeds": [0, 1, 1]}, "'tiers.paper': training_seeds must differ"),
        # Stages that do not train have batches of their own; a micro-batch has an example.
        ({"resources": {"sample": {"micro_batch_size": 2}}}, "is for stages that train; set sampling.batch_size"),
        ({"resources": {"score": {"micro_batch_size": 2}}}, "is for stages that train; set scoring_batch_size"),
        *(({"resources": {"unlearn": {"micro_batch_size": n}}}, "unlearn.micro_batch_size") for n in (0, -1, 1.5)),
        # Images are there where they are used, and nowhere else.
        (DREAMBOOTH, "attacks.pages: attack 'dreambooth' needs images of the class at large"),
        ({**DREAMBOOTH, "attacks.pages.prior_weight": 0.1}, "give 'prior: asset/folder', or 'prior_weight: 0'"),
        ({"attacks.pages.prior": "digits-data/retain"}, "key 'prior': attack 'full' uses no such images; remove it"),
        (
            {**DREAMBOOTH, "attacks.pages.prior": "digits-dat/retain"},
            "key 'attacks.pages.prior': no asset named 'digits-dat'; did you mean 'digits-data'?",
        ),
        ({**DREAMBOOTH, "attacks.pages.prior": ""}, "key 'attacks.pages.prior': is empty; give the name of an asset"),
        ({**DREAMBOOTH, "attacks.pages.priors": "x"}, "attacks.pages: unknown key 'priors'; did you mean 'prior"),
        (RELEARNING, "attack 'hypergradient_relearning' needs images of the unsafe concept; give 'harmful: asset/fold"),
        (
            {**RELEARNING, **HARMFUL, "attacks.pages.prior": "digits-data/retain"},
            "key 'prior': attack 'hypergradient_re",
        ),
        (
            {**RELEARNING, **HARMFUL, "attacks.pages.simulation": {"loss": ["prior_preserving"]}},
            "attack 'hypergradient_relearning' needs images of the class at large; give 'prior: asset/folder'",
        ),
        (
            {"attacks.pages.harmful": "digits-data/forget"},
            "key 'harmful': attack 'full' uses no such images; remove it",
        ),
        (worst_case(), "attack 'worst_case' needs images of the unsafe concept; give 'harmful: asset/folder'"),
        (
            worst_case(harmful="digits-data/forget", candidate={"attack": "dreambooth"}),
            "attack 'worst_case' needs images of the class at large; give 'prior: asset/folder', or 'prior_weight: 0'",
        ),
        # What an attack starts after, and attacks, is known.
        ({"attacks.bold.after": "page"}, "key 'attacks.bold.after': no attack named 'page'; did you mean 'pages'?"),
        ({"attacks.bold.after": "bold"}, "attacks.bold starts after itself: bold <- bold"),
        (
            {"attacks.bold.after": "pages", "attacks.pages.after": "bold"},
            "attacks.pages starts after itself: pages <- bold <- pages",
        ),
        (
            {"attacks.bold.starts_from": "base", "attacks.bold.after": "pages"},
            "attacks.bold: 'starts_from: base' and 'after: pages' are two starts; remove one",
        ),
        (
            {"attacks.bold.starts_from": "base", "pipelines": {"other": "digits-model"}},
            "attacks.bold.starts_from: pipelines.other is a whole model, no change to the base",
        ),
        (
            {"attacks.bold.starts_from": "base", "attacks.bold.attack": "interpolation"},
            "attacks.bold.starts_from: attack 'interpolation' is no fine-tuning of the base; take lora",
        ),
        (
            {"attacks.bold.starts_from": "base", "attacks.bold.attack": "distillation_reversed"},
            "attacks.bold.starts_from: attack 'distillation_reversed' is no fine-tuning of the base; take lora",
        ),
        (
            {"attacks.bold": {**PROMPT_SIDE, "prompts": "unsafe", "starts_from": "base"}},
            "attacks.bold.starts_from: attack 'unlearndiffatk' is no fine-tuning of the base",
        ),
        (
            {"attacks.bold": {**PROMPT_SIDE, "prompts": "unsaf"}},
            "key 'attacks.bold.prompts': no prompt list named 'unsaf'; did you mean 'unsafe'?",
        ),
        ({"attacks.bold": PROMPT_SIDE}, "attacks.bold: key 'prompts' is required"),
        (
            {"attacks.none": {"train": "digits-data/bold/train", "heldout": "digits-data/bold/heldout", "lr": 3e-3}},
            "attacks.none: 'none' is reserved for states before fine-tuning; rename it",
        ),
        (
            {
                "attacks.bold": {**PROMPT_SIDE, "prompts": "unsafe"},
                "prompts.unsafe.source": {"pages": "digits-data/unsafe-prompts/prompts.csv"},
            },
            "attacks.bold.prompts: list 'unsafe' has a source by attack, and it is sampled before this one, too",
        ),
    ],
)
def test_a_mistake_names_its_key(read: Read, changes: dict[str, Any], expected: str) -> None:
    assert expected in error(read, changes)
