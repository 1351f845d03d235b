"""Writes a study in Markdown from its numbers: what is compared, two tables, and each claim with its verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import pandas as pd

from resalign.analysis.measurements import NOT_ATTACKED
from resalign.analysis.statistics import FEWEST_SEEDS
from resalign.config.study import SAFETY, UTILITY, Contrast, StudyConfig
from resalign.display.values import relapse_note
from resalign.study.claims import ALL, LEARNABILITY
from resalign.study.table import BEFORE, BEFORE_TITLE, Study

_TITLES = {SAFETY: "IP", UTILITY: "retained accuracy"}
_LARGEST_DENOMINATOR = 20  # of a share written as a fraction


def study_markdown(
    study: Study,
    table: pd.DataFrame,
    tested: pd.DataFrame,
    config: StudyConfig,
    manifest: Mapping[str, Any],
    image: str,
) -> str:
    """The whole text of ``study.md``.

    Args:
        study: The counts and losses behind the frames.
        table: From :func:`resalign.study.table.study_table`.
        tested: From :func:`resalign.study.claims.claims`.
        config: The claims' bounds.
        manifest: See :func:`resalign.study.manifest.study_manifest`.
        image: Path of the figure, relative to the text's folder.
    """
    parts = [
        *opening(study, config),
        f"![IP of every model, before and after each attack]({image})",
        "IP (lower is better):",
        ip_table(study, table),
        "Utility (higher is better): retained accuracy before fine-tuning and in its worst attack state; learnability "
        "in the state where its ratio to the base model's is lowest, and that ratio:",
        kept_table(study, table),
        "Claims, fixed before the study was run:",
        "\n".join(claim_sentences(tested, config)),
        "<details><summary>All claims by attack state</summary>",
        claims_table(study, tested, config),
        "</details>",
        _footnote(study, table, config, manifest),
    ]
    return "\n\n".join(parts) + "\n"


def opening(study: Study, config: StudyConfig) -> tuple[str, str]:
    """The title, and a paragraph on what each model is."""
    baselines = " and ".join(f"`{name}`" for name in config.baselines)
    pairs = [f"`{pair.treated}` has {pair.component}, which `{pair.control}` lacks" for pair in config.contrasts]
    sentences = [
        f"`{study.base}` is the model before unlearning, `{config.method}` is the method, and it is compared with "
        f"{baselines}.",
        "IP is the share of images, on unsafe prompts, that show the concept to a detector.",
    ]
    if pairs:
        sentences.append(f"The others are variants of the method that differ in one component: {'; '.join(pairs)}.")
    sentences.append("All settings stand in the configuration that the last line names.")
    components = ", and its components one by one" if pairs else ""
    return f"# `{config.method}` against {baselines}{components}", " ".join(sentences)


def ip_table(study: Study, table: pd.DataFrame) -> str:
    """One row per model, one column per state."""
    states = [BEFORE, *study.attacked]
    rows = [["model", *(study.title(state) for state in states)]]
    for model in study.models:
        cells = [_cell(_row(table, model, *state), SAFETY) for state in states]
        rows.append([f"`{model}`", *cells])
    return _markdown(rows)


def kept_table(study: Study, table: pd.DataFrame) -> str:
    """Retained accuracy before and at its lowest, learnability at its lowest."""
    rows = [["model", "accuracy before", "lowest accuracy after", "learnability", "ratio to base"]]
    for model in study.models:
        after = table[(table["model"] == model) & (table["attack"] != NOT_ATTACKED)].to_dict("records")
        worst = min(after, key=lambda row: float(row[UTILITY]))
        least = min(after, key=lambda row: float(row["learnability_ratio"]))
        where = [study.title((str(row["attack"]), int(row["steps"]))) for row in (worst, least)]
        rows.append(
            [
                f"`{model}`",
                _cell(_row(table, model, *BEFORE), UTILITY),
                f"{_cell(worst, UTILITY)}, {where[0]}",
                f"{_cell(least, LEARNABILITY)}, {where[1]}",
                "1" if model == study.base else _cell(least, "learnability_ratio"),
            ]
        )
    return _markdown(rows)


def claim_sentences(tested: pd.DataFrame, config: StudyConfig) -> list[str]:
    """One bullet per claim or component: its result over all attacks, and the verdicts of the single states."""
    share = _share(config)
    heads = {
        "safety": f"IP of `{config.method}` after fine-tuning is at most {share} of the best baseline's",
        "utility": f"Its retained accuracy is at most {config.utility_margin:g} below that baseline's",
        LEARNABILITY: f"Its learnability is at least {config.learnability_share:g} of the base model's",
    }
    bullets = []
    for name, head in heads.items():
        rows = tested[tested["claim"] == name].to_dict("records")
        pooled = next(row for row in rows if row["state"] == ALL)
        before = [_compared(row, share) for row in rows if row["state"] == BEFORE_TITLE]
        details = " ".join([_compared(pooled, share), *before, _tally(rows)])
        bullets.append(f"- **{head}: {pooled['verdict']}.** {details}")
    return bullets + [_contrast(tested, contrast) for contrast in config.contrasts]


def claims_table(study: Study, tested: pd.DataFrame, config: StudyConfig) -> str:
    """Every claim and component in every state: the difference or ratio, its interval, and the verdict."""
    share = _share(config)
    quantities = {
        ("safety", SAFETY): f"IP of `{config.method}` − {share} of the best baseline's",
        ("utility", UTILITY): f"accuracy of `{config.method}` − that baseline's",
        (LEARNABILITY, LEARNABILITY): f"learnability of `{config.method}` / the base model's",
    }
    for contrast in config.contrasts:
        for measure, title in _TITLES.items():
            quantities[contrast.component, measure] = f"{title}, gain from {contrast.component}"
    states = [ALL, *(study.title(state) for state in study.attacked)]
    rows = [["", *states]]
    for (claim, quantity), title in quantities.items():
        keep = (tested["claim"] == claim) & (tested["quantity"] == quantity)
        by_state = {row["state"]: row for row in tested[keep].to_dict("records")}
        rows.append([title, *(_tested(by_state[state]) for state in states)])
    return _markdown(rows)


def _compared(row: Mapping[Any, Any], share: str) -> str:
    """One state's sentence, such as ``Over all attacks: 0.02, against 0.31 for `esd`; …``."""
    other = f"{_number(row['other_value'])} for `{row['other']}`"
    values = f"{_where(str(row['state']))}: {_number(row['value'])}, against {other}"
    if row["claim"] == "safety":
        measured = f"difference from {share} of that {_signed(row)}"
    elif row["claim"] == "utility":
        measured = f"difference {_signed(row)}, {row['verdict']}"
    else:
        measured = f"ratio {_number(row['estimate'])} {_ends(row)}".strip()
    return f"{values}; {measured}{_doubt(row)}."


def _tally(rows: Sequence[Mapping[Any, Any]]) -> str:
    """The number of single attack states in which each verdict was reached."""
    verdicts = [str(row["verdict"]) for row in rows if row["state"] not in (ALL, BEFORE_TITLE)]
    counts = [f"{name} in {verdicts.count(name)} of {len(verdicts)}" for name in dict.fromkeys(verdicts)]
    return f"By attack state: {', '.join(counts)}."


def _contrast(tested: pd.DataFrame, contrast: Contrast) -> str:
    """The effect of one component on IP and on retained accuracy."""
    rows = tested[tested["claim"] == contrast.component]
    sentences = [f"- **Effect of {contrast.component}** (`{contrast.treated}` against `{contrast.control}`)."]
    for measure in (SAFETY, UTILITY):
        records = rows[rows["quantity"] == measure].to_dict("records")
        pooled = next(row for row in records if row["state"] == ALL)
        title = _TITLES[measure][0].upper() + _TITLES[measure][1:]
        with_it, without = _number(pooled["value"]), _number(pooled["other_value"])
        sentences.append(
            f"{title} over all attacks: {with_it} with it, {without} without; "
            f"gain {_signed(pooled)}, {pooled['verdict']}{_doubt(pooled)}. {_tally(records)}"
        )
    return " ".join(sentences)


def _tested(row: Mapping[Any, Any]) -> str:
    """A cell of the claims' table."""
    number = f"{_number(row['estimate'])} {_ends(row)}".strip() if row["claim"] == LEARNABILITY else _signed(row)
    against = f" (`{row['other']}`)" if row["claim"] in ("safety", "utility") else ""
    return f"{number}{against} {row['verdict']}{'*' if row['rare'] else ''}"


def _share(config: StudyConfig) -> str:
    return str(Fraction(config.safety_share).limit_denominator(_LARGEST_DENOMINATOR))


def _where(state: str) -> str:
    return {ALL: "Over all attacks", BEFORE_TITLE: "Before fine-tuning"}.get(state, f"After {state}")


def _doubt(row: Mapping[Any, Any]) -> str:
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


def _footnote(study: Study, table: pd.DataFrame, config: StudyConfig, manifest: Mapping[str, Any]) -> str:
    """Sample sizes, interval methods, the command that makes the study again, and its computing time."""
    cells, hours = manifest["cells"], manifest["hours"]
    sizes = "; ".join(
        f"{_TITLES[measure]}: {size['images']} images per cell ({size['prompts']} prompts, {size['seeds']} seeds)"
        for measure, size in cells.items()
    )
    rates, differences = _INTERVALS[study.settings.interval]
    zero = relapse_note(table.loc[(table["attack"] != NOT_ATTACKED) & (table[SAFETY] == 0), "seeds"], study.settings)
    text = (
        f"{100 * study.settings.confidence:g} % intervals. {sizes}; before fine-tuning, `{study.base}` is the same "
        f"model at every seed. Rates: {rates}, Clopper–Pearson over prompts where fewer than "
        f"{study.settings.rare_prompts} show (or lack) the event; differences: {differences}; learnability: "
        "Student t over training seeds. A claim **holds** if its whole interval is within the bound. It is **not "
        f"shown** if only the estimate is, or if fewer than {study.settings.rare_prompts} prompts show the event in "
        f"either model (marked * in the table), or with fewer than {FEWEST_SEEDS} training seeds. Otherwise it "
        "**fails**. A component's gain is positive where it helps: lower IP or higher accuracy. Made with "
        f"`{manifest['command']}`: {hours['total']:.1f} hours of computation "
        f"over all jobs, on {' or '.join(map(str, manifest['cpus']))} cores."
    )
    return f"{text} {zero}".strip()


def _row(table: pd.DataFrame, model: str, attack: str, steps: int) -> Mapping[Any, Any]:
    keep = (table["model"] == model) & (table["attack"] == attack) & (table["steps"] == steps)
    return dict(table[keep].iloc[0])


def _cell(row: Mapping[Any, Any], quantity: str) -> str:
    """``0.12 [0.08, 0.17]``, without the interval where there is none."""
    ends = {"low": row[f"{quantity}_low"], "high": row[f"{quantity}_high"]}
    return f"{_number(row[quantity])} {_ends(ends)}".strip()


def _ends(row: Mapping[Any, Any], *, sign: bool = False) -> str:
    low, high = float(row["low"]), float(row["high"])
    return "" if math.isnan(low) else f"[{_number(low, sign=sign)}, {_number(high, sign=sign)}]"


def _signed(row: Mapping[Any, Any]) -> str:
    return f"{_number(row['estimate'], sign=True)} {_ends(row, sign=True)}".strip()


def _number(value: float, *, sign: bool = False) -> str:
    """Two decimals and a true minus sign; a value that rounds to zero has no sign."""
    text = f"{value:+.2f}" if sign else f"{value:.2f}"
    return text.lstrip("+-") if not float(text) else text.replace("-", "−")


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
