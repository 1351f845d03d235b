"""Training curves: which records of training are drawn as one."""

import pandas as pd

from resalign.display.curves import curve_panels
from tests.analysis.experiment import SETTINGS, make_histories, make_measurements


def test_what_every_method_records_once_is_no_curve() -> None:
    histories = make_histories()
    once = {"stage": "unlearn", "step": 198, "value": 2.5}
    results = [{**once, "label": label, "seed": 0, "quantity": "distance"} for label in ("esd", "resalign")]
    results += [{**once, "label": "esd", "seed": 0, "quantity": "loss", "step": step} for step in (0, 198)]
    results += [{**once, "label": "resalign", "seed": 0, "quantity": "loss"}]
    found = curve_panels(pd.concat([histories, pd.DataFrame(results)]), make_measurements(), SETTINGS)
    titles = [panel.title for panel in found if panel.title.startswith("Unlearn")]
    assert titles == ["Unlearn: forget loss", "Unlearn: retain loss", "Unlearn: loss"]
