"""The detector audit from scored images to its page: a blind sample, labels, tables."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import cohen_kappa_score

from resalign.analysis import collect
from resalign.config.plan import load_plan
from resalign.config.report import ReportConfig
from resalign.config.strict import ConfigError
from resalign.data.images import DataError
from resalign.detector_audit.labels import agreement, consensus, fleiss_kappa, read_labels, stand_in_labels
from resalign.detector_audit.sample import IMAGE, allocate, detector_rules, draw, population, write_sample
from resalign.detector_audit.tables import AuditContext, write_audit
from resalign.metrics import ip
from resalign.metrics._flags import FlagRule

SETTINGS = ReportConfig(replicates=400)
CONFIG = ip.Config.parse(
    {"prompts": "unsafe", "rules": [{"scorer": name, "quantities": ["seven"]} for name in ("one", "two")]}, where="ip"
)
# Model, attack, and share of its images that show the concept.
STATES = [("base", "none", 0.9), ("esd", "none", 0.1), ("esd", "pages", 0.4)]
PROMPTS, IMAGES_EACH = 30, 4


def made_up(folder: Path, *, sensitivity: float = 0.9, specificity: float = 0.95) -> tuple[pd.DataFrame, pd.Series]:
    """Images whose truth is known, as the population of an audit: (population, truth)."""
    rng = np.random.default_rng(1)
    rows, truth = [], []
    for model, attack, share in STATES:
        state = folder / f"{model}-{attack}"
        state.mkdir(parents=True)
        steps = 200 if attack != "none" else 0
        scores = []
        for prompt in range(PROMPTS):
            for index in range(IMAGES_EACH):
                path = state / f"{prompt}.{index}.png"
                Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
                shown = bool(rng.random() < share)
                truth.append(shown)
                seen = [rng.random() < (sensitivity if shown else 1 - specificity) for _ in range(2)]
                scores.append(
                    {"steps": steps, "prompt_set": "unsafe", "prompt_id": f"{prompt}", "image_index": index}
                    | {
                        "path": str(path),
                        "one.seven": float(seen[0]),
                        "two.seven": float(seen[1]),
                        "judge.seven": shown,
                    }
                )
        pd.DataFrame(scores).to_parquet(state / "scores.parquet")
        dataset = "" if attack == "none" else attack
        rows.append(collect.ScoredRun(model, attack, dataset, 0, {"score": str(state)}))
    judge = FlagRule.parse({"scorer": "judge", "quantities": ["seven"]}, where="judge")
    return population(rows, "ip", (ip, CONFIG), "base", judge), pd.Series(truth)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    found, truth = made_up(tmp_path_factory.mktemp("images"))
    assert list(found["stand_in"]) == list(truth)
    return found


@pytest.fixture(scope="module")
def sample(images: pd.DataFrame) -> pd.DataFrame:
    return draw(images.drop(columns="stand_in"), 120, 0)


def context(stand_in: str | None = None) -> AuditContext:
    return AuditContext(
        title="A <b>made-up</b> one", concept="a seven", metric="ip", stand_in=stand_in, command="x", settings=SETTINGS
    )


def labels_file(folder: Path, sample: pd.DataFrame, labels: list[str], name: str = "ann") -> Path:
    path = folder / f"{name}.csv"
    pd.DataFrame({"image_id": sample["image_id"], "label": labels}).to_csv(path, index=False)
    return path


# --- the sample -------------------------------------------------------------------------------------------------------


def test_verdicts_and_groups(images: pd.DataFrame) -> None:
    assert set(images["group"]) == {"base", "unlearned", "fine-tuned"}
    assert set(images["verdict"]) == {"none", "one", "two", "one+two"}
    assert (images["ip"] == (images["one"] | images["two"])).all()
    assert (images["ip"] == (images["verdict"] != "none")).all()


def test_strata_are_drawn_equally_and_weights_add_up(images: pd.DataFrame, sample: pd.DataFrame) -> None:
    counts = sample.groupby(["group", "verdict"]).agg(n=("image_id", "size"), size=("stratum_images", "first"))
    assert counts["size"].sum() == len(images)
    assert len(sample) == 120
    assert counts["n"].max() - counts.loc[counts["n"] < counts["size"], "n"].min() <= 1
    weights = sample["stratum_images"] / sample.groupby(["group", "verdict"])["image_id"].transform("size")
    assert weights.sum() == pytest.approx(len(images))


@pytest.mark.parametrize(
    ("sizes", "total", "expected"),
    [([5, 100, 100], 45, [5, 20, 20]), ([3, 1], 2, [1, 1]), ([2, 2], 100, [2, 2]), ([10, 10, 10], 10, [3, 3, 4])],
)
def test_allocation(sizes: list[int], total: int, expected: list[int]) -> None:
    assert allocate(sizes, total) == expected


def test_too_few_images_for_the_strata() -> None:
    with pytest.raises(ValueError, match="2 images are too few for 3 strata"):
        allocate([1, 1, 1], 2)


def test_the_sample_is_the_seeds_whatever_the_order_of_rows(images: pd.DataFrame, sample: pd.DataFrame) -> None:
    shuffled = images.drop(columns="stand_in").sample(frac=1.0, random_state=3)
    pd.testing.assert_frame_equal(draw(shuffled, 120, 0), sample)
    assert set(draw(shuffled, 120, 1)["path"]) != set(sample["path"])
    assert set(draw(shuffled, 160, 0)["image_id"]) > set(sample["image_id"])


def test_another_picture_is_another_image(images: pd.DataFrame, sample: pd.DataFrame, tmp_path: Path) -> None:
    """Labels of the pictures of an earlier run must not count for those of a later one."""
    first = sample.iloc[0]
    Image.new("RGB", (8, 8)).save(tmp_path / "other.png")
    changed = images.drop(columns="stand_in").replace({"path": {first["path"]: str(tmp_path / "other.png")}})
    assert set(sample["image_id"]) - set(draw(changed, 120, 0)["image_id"]) == {first["image_id"]}


def test_equal_samples_are_equal_bytes_and_the_sheet_is_blind(sample: pd.DataFrame, tmp_path: Path) -> None:
    shown = {"title": "A <b>title</b>", "concept": "a <script> seven", "pixels": 64}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_sample(sample, shown, tmp_path / name)
    files = [sorted(path for path in (tmp_path / name).rglob("*") if path.is_file()) for name in ("one", "two")]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
    sheet = pd.read_csv(tmp_path / "one" / "sheet.csv", dtype=str, keep_default_na=False)
    assert list(sheet.columns) == ["image_id", "label"]
    assert set(sheet["label"]) == {""}
    page = (tmp_path / "one" / "label.html").read_text()
    blind = page + (tmp_path / "one" / "sheet.csv").read_text()
    for word in ("esd", "pages", "fine-tuned", "unlearned", "one+two", "flagged"):
        assert word not in blind
    # No order of ids that follows verdicts: neither the sheet's nor the files'.
    assert list(sheet["image_id"]) == sorted(sheet["image_id"])
    assert {path.stem for path in (tmp_path / "one" / "images").iterdir()} == set(sheet["image_id"])


class Page(HTMLParser):
    """Tags with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_labelling_page_is_blurred_offline_and_escaped(sample: pd.DataFrame, tmp_path: Path) -> None:
    write_sample(sample, {"title": "A <b>t</b>", "concept": "<img src=x onerror=y>", "pixels": 64}, tmp_path)
    text = (tmp_path / "label.html").read_text()
    assert not re.search(r"(?i)https?:|\bwww\.|@import|\bfetch\(|XMLHttpRequest|sendBeacon", text)
    assert "&lt;img src=x onerror=y&gt;" in text
    tags = Page(text).tags
    images = [attrs for tag, attrs in tags if tag == "img"]
    assert len(images) == len(sample)
    assert all((tmp_path / str(attrs["src"])).is_file() for attrs in images)
    # Blurred by the style sheet, flagged or not, and shown only while its button is pressed, which none is at first.
    assert re.search(r"\.picture img \{[^}]*filter: blur\(8px\)", text)
    assert re.search(r'\.picture\[aria-pressed="true"\] img \{ filter: none; \}', text)
    pictures = [attrs for tag, attrs in tags if tag == "button" and attrs.get("class") == "picture"]
    assert {attrs["aria-pressed"] for attrs in pictures} == {"false"}
    assert len(pictures) == len(sample)


# --- labels -----------------------------------------------------------------------------------------------------------


def test_labels_are_checked(sample: pd.DataFrame, tmp_path: Path) -> None:
    good = ["yes"] * len(sample)
    with pytest.raises(DataError, match=r"no labels yet: open label\.html"):
        read_labels([], sample)
    with pytest.raises(DataError, match="no such file"):
        read_labels([tmp_path / "none.csv"], sample)
    with pytest.raises(DataError, match="none of 'yes'"):
        read_labels([labels_file(tmp_path, sample, ["maybe", *good[1:]])], sample)
    strangers = sample.assign(image_id=["ffffffffffff", *sample["image_id"][1:]])
    with pytest.raises(DataError, match="1 of 120 images are not in the sample"):
        read_labels([labels_file(tmp_path, strangers, good)], sample)
    twice = sample.assign(image_id=[sample["image_id"][1], *sample["image_id"][1:]])
    with pytest.raises(DataError, match="stands in it twice"):
        read_labels([labels_file(tmp_path, twice, good)], sample)
    columns = labels_file(tmp_path, sample, good)
    columns.write_text(columns.read_text().replace("image_id,label", "label,label", 1))
    with pytest.raises(DataError, match=r"ann.csv: the columns \['label'\] are there more than once"):
        read_labels([columns], sample)


def test_labels_come_in_any_order_and_may_lack_images(sample: pd.DataFrame, tmp_path: Path) -> None:
    labels = ["yes", "No ", "", "unsure", *["no"] * (len(sample) - 4)]
    path = labels_file(tmp_path, sample, labels)
    table = pd.read_csv(path, dtype=str, keep_default_na=False).iloc[:-1]
    table[::-1].to_csv(path, index=False)
    found = read_labels([path], sample)["ann"]
    assert list(found[:5]) == ["yes", "no", "unsure", "unsure", "no"]
    assert found.iloc[-1] == "unsure"


def test_the_majority_counts_and_a_tie_is_no_label() -> None:
    votes = ["yes yes no", "yes no no", "yes no unsure", "unsure unsure yes", "unsure unsure unsure"]
    labels = pd.DataFrame([vote.split() for vote in votes], columns=["a", "b", "c"])
    assert [None if pd.isna(value) else bool(value) for value in consensus(labels)] == [True, False, None, True, None]


def test_agreement_of_two_and_of_three() -> None:
    rng = np.random.default_rng(0)
    labels = pd.DataFrame({name: rng.choice(["yes", "no"], 50) for name in "abc"})
    labels.loc[:25, "b"] = labels.loc[:25, "a"]
    labels.loc[49, "c"] = "unsure"
    rows = agreement(labels)
    assert [row["measure"] for row in rows] == ["Cohen's κ"] * 3 + ["Fleiss' κ"]
    assert [row["n"] for row in rows] == [50, 49, 49, 49]
    assert rows[0]["value"] == pytest.approx(cohen_kappa_score(labels["a"], labels["b"]))
    assert agreement(labels[["a"]]) == []
    assert np.isnan(agreement(pd.DataFrame({"a": ["yes"] * 3, "b": ["yes"] * 3}))[0]["value"])


def test_fleiss_kappa_by_hand() -> None:
    # Counts (3, 0), (2, 1), (0, 3), (1, 2): P_i = 1, 1/3, 1, 1/3; p = 1/2 each; κ = (2/3 − 1/2) / (1/2) = 1/3.
    shown = np.array([[1, 1, 1], [1, 1, 0], [0, 0, 0], [1, 0, 0]], dtype=float)
    assert fleiss_kappa(shown) == pytest.approx(1 / 3)


# --- tables -----------------------------------------------------------------------------------------------------------


def audited(
    sample: pd.DataFrame, labels: pd.DataFrame, images: pd.DataFrame, folder: Path, stand_in: str | None = None
) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    detectors = ["ip", *detector_rules("ip", CONFIG)]
    write_audit(sample, labels, images, detectors, context(stand_in), folder)
    tables = [pd.read_csv(folder / f"{name}.csv", keep_default_na=True) for name in ("table", "error_rates")]
    return tables[0], tables[1], (folder / "table.md").read_text()


def test_the_truth_is_within_the_tables_intervals(images: pd.DataFrame, sample: pd.DataFrame, tmp_path: Path) -> None:
    labels = stand_in_labels(sample, images)
    table, errors, text = audited(sample, labels, images, tmp_path, "judge")
    overall = errors[errors["group"] == "all"].set_index("detector")
    for detector in ("ip", "one", "two"):
        shown = images["stand_in"]
        rates = {"sensitivity": images[detector][shown].mean(), "specificity": 1 - images[detector][~shown].mean()}
        for name, value in rates.items():
            assert overall.loc[detector, f"{name}_low"] <= value <= overall.loc[detector, f"{name}_high"]
    own = table[table["detector"] == "ip"].set_index(["model", "steps"])
    for (model, _, share), steps in zip(STATES, (0, 0, 200), strict=True):
        row = own.loc[(model, steps)]
        assert row["corrected_low"] <= share <= row["corrected_high"]
    # OR of two detectors with 5 % false alarms each: what is not unlearned well is flagged twice as often as it shows.
    assert own.loc[("esd", 0), "raw"] > 0.15
    assert own.loc[("esd", 0), "corrected"] < 0.15
    assert "labelled by a third detector (judge), not by people" in text
    assert set(table["labelled_by"]) == {"stand-in"}


def test_people_are_called_people_and_bytes_repeat(images: pd.DataFrame, sample: pd.DataFrame, tmp_path: Path) -> None:
    labels = stand_in_labels(sample, images).set_axis(["ann"], axis=1)
    _, _, text = audited(sample, labels, images, tmp_path / "one")
    audited(sample, labels, images, tmp_path / "two")
    assert "labelled by people, blind" in text
    assert "third detector" not in text
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_labels_against_the_detectors_leave_the_rates_uncorrected(
    images: pd.DataFrame, sample: pd.DataFrame, tmp_path: Path
) -> None:
    labels = stand_in_labels(sample, images).replace({"yes": "no", "no": "yes"})
    table, _, text = audited(sample, labels, images, tmp_path)
    assert table["corrected"].isna().all()
    assert table["note"].str.contains("no correction is possible").all()
    assert table["raw"].notna().all()
    assert "no correction is possible" in text


def test_without_a_positive_label_nothing_is_corrected(
    images: pd.DataFrame, sample: pd.DataFrame, tmp_path: Path
) -> None:
    labels = pd.DataFrame({"ann": "no"}, index=sample["image_id"])
    table, _, _ = audited(sample, labels, images, tmp_path)
    assert table["corrected"].isna().all()
    assert table["note"].str.contains("sensitivity is unknown").all()


def test_a_stratum_without_labels_is_named(images: pd.DataFrame, sample: pd.DataFrame, tmp_path: Path) -> None:
    labels = stand_in_labels(sample, images)
    labels.loc[(sample["group"] == "base").to_numpy() & (sample["verdict"] == "none").to_numpy()] = "unsure"
    with pytest.raises(DataError, match=r"no image of 1 of \d+ strata has a label \(first: \('base', 'none'\)\)"):
        audited(sample, labels, images, tmp_path)


def test_a_detector_that_errs_otherwise_in_one_group_is_said(
    images: pd.DataFrame, sample: pd.DataFrame, tmp_path: Path
) -> None:
    """Where the base's images are all shown and none elsewhere is, one specificity cannot hold for all."""
    labels = pd.DataFrame({"ann": np.where(sample["group"] == "base", "yes", "no")}, index=sample["image_id"])
    _, _, text = audited(sample, labels, images, tmp_path)
    assert "does not err alike" in text
    assert re.search(r"specificity is .* in the group fine-tuned", text)


def test_a_rate_below_the_false_alarms_is_marked(images: pd.DataFrame, sample: pd.DataFrame, tmp_path: Path) -> None:
    """Error rates under which some states could not be flagged so seldom, or so often, do not fit them."""
    labels = stand_in_labels(sample, images)
    labels.loc[(sample["group"] == "fine-tuned").to_numpy() & (sample["verdict"] != "none").to_numpy()] = "no"
    table, errors, text = audited(sample, labels, images, tmp_path)
    specificity = errors.set_index(["detector", "group"]).loc[("ip", "all"), "specificity"]
    own = table[table["detector"] == "ip"].set_index(["model", "steps"])
    held = own["note"].str.startswith("held to 0").fillna(False)
    assert list(held) == list(own["raw"] < 1 - specificity)
    assert held.any()
    assert (own.loc[held, "corrected"] == 0).all()
    assert "* held to 0" in text


# --- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric": "ipp"}, "no metric named 'ipp'; did you mean 'ip'"),
        ({"metric": "fid"}, "'fid' flags no single image"),
        ({"labels": {"scorer": "deep", "quantities": ["seven"]}}, "did you mean 'deep-resnet'"),
        ({"labels": {"scorer": "resnet", "quantities": ["seven"]}}, "'resnet' is audited itself"),
        ({"imags": 3}, "did you mean 'images'"),
    ],
)
def test_a_faulty_configuration_is_refused_before_any_work(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_plan("config/demo.yaml", {"detector_audit": settings})


def test_labels_of_the_default_place_and_of_the_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from resalign.jobs import detector_audit

    plan = load_plan("config/demo.yaml")
    monkeypatch.chdir(tmp_path)
    assert detector_audit.label_files(plan) == []
    place = Path("results/demo/detector-labels")
    place.mkdir(parents=True)
    (place / "ann.csv").touch()
    assert detector_audit.label_files(plan) == ["results/demo/detector-labels/ann.csv"]
    assert detector_audit.DetectorAuditJob.of(plan).labels == ("results/demo/detector-labels/ann.csv",)


def test_images_are_found_again_by_what_names_them(images: pd.DataFrame) -> None:
    assert not images.duplicated(IMAGE).any()
