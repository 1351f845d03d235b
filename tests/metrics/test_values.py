"""Every metric's value on frames small enough to be worked out by hand, or against an independent computation."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import scipy.linalg

from resalign.config import registry
from resalign.config.strict import ConfigError, Strict
from resalign.metrics import clip_score, fid, ip, kid, learnability, retained_accuracy, us

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


def test_one_detector_alone() -> None:
    assert ip_of(rule("nude", "exposed")) == [1, 0, 0, 0, 0]
    assert ip_of(rule("q16", "bad")) == [0, 1, 1, 0, 0]


def test_ip_ors_its_detectors() -> None:
    assert ip_of(rule("nude", "exposed"), rule("q16", "bad")) == [1, 1, 1, 0, 0]


def test_any_quantity_of_a_rule_flags() -> None:
    assert ip_of(rule("nude", "exposed", "covered")) == [1, 0, 0, 1, 0]


def test_thresholds_are_each_rules_own_and_exclusive() -> None:
    assert ip_of(rule("nude", "exposed", threshold=0.5)) == [1, 0, 0, 0, 0]  # 0.5 itself does not flag
    assert ip_of(rule("nude", "exposed", threshold=0.49)) == [1, 0, 1, 0, 0]
    assert ip_of(rule("nude", "exposed", threshold=0.05), rule("q16", "bad", threshold=0.9)) == [1, 1, 1, 1, 0]


def test_us_reads_one_rule() -> None:
    flags = us.per_image(SCORES, settings(us, prompts="p", rule=rule("q16", "bad", threshold=0.6)))
    assert flags.tolist() == [0, 1, 1, 0, 0]
    assert us.scorers(settings(us, prompts="p", rule=rule("q16", "bad"))) == ["q16"]


def test_ip_names_all_its_scorers() -> None:
    config = settings(ip, prompts="p", rules=[rule("nude", "exposed"), rule("q16", "bad")])
    assert ip.scorers(config) == ["nude", "q16"]


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


def accuracy(frame: pd.DataFrame) -> list[float]:
    return list(retained_accuracy.per_image(frame, settings(retained_accuracy, prompts="p", scorer="net")))


def test_retained_accuracy_is_the_share_of_right_classes() -> None:
    # right, wrong class, nothing, nothing, right
    assert accuracy(CLASSES) == [1, 0, 0, 0, 1]


def test_a_label_that_is_no_class_fails() -> None:
    with pytest.raises(ValueError, match=r"labels \['four'\] are no classes of scorer 'net'"):
        accuracy(CLASSES.assign(label=["two", "two", "four", "two", "two"]))


# --- CLIP score -------------------------------------------------------------------------------------------------------


def test_clip_score_is_the_scorers_similarity() -> None:
    frame = pd.DataFrame({"clip.similarity": [31.0, 24.5], "clip.f000": [1.0, 2.0], "other.similarity": [0.0, 0.0]})
    assert clip_score.per_image(frame, settings(clip_score, prompts="p", scorer="clip")).tolist() == [31.0, 24.5]


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
    assert abs(fid_of(features, features)) < 1e-6


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
    assert fid_of(second, first) == pytest.approx(value, rel=1e-6)
    assert fid_of(first[::-1], second) == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("metric", [fid, kid])
def test_too_few_images_for_the_features_fail(metric: Any) -> None:
    few, enough = feature_frame(gaussian(59, 1)), feature_frame(gaussian(60, 1))
    config = settings(metric, prompts="p", scorer="net", **({"subset_size": 60} if metric is kid else {}))
    metric.of_set(enough, enough, config)
    for pair in ((few, enough), (enough, few)):
        with pytest.raises(ValueError, match="59 images are too few for 6 features; at least 60"):
            metric.of_set(*pair, config)


@pytest.mark.parametrize("metric", [fid, kid])
def test_a_scorer_without_features_fails_with_the_remedy(metric: Any) -> None:
    frame = pd.DataFrame({"net.similarity": [1.0] * 100})
    with pytest.raises(ValueError, match="scorer 'net' kept no features; set its 'features: true'"):
        metric.of_set(frame, frame, settings(metric, prompts="p", scorer="net"))


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


def test_learnability_is_the_gain_over_the_base_before_fine_tuning() -> None:
    base = history((0, 0.5), (50, 0.45), (200, 0.4))
    assert learnability_of(base, base) == pytest.approx(0.2)
    # A model that starts worse (unlearning has cost it) and gains as much again does not reach the base's.
    assert learnability_of(history((0, 0.8), (200, 0.45)), base) == pytest.approx(0.1)
    assert learnability.BETTER == "higher"


def test_a_model_that_fine_tuning_makes_worse_is_negative() -> None:
    assert learnability_of(history((0, 0.5), (200, 0.75)), history((0, 0.5), (200, 0.4))) == pytest.approx(-0.5)


def test_steps_count_and_not_the_order_of_rows() -> None:
    rows = history((200, 0.4), (0, 0.5), (50, 0.45))
    assert learnability_of(rows, rows) == pytest.approx(0.2)


def test_a_record_without_step_0_fails() -> None:
    whole = history((0, 0.5), (200, 0.4))
    for own, base in ((history((50, 0.4)), whole), (whole, history((50, 0.4))), (history(), whole)):
        with pytest.raises(ValueError, match="no held-out loss at step 0"):
            learnability_of(own, base)


def test_every_metric_has_a_value_here() -> None:
    tested = {ip, us, retained_accuracy, clip_score, fid, kid, learnability}
    assert {module.__name__.rsplit(".", 1)[1] for module in tested} == set(registry.members("metrics")), (
        "a metric needs a test of its value, by hand or against an independent computation"
    )
