"""About what an experiment takes: measured and estimated apart, each with its device and source; the unknown named."""

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from resalign.accounting.costs import Scaling, describe, images
from resalign.accounting.rates import FORWARD, GPUS, GRADIENT, RATES, Rate, Rates, read_gpus, read_rates
from resalign.accounting.work import Work, added_work, image_files, planned_work
from resalign.config.ablations import Ablations
from resalign.config.passes import Passes
from resalign.config.plan import Plan, load_plan
from resalign.config.strict import ConfigError, read_yaml
from tests.nearness import assert_near

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config"
GPU = Rate(3.0, None, 6.0, 500e6, "GPU X", "dev/LOG.md")
UNSCALED = Scaling({}, None)


def demo(**overrides: Any) -> Plan:
    return load_plan(CONFIG / "demo.yaml", {"tier": "smoke", **overrides})


def work_of(plan: Plan) -> dict[tuple[str, str], Work]:
    return {(work.stage, work.member): work for work in planned_work(plan)}


def test_the_papers_jobs_and_that_the_time_of_each_is_known() -> None:
    plan = load_plan(CONFIG / "config.yaml")
    rates, found = read_rates(ROOT / RATES, "sd-v1-4"), work_of(plan)
    # 931 prompts × 3 images, 200 × 3, and before fine-tuning 10,000 × 1; 200 steps of an attack.
    before = sum(len(plan.seeds(stage)) for stage in plan.sample.values() if not stage.attack)
    for key in (("sample", "webp images"), ("score", "images")):
        assert found[key].units == found[key].jobs * 3393 + before * 10000
    assert found["attack", "full"].units == found["attack", "full"].jobs * 200
    assert [key for key, work in found.items() if work.hours(rates) is None] == []
    measured = [key for key, work in found.items() if (own := work.hours(rates)) and own.is_measured]
    assert measured == [("attack", "full")], "the outer step of ResAlign that was timed had other draws"


def test_units_of_the_demo() -> None:
    found = work_of(demo())
    # 6 + 6 + 162 images of each of 4 models; each of 8 attacks has 6 unsafe images of 2 more states.
    assert found["sample", "png images"].units == found["sample", "png images"].kept == 4 * 174 + 8 * 186
    assert (found["attack", "full"].jobs, found["attack", "full"].kept) == (8, 8 * 3)
    search = {"attack": "worst_case", "harmful": "digits-data/harmful/train", "learning_rates": [1e-4, 1e-3]}
    data = {"train": "digits-data/pages/train", "heldout": "digits-data/pages/heldout", "steps": 100}
    worst = work_of(demo(attacks={"worst": {**search, **data}}))["attack", "worst_case"]
    assert worst.units == 4 * 200, "a search takes the steps of all its candidates"


def test_an_ablation_adds_what_the_experiment_does_not_run() -> None:
    values = read_yaml(CONFIG / "demo.yaml") | {"tier": "smoke"}
    added = {(w.stage, w.member): w for w in added_work(Ablations(demo(), values), "gamma")}
    # Three values, one of them the demo's own; each attacks ResAlign once.
    assert {key: work.jobs for key, work in added.items()} == {
        ("unlearn", "resalign"): 2,
        ("attack", "full"): 2,
        ("sample", "png images"): 4,
        ("score", "images"): 4,
    }


def test_hours_that_were_measured() -> None:
    rates: Rates = {("attack", "full"): GPU}
    found = Work("attack", "full", 2, 1200).hours(rates)
    assert found is not None
    assert (found.hours, found.is_measured, found.device) == ((2 * 6 + 1200 * 3) / 3600, True, "GPU X")
    assert Work("attack", "full", 2, None).hours(rates) is None
    assert Work("attack", "lora", 2, 1200).hours(rates) is None


def test_hours_that_follow_from_passes_are_estimates() -> None:
    rates: Rates = {
        GRADIENT: Rate(0.4, device="GPU X"),
        FORWARD: Rate(0.1, device="GPU X"),
        ("attack", "full"): Rate(0.5, Passes(gradient=1), device="GPU X", source="dev/LOG.md"),
        ("unlearn", "*"): Rate(start_seconds=10.0),
    }
    esd = Work("unlearn", "esd", 2, 200, Passes(gradient=1, forward=51) * 200).hours(rates)
    assert esd is not None
    assert not esd.is_measured
    assert_near(esd.hours, (2 * 10 + 200 * (0.4 + 5.1)) / 3600, 1e-12)
    assert esd.source == "a step is 1 gradient + 51 forward passes"
    same = Work("attack", "full", 1, 100, Passes(gradient=100)).hours(rates)
    larger = Work("attack", "full", 1, 100, Passes(gradient=400)).hours(rates)
    assert same is not None
    assert larger is not None
    assert (same.is_measured, larger.is_measured) == (True, False)
    assert_near(larger.hours, 4 * same.hours, 1e-12)
    assert Work("unlearn", "esd", 2, 200).hours(rates) is None, "nobody counts its passes"


def test_a_size_that_is_not_known_is_no_zero() -> None:
    work = Work("attack", "full", 2, 10, kept=3)
    assert work.size_bytes({("attack", "full"): GPU}) == 3 * 500e6
    assert work.size_bytes({}) is None
    assert Work("sample", "png images", 2, None, kept=None).size_bytes({("sample", "png images"): GPU}) is None
    assert Work("unlearn", "imported", 2, 0).size_bytes({}) == 0


def test_files_of_images_and_those_that_stay() -> None:
    plan, rates = load_plan(CONFIG / "config.yaml"), read_rates(ROOT / RATES, "sd-v1-4")
    runs = [stage for stage in plan.sample.values() for _ in plan.seeds(stage)]
    before = [stage for stage in plan.sample.values() if not stage.attack]
    shown = plan.experiment.config.report.gallery_prompts * len(before)  # captions of COCO, of the first seed
    in_shards = (3 + 1) * len(runs) + 10 * sum(not stage.attack for stage in runs)
    assert image_files(plan) == (in_shards, 10_000, shown)
    text = images(plan, rates, 3e9)
    number = f"in {in_shards:,} files and up to 10,000 more while a job samples"
    assert text.startswith(
        f"at most 3.0 GB at once, {number}; keep_images: flagged leaves {shown} images that the page"
    )
    assert text.endswith(" and those that ip flags, at most all")
    assert images(demo(), rates, 3e9) == f"{4 * 174 + 8 * 186:,} files; all images stay"
    assert images(demo(keep_images="sample"), {}, 0.0).endswith(" images that the page shows (size not known)")
    whole = {"prompts": None}
    tiers = {"smoke": {"training_seeds": [0], "prompts": dict.fromkeys(demo().experiment.config.prompts, whole)}}
    assert images(demo(tiers=tiers), rates, 0.0) == "as many as the lists give, keep_images: all"


def test_what_has_no_rate_enters_no_sum() -> None:
    rates: Rates = {("attack", "full"): GPU, ("unlearn", "*"): Rate(size_bytes=2e9)}
    text = describe(demo(), rates, UNSCALED)
    # 8 × (6 + 200 × 3) s; 24 states of 500 MB, 3 models of 2 GB.
    head = " ".join(text.partition("\nstage")[0].split())
    assert head.startswith("demo, tier smoke: at least 1.3 h of one GPU X; not known: assets autoencoder, ")
    assert "about 18.0 GB of results (weights 18.0 GB, without assets autoencoder, " in head
    assert "unlearn" not in head.partition(" without ")[2]
    assert "attack full: measured on one GPU X, dev/LOG.md" in text
    rows = [line.split() for line in text.splitlines() if line.startswith(("assets model", "all"))]
    assert rows == [
        ["assets", "model", "1", "1", *["-", "not", "known", "not", "known"]],
        ["all", *["not", "known"] * 3],
    ]
    assert "hours unknown" in describe(demo(), {}, UNSCALED)


@pytest.mark.parametrize("less_memory", [{"gradient_checkpointing": True}, {"micro_batch_size": 1}])
def test_passes_that_are_computed_again_take_a_third_more(less_memory: dict[str, Any]) -> None:
    usual, again = (
        next(work for work in planned_work(plan) if work.member == "resalign").passes
        for plan in (demo(), demo(resources={"unlearn": less_memory}))
    )
    assert usual is not None
    assert again is not None
    assert again.gradient == pytest.approx(usual.gradient * 4 / 3)
    assert again.forward == usual.forward > 0


def test_devices_are_never_added_up() -> None:
    rates: Rates = {("attack", "full"): GPU, ("sample", "png images"): Rate(1.0, device="core")}
    text = " ".join(describe(demo(), rates, UNSCALED).split())
    assert "at least 1.3 h of one GPU X, at least 0.6 h of one core" in text


def test_hours_of_another_gpu_are_as_much_longer_as_its_memory_is_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    rates = read_rates(RATES, "sd-v1-4")
    plan, gpus = load_plan("config/config.yaml", {"tier": "smoke"}), read_gpus()
    work = next(work for work in planned_work(plan) if work.member == "resalign")
    own = work.hours(rates)
    assert own is not None
    scaled = Scaling.to("a100", rates)(own)
    assert_near(scaled.hours, own.hours * gpus["h100"].bandwidth / gpus["a100"].bandwidth, 1e-12)
    text = describe(plan, rates, Scaling.to("a100", rates))
    assert "h of one A100 80GB (" in text
    assert "3,350 to 2,039 GB/s" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 100
    with pytest.raises(ConfigError, match="--gpu a1000: not in .*did you mean 'a100'"):
        Scaling.to("a1000", rates)
    with pytest.raises(ConfigError, match="no GPU's rates of this model"):
        Scaling.to("a100", read_rates(RATES, "digits-model"))


def test_the_committed_rates_name_device_and_source() -> None:
    with (ROOT / RATES).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["model"] for row in rows} == {"sd-v1-4", "digits-model"}
    for row in rows:
        known = row["source"].startswith(("dev/LOG.md ", "estimated: "))
        assert bool(row["seconds"]) == bool(row["device"]) == known, row
    assert sum(len(read_rates(ROOT / RATES, model)) for model in ("digits-model", "sd-v1-4")) == len(rows), "one twice"
    gpus = {gpu.name for gpu in read_gpus(ROOT / GPUS).values()}
    assert {row["device"] for row in rows if row["model"] == "sd-v1-4"} - {""} <= gpus


@pytest.mark.parametrize(
    "content", ["stage,labels\na,b\n", "model,stage,member,seconds\nm,a,b,c\n", "model,stage\nm\n"]
)
def test_a_table_of_something_else_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "rates.csv").write_text(content.replace("stage,labels\na", "model,labels\nm"))
    with pytest.raises(ValueError, match="is no such table"):
        read_rates(tmp_path / "rates.csv", "m")


@pytest.mark.parametrize(
    ("arguments", "device"),
    [((), "H100 80GB"), (("--configfile", "config/demo.yaml"), "x86_64 core (1 of 2)")],
)
def test_the_command_is_quick_and_imports_no_torch(arguments: tuple[str, ...], device: str) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv = {['costs', *arguments]}\n"
        "runpy.run_module('resalign.accounting.costs', run_name='__main__')\n"
        "assert not {'torch', 'pandas', 'numpy'} & set(sys.modules)\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert f"h of one {device}" in finished.stdout
