"""What Snakemake would run after an edit: exactly what the edit can have changed, and nothing else."""

import re
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace

import pytest
import yaml

from resalign.config import registry
from resalign.config.plan import load_plan
from resalign.jobs import theory

from .conftest import ROOT, Checkout

# What every edit of one method makes anew: its weights, both attacks on it, images and scores of all three states.
ATTACKS = ("pages", "bold")
REPORT = {"measure": {""}, "report": {""}}
TRIED = {"check_scorers": {""}}
# Runs a command; prints its CPU seconds and its peak memory.
MEASURED = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime, used.ru_maxrss)
"""


def runs_of(*models: str) -> dict[str, set[str]]:
    attacked = {f"{model}.{attack}" for model in models for attack in ATTACKS}
    states = set(models) | attacked
    return {"unlearn": set(models) - {"base"}, "attack": attacked, "sample": states, "score": states, **REPORT}


def comment_in_body(text: str) -> str:
    """A comment as the first line of the file's last function body."""
    head, signature, body = re.split(
        r"(\n    \"\"\"[^\"]*\"\"\"\n)(?!.*\n    \"\"\")", text, maxsplit=1, flags=re.DOTALL
    )
    return f"{head}{signature}    # an edit\n{body}"


def test_nothing_is_to_be_done_when_all_is_made(finished: Checkout) -> None:
    assert finished.planned() == {}


def test_editing_a_method_reruns_its_own_jobs_only(finished: Checkout) -> None:
    with finished.edited("src/resalign/unlearning/esd.py", comment_in_body):
        assert finished.planned() == runs_of("esd")


@pytest.mark.slow
def test_editing_a_module_that_resalign_imports_reruns_resalign(finished: Checkout) -> None:
    with finished.edited("src/resalign/bilevel/hvp.py", comment_in_body):
        assert finished.planned() == runs_of("resalign")


@pytest.mark.slow
def test_editing_a_metric_remakes_the_tables_only(finished: Checkout) -> None:
    with finished.edited("src/resalign/metrics/ip.py", comment_in_body):
        assert finished.planned() == REPORT


@pytest.mark.slow
def test_editing_an_attack_reruns_attacks_and_what_follows(finished: Checkout) -> None:
    attacked = runs_of("base", "graddiff", "esd", "resalign")["attack"]
    with finished.edited("src/resalign/attacks/full.py", comment_in_body):
        assert finished.planned() == {"attack": attacked, "sample": attacked, "score": attacked, **REPORT}


def test_editing_what_no_job_uses_reruns_nothing(finished: Checkout) -> None:
    with ExitStack() as edits:
        # The last one is a new method, which no configuration names.
        names = ("tests/test_example.py", "src/resalign/unlearning/imported.py", "README.md")
        for name in (*names, "src/resalign/unlearning/gentler.py"):
            edits.enter_context(finished.edited(name, lambda text: f"{text}\n# an edit\n"))
        assert finished.planned() == {}


@pytest.mark.slow
def test_a_new_threshold_tries_the_detectors_again_and_remakes_the_tables_only(finished: Checkout) -> None:
    def stricter(text: str) -> str:
        config = yaml.safe_load(text)
        config["metrics"]["us"]["rule"]["threshold"] = 0.9
        return yaml.safe_dump(config)

    with finished.edited("config/demo.yaml", stricter):
        assert finished.planned() == {**TRIED, **REPORT}


def test_the_detectors_are_tried_before_the_model_is_unlearned(finished: Checkout) -> None:
    """Nothing that trains waits for it, so that another threshold trains nothing anew: its priority is what counts."""
    rules = (finished.folder / "workflow/rules/inputs.smk").read_text()
    assert "priority: 100" in rules.partition("rule check_scorers:")[2]
    forced = finished.planned(forced=("check_scorers",))
    assert forced == {**TRIED, "report": {""}}


@pytest.mark.slow
def test_a_new_file_is_a_new_method_with_no_other_edit(finished: Checkout) -> None:
    assert "gentler" not in registry.members("unlearning")
    source = (finished.folder / "src/resalign/unlearning/graddiff.py").read_text()
    entry = "unlearning:\n  gentler: {steps: 5}\n"
    with (
        finished.edited("src/resalign/unlearning/gentler.py", lambda _: source),
        finished.edited("config/demo.yaml", lambda text: text.replace("unlearning:\n", entry)),
    ):
        assert finished.planned() == runs_of("gentler")


@pytest.mark.slow
def test_a_larger_tier_keeps_every_weight(finished: Checkout) -> None:
    # The smoke tier's one seed is the small tier's first: it is neither unlearned nor attacked again.
    larger = Checkout(finished.folder, tier="small")
    dry = larger.snakemake("--dry-run").stdout
    trained = re.findall(r"rule (?:unlearn|attack):\n(?:    .*\n)*?    wildcards: run=\S+ seed=(\d+)", dry)
    assert set(trained) == {"1"}
    sampled = re.findall(r"rule sample:\n(?:    .*\n)*?    wildcards: run=\S+ seed=(\d+), tier=(\w+)", dry)
    assert set(sampled) == {("0", "small"), ("1", "small")}


@pytest.mark.slow
def test_one_nested_setting_is_overridden_on_the_command_line(finished: Checkout) -> None:
    assert finished.planned("unlearning={resalign: {gamma: 0.1, solver: minres}}") == runs_of("resalign")


@pytest.mark.slow
def test_a_sentence_in_a_file_stays_one(finished: Checkout) -> None:
    own = "extends: config/demo.yaml\nname: own\nunlearning: {graddiff: {note: 'One part: the gradient', lr: 1e-3}}\n"
    with finished.edited("config/own.yaml", lambda _: own):
        assert "graddiff" in Checkout(finished.folder, config="config/own.yaml").planned()["unlearn"]


@pytest.mark.slow
def test_an_audit_is_the_audited_models_and_their_attacks(finished: Checkout) -> None:
    # Of the base everything is made already, by the experiment that is extended.
    entries = "{mine: models/mine, other: {checkpoint: weights/mine}}"
    text = f"extends: config/demo.yaml\nname: my-audit\naudit: {entries}\n"
    with finished.edited("config/my-audit.yaml", lambda _: text):
        planned = Checkout(finished.folder, "config/my-audit.yaml").planned(target="audit")
    # A checkpoint is held against the base before any work only where the base lies here already.
    wanted = runs_of("mine", "other") | {"unlearn": {"other"}, "check_inputs": {""}, "cards": {""}}
    del wanted["report"]
    assert planned == wanted


@pytest.mark.slow
def test_audits_are_planned_only_when_they_are_asked_for(finished: Checkout) -> None:
    asked = finished.snakemake("--dry-run", "--", "audit", "second_order").stdout
    rules = {"audit", "cards", "second_order_draw", "second_order"}
    assert set(re.findall(r"^rule (\w+):", asked, flags=re.MULTILINE)) == rules


@pytest.mark.slow
def test_the_theory_is_measured_from_what_is_there(finished: Checkout) -> None:
    finished.forget("results/demo/theory", "results/runs/theory")
    models = {"base", "graddiff", "esd", "resalign"}
    rules = ("theory_shown", "linear_model")
    assert finished.planned(target="theory") == {"theory_state": models, **dict.fromkeys(rules, {""})}


@pytest.mark.slow
def test_deleting_a_file_of_the_theory_remakes_what_shows_it_and_measures_nothing(finished: Checkout) -> None:
    finished.make_everything("theory")
    shown = [name for name in theory.files(load_plan(ROOT / "config/demo.yaml")) if "linear-model/" not in name]
    lost = [finished.folder / name for name in (shown[0], shown[-1])]
    for path in lost:
        path.unlink()
    assert finished.planned(target="theory") == {"theory_shown": {""}}
    for path in lost:
        path.write_text("{}")


@pytest.mark.slow
def test_thousands_of_jobs_are_planned_in_little_time_and_memory(finished: Checkout) -> None:
    seeds = {"training_seeds": list(range(100))}
    text = yaml.safe_dump({"extends": "config/demo.yaml", "name": "many", "tiers": {"small": seeds, "paper": seeds}})
    with finished.edited("config/many.yaml", lambda _: text):
        command = replace(finished, config="config/many.yaml", tier="small").command("--dry-run", "--quiet", "all")
        # Measured by a small process: a child's peak begins at that of the process that has forked it.
        measured = [sys.executable, "-c", MEASURED, *command.pop("args")]
        done = subprocess.run(measured, capture_output=True, check=True, **command)
    seconds, kilobytes = map(float, done.stdout.split()[-2:])
    # 3,315 jobs: 10 s of CPU and 300 MB; with every source file as an input of every job 19 s and 490 MB.
    assert kilobytes < 400_000
    assert seconds < 30
