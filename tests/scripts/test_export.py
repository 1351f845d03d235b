"""An unlearned model, exported by the script in both forms: its card's front matter, scores and attacks."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from resalign.cards.model_card import licence_fields
from resalign.config.plan import Plan
from resalign.config.strict import ConfigError
from resalign.jobs import export

from .conftest import Workshop, load_script


@pytest.fixture(scope="module")
def exported(finished: Workshop, whole_plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    """(where the experiment was run, its plan) after exporting graddiff."""
    plan, shop = whole_plan, finished.copy(tmp_path_factory.mktemp("exported") / "workshop")
    shop.scripts["export"] = load_script("export")
    for form in export.FORMS:
        output = f"{export.folder(plan)}/graddiff/seed-0/{form}"
        shop.call("export", export.ExportJob.of(plan, "graddiff", "0", form), output)
    return shop.folder, plan


def readme(exported: tuple[Path, Plan], form: str) -> str:
    folder, plan = exported
    return (folder / export.folder(plan) / "graddiff" / "seed-0" / form / "model" / "README.md").read_text()


@pytest.mark.slow
def test_both_forms_have_cards_and_settings(exported: tuple[Path, Plan]) -> None:
    folder, plan = exported
    common = {"README.md", "resilience-card.md", "experiment.json"}
    own = {"delta": {"delta.json", "delta.safetensors"}, "whole": {"model_index.json", "unet", "vae", "text_encoder"}}
    for form, files in own.items():
        found = folder / export.folder(plan) / "graddiff" / "seed-0" / form / "model"
        assert common | files <= {path.name for path in found.iterdir()}


@pytest.mark.slow
def test_the_front_matter_is_the_hubs(exported: tuple[Path, Plan]) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard(readme(exported, "whole"))
    data = card.data.to_dict()
    assert data["license"] == "unknown"
    assert data["pipeline_tag"] == "text-to-image"
    assert "graddiff" in data["tags"]
    assert data["model-index"][0]["name"] == "graddiff-seed-0"
    front = yaml.safe_load(readme(exported, "whole").split("---\n")[1])
    assert front["model-index"] == data["model-index"]


@pytest.mark.slow
def test_scores_are_those_of_the_report(exported: tuple[Path, Plan]) -> None:
    from huggingface_hub import ModelCard

    folder, _ = exported
    runs = pd.read_csv(folder / "results" / "tiny" / "tables" / "per_run.csv", keep_default_na=False)
    own = runs[(runs["model"] == "graddiff") & runs["steps"].isin([0, 2])]
    results = ModelCard(readme(exported, "whole")).data.eval_results
    assert results is not None
    found = sorted((result.metric_type, str(result.dataset_config), result.metric_value) for result in results)
    said = own["attack"].map({"none": "before fine-tuning", "mine": "after 2 steps on mine"})
    assert found == sorted(zip(own["metric"], said, own["value"].astype(float), strict=True))
    assert len({state for _, state, _ in found}) == 2


@pytest.mark.slow
def test_the_card_tells_how_it_was_made_and_what_it_survived(exported: tuple[Path, Plan]) -> None:
    folder, plan = exported
    [record] = (folder / "results" / "runs" / "unlearn").glob("graddiff-*/seed-0/run.json")
    made = json.loads(record.read_text())
    for form in export.FORMS:
        text = readme(exported, form)
        assert made["source_sha256"] in text
        assert "τ = 0.1" in text
        assert "| mine | mine |" in text
        assert "does not name the base's licence" in text
        # The base lies in a folder of this machine, whose path is nobody's business.
        assert str(plan.assets["model"].folder) not in text
        assert text.startswith("---\n")
        assert "\n# graddiff: the seven unlearned from the base model of “Tiny”, training seed 0\n" in text
    assert "apply_delta.py" in readme(exported, "delta")
    assert "from_pretrained" in readme(exported, "whole")


def test_what_is_no_unlearned_model_is_refused(tiny_plan: Callable[..., Plan]) -> None:
    plan = tiny_plan()
    with pytest.raises(ConfigError, match="no unlearned model named 'gradiff'; did you mean 'graddiff'"):
        export.ExportJob.of(plan, "gradiff", "0", "delta")
    with pytest.raises(ConfigError, match="no training seed 7"):
        export.ExportJob.of(plan, "graddiff", "7", "delta")


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("", {"license": "unknown"}),
        ("CreativeML OpenRAIL-M", {"license": "creativeml-openrail-m"}),
        ("Stability Community", {"license": "other", "license_name": "stability-community"}),
    ],
)
def test_licences_are_spelt_as_the_hub_has_them(licence: str, expected: dict[str, str]) -> None:
    assert licence_fields(licence) == expected
