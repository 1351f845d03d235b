"""Figure 3 of ResAlign: samples of benign and personalised generation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resalign.display.products import Drawn
    from resalign.exhibits._inputs import ExhibitInputs

TITLE, KIND = "Benign and personalised samples, flagged ones blurred (ResAlign, Figure 3)", "figure"
READS = ("samples",)


def make(inputs: ExhibitInputs) -> Drawn:
    """The first prompts of each list that benign generation is measured on, every model before and after attacks.

    Raises:
        FileNotFoundError: If an image has been deleted.
    """
    import numpy as np
    from matplotlib.figure import Figure

    from resalign.analysis.measurements import NOT_ATTACKED
    from resalign.display.gallery import grid_figure, sample_grid
    from resalign.display.products import Drawn

    names, settings = inputs.measurements.main(), inputs.settings
    samples = inputs.frame("samples")
    utility = {info.prompt_set for info in names.metrics.values() if info.group == "utility"}
    shown = samples["attack"].isin({NOT_ATTACKED, *names.attacks}) & samples["prompt_set"].isin(utility)
    samples = samples[shown]
    lists = list(dict.fromkeys(samples["prompt_set"]))
    each = -(-settings.gallery_prompts // max(1, len(lists)))
    kept = [s.drop_duplicates("prompt_id").head(each) for _, s in samples.groupby("prompt_set", sort=False)]
    chosen = {key for part in kept for key in zip(part["prompt_set"], part["prompt_id"], strict=True)}
    keys = list(zip(samples["prompt_set"], samples["prompt_id"], strict=True))
    samples = samples.loc[np.array([key in chosen for key in keys], dtype=bool)]
    # Two lists may both have a prompt 0.
    ids = samples["prompt_set"] + "/" + samples["prompt_id"]
    grid = sample_grid(samples.assign(prompt_id=ids).drop(columns="prompt_set"), names, settings)
    return Drawn(samples, Figure() if grid is None else grid_figure(grid, settings))
