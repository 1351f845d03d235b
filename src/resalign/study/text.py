"""Writes a study in Markdown from its numbers: what is compared, its tables, and each claim with its verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from resalign.analysis.measurements import NOT_ATTACKED
from resalign.analysis.statistics import FEWEST_SEEDS
from resalign.config.study import StudyConfig
from resalign.display.text_table import markdown
from resalign.display.values import relapse_note
from resalign.study.claims import ALL, FRONT, INSIDE, OUTSIDE, PRIMARY, SECONDARY, TESTABLE
from resalign.study.table import BEFORE, Study

_POOLED = {ALL: "over all attacks", INSIDE: "inside the simulated range", OUTSIDE: "outside it"}
_VERDICTS = {"holds": "holds", "not shown": "is not shown", "fails": "fails", "not testable": "is not testable"}
_EFFECTS = {"below 0": "IP is lower with", "above 0": "IP is higher with"}
_NO_EFFECT = "no effect on IP is shown of"
MOST_NAMED = 3  # of the components without an effect, in a summary
Row = Mapping[Any, Any]


def study_markdown(
    study: Study, table: pd.DataFrame, fronts: pd.DataFrame, tested: pd.DataFrame, manifest: Mapping[str, Any]
) -> str:
    """The whole text of ``study.md``.

    Args:
        study: The counts behind the frames, and what was registered.
        table: From :func:`resalign.study.table.study_table`.
        fronts: From :func:`resalign.study.fronts.front_table`.
        tested: From :func:`resalign.study.claims.claims`.
        manifest: See :func:`resalign.study.manifest.study_manifest`.
    """
    config = study.config
    parts = [
        *opening(study),
        "IP before and after fine-tuning, and each model's highest after it (lower is better):",
        ip_table(study, table),
        "Utilities before fine-tuning (higher is better):",
        utility_table(study, table),
    ]
    if config.fronts:
        parts += ["Area under the front of mean utility before and 1 − IP after all attacks:", front_rows(fronts)]
    parts += [
        "Claims, fixed before the study was run:",
        "\n".join(claim_sentences(tested, config)),
        "<details><summary>All claims by state</summary>",
        claims_table(tested),
        "</details>",
        _footnote(study, table, manifest),
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def summary(tested: pd.DataFrame, config: StudyConfig) -> str:
    """The outcome in three sentences at the most, from verdicts over all attacks alone.

    Args:
        tested: From :func:`resalign.study.claims.claims`.
        config: What was registered.
    """
    pooled = tested[(tested["state"] == ALL) & (tested["quantity"] == config.safety)]
    sentences = [_claimed(_at(pooled[pooled["claim"] == PRIMARY], ALL, config.safety), config)]
    others = pooled[pooled["claim"] == SECONDARY]
    if len(others):
        names = {verdict: [f"`{name}`" for name in rows["other"]] for verdict, rows in others.groupby("verdict")}
        found = [f"{_VERDICTS[str(verdict)]} for {_listed(models)}" for verdict, models in names.items()]
        sentences.append(f"Against the other baselines it {_listed(found)}.")
    if config.contrasts:
        effects: dict[str, list[str]] = {}
        for contrast in config.contrasts:
            for effect in _effects(tested[tested["claim"] == contrast.component], config):
                effects.setdefault(effect, []).append(contrast.component)
        if len(without := effects.pop(_NO_EFFECT, [])) > MOST_NAMED:
            without = [f"{'the other' if len(without) < len(config.contrasts) else 'any of the'} {len(without)}"]
        effects |= {_NO_EFFECT: without} if without else {}
        found = [f"{effect} {_listed(components)}" for effect, components in effects.items()]
        sentences.append(f"Components: {'; '.join(found)}.")
    return " ".join(sentences)


def _effects(rows: pd.DataFrame, config: StudyConfig) -> list[str]:
    """What a component does to IP over all attacks, and which utilities it lowers or raises."""
    effects = [_EFFECTS.get(str(_at(rows, ALL, config.safety)["verdict"]), _NO_EFFECT)]
    utilities = rows[rows["quantity"] != config.safety]
    for verdict, comparative in (("below 0", "lower"), ("above 0", "higher")):
        effects += [
            f"`{name}` is {comparative} with" for name in utilities[utilities["verdict"] == verdict]["quantity"]
        ]
    return effects


def opening(study: Study) -> tuple[str, str]:
    """The title, and a paragraph on what each model is."""
    config = study.config
    baselines = ", ".join(f"`{name}`" for name in config.baselines)
    pairs = [f"`{pair.treated}` has {pair.component}, which `{pair.control}` lacks" for pair in config.contrasts]
    sentences = [
        f"`{study.base}` is the model before unlearning, `{config.method}` is the method, and it is compared with "
        f"{baselines}; the primary claim is against `{config.baseline}`.",
        "IP is the share of images, on unsafe prompts, that show the concept to a detector.",
        *([f"Models that differ in one component: {'; '.join(pairs)}."] if pairs else []),
        "All settings stand in the configuration that the last line names.",
    ]
    return f"# `{config.method}` against `{config.baseline}` and other baselines", " ".join(sentences)


def ip_table(study: Study, table: pd.DataFrame) -> str:
    """One row per model, one column per state, and the highest of those after fine-tuning."""
    states, rows = [BEFORE, *study.attacked], []
    for model in study.models:
        own = table[(table["model"] == model) & (table["measure"] == study.config.safety)].to_dict("records")
        by_state = {(row["attack"], row["steps"]): row for row in own}
        worst = max(study.attacked, key=lambda state: float(by_state[state]["rate"]))
        cells = [_cell(by_state[state], "rate") for state in states]
        rows.append([f"`{model}`", *cells, f"{_number(by_state[worst]['rate'])}, {study.title(worst)}"])
    return markdown(["model", *(study.title(state) for state in states), "highest"], rows)


def utility_table(study: Study, table: pd.DataFrame) -> str:
    """One row per model, one column per utility."""
    utilities, rows = study.config.utilities, []
    for model in study.models:
        own = {row["measure"]: row for row in table[table["model"] == model].to_dict("records")}
        rows.append([f"`{model}`", *(_cell(own[utility], "rate") for utility in utilities)])
    return markdown(["model", *utilities], rows)


def front_rows(fronts: pd.DataFrame) -> str:
    """One row per family."""
    rows = [[f"`{row['family']}`", row["models"], _cell(row, "area")] for row in fronts.to_dict("records")]
    return markdown(["family", "settings", "area"], rows)


def claim_sentences(tested: pd.DataFrame, config: StudyConfig) -> list[str]:
    """One bullet per baseline, component and pair of fronts: its results over several states, and by state."""
    bullets = []
    for baseline, rows in tested[tested["claim"].isin([PRIMARY, SECONDARY])].groupby("other", sort=False):
        pooled = _at(rows, ALL, config.safety)
        base = _at(tested[tested["claim"] == TESTABLE], ALL, config.safety)
        untested = (
            f" IP after fine-tuning is {_number(base['value'])} for `{base['model']}`, of at least "
            f"{config.least_base:g}, and {_number(pooled['other_value'])} for `{baseline}`, of at least "
            f"{config.least_baseline:g}."
        )
        head = f"- **{pooled['claim'].capitalize()}.** {_claimed(pooled, config)}"
        bullets.append(head + untested * (pooled["verdict"] == "not testable") + _results(rows, config))
    for contrast in config.contrasts:
        head = f"- **Effect of {contrast.component}** (`{contrast.treated}` against `{contrast.control}`)."
        bullets.append(head + _results(tested[tested["claim"] == contrast.component], config))
    for row in tested[tested["claim"] == FRONT].to_dict("records"):
        bullets.append(f"- **Area under the front** of `{row['model']}`: {_compared(row)}.")
    return bullets


def _at(rows: pd.DataFrame, state: str, quantity: str) -> Row:
    return dict(rows[(rows["state"] == state) & (rows["quantity"] == quantity)].iloc[0])


def _results(rows: pd.DataFrame, config: StudyConfig) -> str:
    """A claim's results over several states and of the utilities, and how often each verdict is that of one state."""
    pooled, before, single = [], [], []
    for row in rows.to_dict("records"):
        if row["quantity"] != config.safety:
            before.append(f"{row['quantity']} before fine-tuning: {_compared(row)}.")
        elif row["state"] in _POOLED:
            pooled.append(f"IP {_POOLED[row['state']]}: {_compared(row)}.")
        else:
            single.append(row["verdict"])
    counts = [f"{verdict} in {single.count(verdict)} of {len(single)}" for verdict in dict.fromkeys(single)]
    return " ".join(["", *pooled, *before, f"By state: {', '.join(counts)}."])


def claims_table(tested: pd.DataFrame) -> str:
    """Every claim in every state: the difference, its interval, and the verdict."""
    rows = []
    for row in tested.to_dict("records"):
        names = f"`{row['model']}`" + (f" − `{row['other']}`" if row["other"] else "")
        result = _number(row["value"]) if row["claim"] == TESTABLE else _signed(row)
        rows.append(
            [row["claim"], f"{row['quantity']}, {names}", row["state"], result, row["verdict"] + "*" * row["rare"]]
        )
    return markdown(["claim", "quantity", "state", "result", "verdict"], rows)


def _claimed(row: Row, config: StudyConfig) -> str:
    """The claim against a baseline, with its verdict, as a sentence."""
    return (
        f"That after fine-tuning `{row['model']}` shows the concept less than `{row['other']}`, with no utility before "
        f"it more than {config.utility_margin:g} lower, **{_VERDICTS[row['verdict']]}**."
    )


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _compared(row: Row) -> str:
    """Such as ``0.02, against 0.31 for `esd`; difference −0.29 [−0.40, −0.18]; the claim holds``."""
    other = f"{_number(row['other_value'])} for `{row['other']}`"
    whole = row["claim"] in (PRIMARY, SECONDARY) and row["state"] in _POOLED
    verdict = f"the claim {_VERDICTS[row['verdict']]}" if whole else row["verdict"]
    return f"{_number(row['value'])}, against {other}; difference {_signed(row)}; {verdict}{_doubt(row)}"


def _doubt(row: Row) -> str:
    """Why nothing holds, whatever the interval."""
    few = "too few prompts show the event for the interval to be reliable" if row["rare"] else ""
    one_or_two = f"{row['seeds']} of at least {FEWEST_SEEDS} training seeds" if row["seeds"] < FEWEST_SEEDS else ""
    reasons = "; ".join(filter(None, (few, one_or_two)))
    return f" ({reasons})" if reasons else ""


# Of rates, and of differences between models.
_INTERVALS = {
    "bootstrap": (
        "cluster bootstrap over prompts and training seeds",
        "the same bootstrap, both models on the same draws of prompts and seeds",
    ),
    "two_way_t": (
        "Student t with prompts and training seeds both random, on the logit's scale",
        "Student t of the two models' difference at each prompt and seed",
    ),
}


def _registered(registered: Mapping[str, Any] | None) -> str:
    if registered is None:
        return "NOT REGISTERED: nothing fixed configuration and claims before the first run."
    if amended := registered.get("amended"):
        reasons = "; ".join(entry["reason"] for entry in amended)
        return f"**Amended** since the first registration, which is older than the first run: {reasons}."
    return "Configuration and claims are those of `registered.json`, whose commit is older than the first run."


def _footnote(study: Study, table: pd.DataFrame, manifest: Mapping[str, Any]) -> str:
    """Sample sizes, interval methods, what the verdicts are, the command that makes the study again, and its time."""
    config, settings = study.config, study.settings
    sizes = "; ".join(
        f"{name}: {manifest['cells'][name]['images']} images per cell ({manifest['cells'][name]['prompts']} prompts, "
        f"{manifest['cells'][name]['seeds']} seeds)"
        for name in config.measures
    )
    rates, differences = _INTERVALS[settings.interval]
    after = table[(table["attack"] != NOT_ATTACKED) & (table["measure"] == config.safety)]
    text = (
        f"{100 * settings.confidence:g} % intervals. {sizes}; before fine-tuning, a model that nothing trained is the "
        f"same at every seed. Rates: {rates}, Clopper–Pearson over prompts where fewer than {settings.rare_prompts} "
        f"show (or lack) the event; differences: {differences}; areas: Student t over training seeds. A claim "
        f"**holds** if the whole interval of IP's difference is below 0 and that of every utility's above "
        f"−{config.utility_margin:g}. It **fails** if one of these intervals is wholly beyond its bound, is **not "
        f"testable** if IP after fine-tuning is below {config.least_base:g} for `{study.base}` or below "
        f"{config.least_baseline:g} for the baseline, and is **not shown** otherwise, as it is if fewer than "
        f"{settings.rare_prompts} prompts show the event in either model (marked * in the table), or with fewer than "
        f"{FEWEST_SEEDS} training seeds. {_registered(manifest['registered'])} Made with "
        f"`{manifest['command']}`: {manifest['hours']['total']:.1f} hours of computation over all jobs, on "
        f"{' or '.join(map(str, manifest['cpus']))} cores."
    )
    zero = relapse_note(after.loc[after["rate"] == 0, "seeds"], settings)
    return f"{text} {zero}".strip()


def _cell(row: Row, quantity: str) -> str:
    """``0.12 [0.08, 0.17]``, without the interval where there is none."""
    return f"{_number(row[quantity])} {_ends(row)}".strip()


def _ends(row: Row, *, sign: bool = False) -> str:
    low, high = float(row["low"]), float(row["high"])
    return "" if math.isnan(low) else f"[{_number(low, sign=sign)}, {_number(high, sign=sign)}]"


def _signed(row: Row) -> str:
    return f"{_number(row['estimate'], sign=True)} {_ends(row, sign=True)}".strip()


def _number(value: float, *, sign: bool = False) -> str:
    """Two decimals and a true minus sign; a value that rounds to zero has no sign."""
    text = f"{value:+.2f}" if sign else f"{value:.2f}"
    return text.lstrip("+-") if not float(text) else text.replace("-", "−")
