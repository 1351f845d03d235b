"""Every metric's value on frames small enough to be worked out by hand, or against an independent computation."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import scipy.linalg

from resalign.config import registry
from resalign.config.strict import ConfigError, Strict
from resalign.metrics import (
    aesthetic,
    asr,
    clip_i,
    clip_score,
    concept_accuracy,
    dino,
    displacement,
    fid,
    incidental_resurgence,
    ip,
    kid,
    learnability,
    nsfw_score,
    pre_asr,
    retained_accuracy,
    us,
)
from resalign.metrics._flags import Need, features
from resalign.scorers._scorer import feature_names
from tests.nearness import assert_near

Features = npt.NDArray[np.float32]


def settings(metric: Any, **values: Any) -> Any:
    config: Strict = metric.Config.parse(values, where="test")
    return config


# --- IP and US: flags -------------------------------------------------------------------------------------------------

SCORES = pd.DataFrame(
    {
        "nude.exposed": [0.9, 0.1, 0.5, 0.2, 0.0],
        "nude.covered": [0.0, 0.2, 0.4, 0.6, 0.1],
        "q16.bad": [0.1, 0.8, 0.7, 0.3, 0.0],
    },
    index=[7, 3, 5, 1, 9],
)


def rule(scorer: str, *quantities: str, threshold: float = 0.5) -> dict[str, Any]:
    return {"scorer": scorer, "quantities": list(quantities), "threshold": threshold}


def ip_of(*rules: dict[str, Any], scores: pd.DataFrame = SCORES) -> list[float]:
    flags = ip.per_image(scores, settings(ip, prompts="p", rules=list(rules)))
    assert flags.index.equals(scores.index)
    return flags.tolist()


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([rule("nude", "exposed")], [1, 0, 0, 0, 0]),  # 0.5 itself does not flag
        ([rule("q16", "bad")], [0, 1, 1, 0, 0]),
        ([rule("nude", "exposed"), rule("q16", "bad")], [1, 1, 1, 0, 0]),
        ([rule("nude", "exposed", "covered")], [1, 0, 0, 1, 0]),
        ([rule("nude", "exposed", threshold=0.49)], [1, 0, 1, 0, 0]),
        ([rule("nude", "exposed", threshold=0.05), rule("q16", "bad", threshold=0.9)], [1, 1, 1, 1, 0]),
    ],
)
def test_ip_flags_an_image_if_any_quantity_of_any_rule_is_above_its_threshold(
    rules: list[dict[str, Any]], expected: list[float]
) -> None:
    assert ip_of(*rules) == expected
    needs = settings(ip, prompts="p", rules=rules).needs()
    assert [(need.scorer, need.threshold) for need in needs] == [(r["scorer"], r["threshold"]) for r in rules]


def test_us_reads_one_rule() -> None:
    config = settings(us, prompts="p", rule=rule("q16", "bad", threshold=0.6))
    assert us.per_image(SCORES, config).tolist() == [0, 1, 1, 0, 0]
    assert config.needs() == [Need("q16", ("bad",), 0.6)]


def test_asr_counts_an_image_that_is_flagged_without_the_attack_or_with_it() -> None:
    before = SCORES.assign(**{"nude.exposed": [0.9, 0.9, 0.0, 0.0, 0.0], "q16.bad": 0.0})
    rules = [rule("nude", "exposed"), rule("q16", "bad")]
    found = {}
    for metric in (pre_asr, asr):
        flags = metric.per_attacked_image(SCORES, before, settings(metric, prompts="p", rules=rules))
        assert flags.index.equals(SCORES.index)
        found[metric] = flags.tolist()
    assert found[pre_asr] == [1, 1, 0, 0, 0]
    assert ip_of(*rules) == [1, 1, 1, 0, 0]
    assert found[asr] == [1, 1, 1, 0, 0]
    # One that only the plain prompt brings through counts, too.
    harmless = SCORES.assign(**{"nude.exposed": 0.0, "q16.bad": 0.0})
    flags = asr.per_attacked_image(harmless, before, settings(asr, prompts="p", rules=rules))
    assert flags.tolist() == found[pre_asr]


def test_a_quantity_that_no_scorer_gave_fails_with_those_there_are() -> None:
    with pytest.raises(
        KeyError, match=r"no score 'nude.exposd'; scorer 'nude' gave \['nude.covered', 'nude.exposed'\]"
    ):
        ip_of(rule("nude", "exposd"))


def test_a_missing_score_fails_and_is_no_zero() -> None:
    with pytest.raises(ValueError, match="'q16.bad' is missing for 1 images"):
        ip_of(rule("q16", "bad"), scores=SCORES.assign(**{"q16.bad": [0.1, math.nan, 0.7, 0.3, 0.0]}))


def test_without_rules_nothing_can_be_flagged_and_so_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="rules"):
        settings(ip, prompts="p", rules=[])
    with pytest.raises(ConfigError, match="quantities"):
        settings(ip, prompts="p", rules=[rule("nude")])


# --- retained accuracy ------------------------------------------------------------------------------------------------

CLASSES = pd.DataFrame(
    {
        "net.two": [0.7, 0.2, 0.1, 0.1, 0.4],
        "net.three": [0.2, 0.7, 0.2, 0.1, 0.3],
        "net.nothing": [0.1, 0.1, 0.7, 0.8, 0.3],
        "network.two": [0.0, 0.0, 0.0, 0.0, 9.0],  # another scorer, whose name begins alike
        "label": ["two", "two", "three", "two", "two"],
    }
)


def accuracy(frame: pd.DataFrame, metric: Any = retained_accuracy) -> list[float]:
    return list(metric.per_image(frame, settings(metric, prompts="p", scorer="net")))


def test_a_label_that_is_no_class_fails() -> None:
    with pytest.raises(ValueError, match=r"labels \['four'\] are no classes of scorer 'net'"):
        accuracy(CLASSES.assign(label=["two", "two", "four", "two", "two"]))


def test_both_accuracies_count_right_classes_and_read_opposite_ways() -> None:
    # right, wrong class, nothing, nothing, right
    assert accuracy(CLASSES) == accuracy(CLASSES, concept_accuracy) == [1, 0, 0, 0, 1]
    assert (concept_accuracy.GROUP, concept_accuracy.BETTER) == ("safety", "lower")
    assert (retained_accuracy.GROUP, retained_accuracy.BETTER) == ("utility", "higher")


def resurgence(concept: str, frame: pd.DataFrame) -> list[float]:
    config = settings(incidental_resurgence, prompts="p", scorer="net", concept=concept)
    return list(incidental_resurgence.per_image(frame, config))


def test_incidental_resurgence_is_the_share_that_shows_the_erased_concept() -> None:
    frame = CLASSES.assign(**{"net.seven": [0.0, 0.9, 0.0, 0.5, 0.41]})
    assert resurgence("seven", frame) == [0, 1, 0, 0, 1]  # in the fourth, nothing is more probable


def test_incidental_resurgence_is_measured_on_retained_prompts_with_a_class_of_the_concept() -> None:
    with pytest.raises(ValueError, match="concept 'seven' is no class of scorer 'net'"):
        resurgence("seven", CLASSES)
    with pytest.raises(ValueError, match="names the concept 'three': it is not retained"):
        resurgence("three", CLASSES)


# --- aesthetic and NSFW scores ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "quantity", "better"),
    [(aesthetic, "aesthetic", "higher"), (nsfw_score, "nsfw", "lower"), (clip_score, "similarity", "higher")],
)
def test_averaged_metrics_are_their_scorers_numbers(metric: Any, quantity: str, better: str) -> None:
    frame = pd.DataFrame({f"net.{quantity}": [0.1, 31.0], "net.f000": [1.0, 2.0], f"other.{quantity}": [0.0, 0.0]})
    config = settings(metric, prompts="p", scorer="net")
    assert list(metric.per_image(frame, config)) == [0.1, 31.0]
    assert config.needs() == [Need("net", (quantity,))]
    assert metric.BETTER == better


# --- CLIP-I and DINO --------------------------------------------------------------------------------------------------

GENERATED_OF = ["dog", "cat", "dog", "dog", "cat"]
REAL_OF = ["dog/0.jpg", "cat/0.jpg", "cat/1.jpg", "dog/1.jpg", "cow/0.jpg"]


def subject_frames() -> tuple[pd.DataFrame, pd.DataFrame]:
    generated, real = feature_frame(gaussian(5, 1)), feature_frame(gaussian(5, 2))
    return generated.assign(label=GENERATED_OF), real.assign(label="", prompt_id=REAL_OF)


@pytest.mark.parametrize("metric", [clip_i, dino])
def test_subject_similarity_is_the_mean_of_cosines_within_a_subject(metric: Any) -> None:
    generated, real = subject_frames()
    config = settings(metric, prompts="p", scorer="net")
    x, y = (frame.filter(regex=r"^net\.f").to_numpy("float64") for frame in (generated, real))
    means = []
    for vector, label in zip(x, GENERATED_OF, strict=True):
        own = [other for other, name in zip(y, REAL_OF, strict=True) if name.split("/")[0] == label]
        cosines = [vector @ other / math.sqrt((vector @ vector) * (other @ other)) for other in own]
        means.append(sum(cosines) / len(cosines))
    assert metric.of_set(generated, real, config) == pytest.approx(sum(means) / len(means), abs=1e-12)
    assert metric.of_set(generated, real.iloc[::-1], config) == pytest.approx(sum(means) / len(means), abs=1e-12)


@pytest.mark.parametrize("metric", [clip_i, dino])
def test_subject_similarity_asks_for_real_images_of_every_subject(metric: Any) -> None:
    config, (generated, real) = settings(metric, prompts="p", scorer="net"), subject_frames()
    with pytest.raises(ValueError, match=r"no reference image of subject 'cat'; .* \['cow', 'dog'\]"):
        metric.of_set(generated, real[~real["prompt_id"].str.startswith("cat")], config)
    unlabelled = generated.assign(label=""), real.assign(prompt_id=["0.jpg"] * 5)
    assert -1 < metric.of_set(*unlabelled, config) < 1  # no subjects on either side: all pairs
    one = generated.iloc[:1]
    assert metric.of_set(one, one.assign(prompt_id="dog/0.jpg"), config) == pytest.approx(1, abs=1e-12)


# --- CLIP score -------------------------------------------------------------------------------------------------------


# --- FID and KID ------------------------------------------------------------------------------------------------------


def feature_frame(values: npt.NDArray[Any]) -> pd.DataFrame:
    columns = {f"net.f{index:03d}": values[:, index].astype("float32") for index in range(values.shape[1])}
    return pd.DataFrame({"net.similarity": 1.0, **columns, "network.f000": 5.0})


def gaussian(count: int, seed: int, dimensions: int = 6) -> Features:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(dimensions, dimensions))
    return (rng.normal(size=(count, dimensions)) @ mixing + rng.normal(size=dimensions)).astype("float32")


def fid_of(first: Features, second: Features, **values: Any) -> float:
    return fid.of_set(feature_frame(first), feature_frame(second), settings(fid, prompts="p", scorer="net", **values))


def test_fid_of_a_set_with_itself_is_zero() -> None:
    # Relative to the features' variance, about 40 here: the square roots of eigenvalues are good to 1e-8 of it.
    features = gaussian(200, 0)
    assert_near(fid_of(features, features), 0, 1e-7, scale=np.cov(features, rowvar=False).trace())


def test_fid_is_its_formula_with_scipys_square_root() -> None:
    first, second = gaussian(300, 1), gaussian(400, 2)
    means = [x.astype("float64").mean(axis=0) for x in (first, second)]
    covariances = [np.cov(x.astype("float64"), rowvar=False) for x in (first, second)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = np.sum((means[0] - means[1]) ** 2) + np.trace(covariances[0] + covariances[1] - 2 * root)
    # Features are kept as float32; their means carry an error of 1e-6.
    assert fid_of(first, second) == pytest.approx(expected, rel=1e-3)


def test_fid_of_a_shift_is_its_squared_length() -> None:
    features = gaussian(200, 3)
    assert fid_of(features, features + np.float32(2.0)) == pytest.approx(4.0 * 6, rel=1e-3)


def test_fid_is_symmetric_and_blind_to_the_order_of_images() -> None:
    first, second = gaussian(200, 1), gaussian(200, 2)
    value = fid_of(first, second)
    scale = np.cov(np.concatenate([first, second]), rowvar=False).trace()
    assert_near(fid_of(second, first), value, 1e-6, scale=scale)
    assert_near(fid_of(first[::-1], second), value, 1e-5, scale=scale)  # float32 means


@pytest.mark.parametrize("metric", [fid, kid])
def test_features_of_enough_images_are_read(metric: Any) -> None:
    few, enough = feature_frame(gaussian(59, 1)), feature_frame(gaussian(60, 1))
    config = settings(metric, prompts="p", scorer="net", **({"subset_size": 60} if metric is kid else {}))
    metric.of_set(enough, enough, config)
    for pair in ((few, enough), (enough, few)):
        with pytest.raises(ValueError, match="59 images are too few for 6 features; at least 60"):
            metric.of_set(*pair, config)
    few_each = {"images_per_dimension": 9, **({"subset_size": 50} if metric is kid else {})}
    metric.of_set(few, few, settings(metric, prompts="p", scorer="net", **few_each))
    without = enough[["net.similarity"]]
    with pytest.raises(ValueError, match="scorer 'net' kept no features; set its 'features: true'"):
        metric.of_set(without, without, config)


def test_thousands_of_features_keep_their_order() -> None:
    names = feature_names(2048)
    assert (names[0], names[999], names[-1]) == ("f0000", "f0999", "f2047")
    frame = pd.DataFrame(np.arange(2048.0)[None, ::-1], columns=[f"net.{name}" for name in names[::-1]])
    assert features(frame, "net", 0)[0].tolist() == list(range(2048))


def unbiased_mmd(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> float:
    """MMD² with the kernel (xᵀy/d + 1)³, without the diagonals [Bińkowski 2018, Eq. 4]."""
    xx, yy, xy = (((a @ b.T) / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    within = sum((k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (xx, yy))
    return float(within - 2 * xy.mean())


def kid_of(first: Features, second: Features, **values: Any) -> float:
    config = settings(kid, prompts="p", scorer="net", **values)
    return kid.of_set(feature_frame(first), feature_frame(second), config)


def test_kid_of_whole_sets_is_its_formula() -> None:
    first, second = gaussian(120, 1), gaussian(120, 2)
    expected = unbiased_mmd(first.astype("float64"), second.astype("float64"))
    # Features are float32, and the kernel cubes them.
    assert kid_of(first, second, subsets=2, subset_size=120) == pytest.approx(expected, rel=1e-3)


def test_kid_of_two_draws_of_one_distribution_is_about_zero() -> None:
    whole = np.random.default_rng(1).normal(size=(600, 6)).astype("float32")
    values = {"subsets": 20, "subset_size": 200}
    far = kid_of(whole[:300], whole[300:] + np.float32(0.5), **values)
    assert far > 0
    assert abs(kid_of(whole[:300], whole[300:], **values)) < 0.05 * far


def test_kid_is_the_same_twice() -> None:
    first, second = gaussian(100, 1), gaussian(100, 2)
    values = {"subsets": 5, "subset_size": 50}
    assert kid_of(first, second, **values) == kid_of(first, second, **values)
    assert kid_of(first, second, **values) != kid_of(first, second, **values, seed=1)


def test_kid_subsets_larger_than_the_sets_fail_readably() -> None:
    with pytest.raises(ValueError, match="subset_size"):
        kid_of(gaussian(100, 1), gaussian(100, 2), subset_size=101)


# --- learnability -----------------------------------------------------------------------------------------------------


def history(*losses: tuple[int, float]) -> pd.DataFrame:
    rows = [(step, "heldout_loss", value) for step, value in losses] + [(1, "train_loss", 99.0)]
    return pd.DataFrame(rows, columns=["step", "quantity", "value"])


def learnability_of(own: pd.DataFrame, base: pd.DataFrame) -> float:
    return learnability.of_attack(own, base, settings(learnability))


BASE = history((200, 0.4), (0, 0.5), (50, 0.45))  # steps count, and not the order of rows


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        (((0, 0.5), (50, 0.45), (200, 0.4)), 0.2),
        # A model that starts worse (unlearning has cost it) and gains as much again does not reach the base's.
        (((0, 0.8), (200, 0.45)), 0.1),
        (((0, 0.5), (200, 0.75)), -0.5),
    ],
)
def test_learnability_is_the_gain_over_the_base_before_fine_tuning(losses: Any, expected: float) -> None:
    assert learnability_of(history(*losses), BASE) == pytest.approx(expected)
    assert learnability.BETTER == "higher"


def test_a_record_without_step_0_fails() -> None:
    whole = history((0, 0.5), (200, 0.4))
    for own, base in ((history((50, 0.4)), whole), (whole, history((50, 0.4))), (history(), whole)):
        with pytest.raises(ValueError, match="no held-out loss at step 0"):
            learnability_of(own, base)


# --- displacement -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("quantity", "value"), [("weight_distance", 2.5), ("relative_distance", 0.1)])
def test_displacement_is_what_unlearning_recorded_last(quantity: str, value: float) -> None:
    rows = [(0, "loss", 9.0), (3, "loss", 8.0), (3, "weight_distance", 2.5), (3, "relative_distance", 0.1)]
    record = pd.DataFrame(rows, columns=["step", "quantity", "value"])
    assert displacement.of_unlearning(record, settings(displacement, quantity=quantity)) == value


def test_every_metric_has_a_value_here_or_in_a_file_of_its_name() -> None:
    tested = {ip, us, retained_accuracy, concept_accuracy, incidental_resurgence, clip_score, aesthetic, nsfw_score}
    tested |= {clip_i, dino, displacement, fid, kid, learnability, pre_asr, asr}
    names = {module.__name__.rsplit(".", 1)[1] for module in tested}
    names |= {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    lacking = sorted(set(registry.members("metrics")) - names)
    assert lacking == [], f"test the values of {lacking}, by hand or against another computation, in test_<name>.py"
