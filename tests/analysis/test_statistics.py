import math

import numpy as np
import pytest
from scipy import stats

from resalign.analysis import statistics
from resalign.analysis.statistics import Crossed, IntervalMethod

METHOD = IntervalMethod(replicates=2000, confidence=0.95, rare_prompts=5)


def crossed(table: np.ndarray) -> Crossed:
    """Values (seeds, prompts, images)."""
    seeds, prompts, images = table.shape
    index = np.indices(table.shape).reshape(3, -1)
    return Crossed.of(table.ravel().astype(np.float64), index[0].astype(object), index[1].astype(object))


def test_wilson_by_hand():
    # k = 3, n = 10: 0.35551 ± 0.24772, by the formula.
    p, n, z = 0.3, 10, 1.959963985
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    interval = statistics.wilson(3, 10, 0.95)
    assert interval == pytest.approx((centre - half, centre + half), abs=1e-9)
    assert interval == pytest.approx((0.107789, 0.603222), abs=1e-5)


def test_clopper_pearson_is_scipys_for_whole_counts():
    for k in (0, 1, 7, 20):
        expected = stats.binomtest(k, 20).proportion_ci(0.95, method="exact")
        assert statistics.clopper_pearson(k, 20, 0.95) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_bootstrap_is_binomial_for_one_image_a_prompt():
    # With one seed and one image a prompt a replicate is Binomial(n, k/n) / n.
    values = np.zeros((1, 60, 1))
    values[0, :18] = 1
    means = statistics.bootstrap_means(crossed(values), 20_000, np.random.default_rng(0))
    assert means.std() == pytest.approx(math.sqrt(0.3 * 0.7 / 60), rel=0.02)
    interval = statistics.bootstrap_interval(crossed(values), METHOD, np.random.default_rng(1))
    expected = stats.binom.ppf([0.025, 0.975], 60, 0.3) / 60
    assert interval == pytest.approx(expected, abs=1.5 / 60)  # one step of the grid, and sampling error


def test_correlated_images_widen_the_interval():
    # Ten copies of an image are no more evidence than one: the interval must not shrink by sqrt(10).
    once = (np.random.default_rng(0).random((1, 60, 1)) < 0.3).astype(float)
    interval = [
        statistics.bootstrap_interval(crossed(table), METHOD, np.random.default_rng(1))
        for table in (once, np.repeat(once, 10, axis=2))
    ]
    assert interval[0] == pytest.approx(interval[1], abs=1e-12)


def test_seeds_are_resampled():
    # All variation is between seeds: resampling prompts alone would give a point.
    table = np.tile(np.array([0.1, 0.5, 0.9])[:, None, None], (1, 30, 2))
    low, high = statistics.bootstrap_interval(crossed(table), METHOD, np.random.default_rng(0))
    assert low == pytest.approx(0.1)
    assert high == pytest.approx(0.9)


def test_two_way_weights_are_products():
    # Var of the mean of x_sp = a_s + b_p under the bootstrap is var(a)/S + var(b)/P (population variances).
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal(40), rng.standard_normal(50)
    means = statistics.bootstrap_means(crossed((a[:, None] + b[None])[:, :, None]), 20_000, rng)
    assert means.mean() == pytest.approx(a.mean() + b.mean(), abs=0.01)
    assert means.var() == pytest.approx(a.var() / 40 + b.var() / 50, rel=0.05)


def test_every_image_counts_once():
    # Prompts with unequal numbers of images: the mean of a constant stays that constant in every replicate.
    prompts = np.array(["a"] * 9 + ["b"] * 2 + ["c"], object)
    data = Crossed.of(np.full(24, 0.4), np.repeat([0, 1], 12).astype(object), np.tile(prompts, 2))
    means = statistics.bootstrap_means(data, 100, np.random.default_rng(0))
    np.testing.assert_allclose(means, 0.4, rtol=1e-12)


def test_coverage_on_a_simulation():
    # Seeds and prompts both shift the probability of an image; 10 seeds, as few seeds lower coverage (see docstring).
    rng = np.random.default_rng(20)
    method = IntervalMethod(replicates=300, confidence=0.95, rare_prompts=1)
    truth, hits, trials = 0.5, 0, 200
    for _ in range(trials):
        chance = truth + 0.1 * rng.standard_normal((10, 1, 1)) + 0.15 * rng.standard_normal((1, 30, 1))
        table = (rng.random((10, 30, 2)) < chance).astype(float)
        low, high = statistics.pooled_interval(crossed(table), method, rng, rate=True)
        hits += low <= truth <= high
    assert 0.90 <= hits / trials <= 0.99


def anova(table: np.ndarray) -> tuple[float, float, float]:
    """Mean squares of rows, columns and remainder of a balanced table without repetitions, by their definition."""
    rows, columns = table.shape
    effects = table.mean(axis=1, keepdims=True) - table.mean(), table.mean(axis=0, keepdims=True) - table.mean()
    remainder = table - table.mean() - effects[0] - effects[1]
    of_rows, of_columns = columns * (effects[0] ** 2).sum() / (rows - 1), rows * (effects[1] ** 2).sum() / (columns - 1)
    return of_rows, of_columns, (remainder**2).sum() / ((rows - 1) * (columns - 1))


TABLE = np.array([[0.1, 0.3, 0.2, 0.4], [0.6, 0.9, 0.7, 0.9], [0.2, 0.2, 0.5, 0.3]])


def test_two_way_t_adds_the_students_intervals_of_seeds_and_of_prompts():
    mean = TABLE.mean()
    by_seed, by_prompt = (
        stats.t.interval(0.95, len(means) - 1, loc=mean, scale=stats.sem(means))[1] - mean
        for means in (TABLE.mean(axis=1), TABLE.mean(axis=0))
    )
    half = math.sqrt(by_seed**2 + by_prompt**2)
    data = crossed(TABLE[:, :, None])
    assert statistics.two_way_t(data, 0.95, rate=False) == pytest.approx((mean - half, mean + half))
    slope = mean * (1 - mean)
    ends = [1 / (1 + math.exp(-(math.log(mean / (1 - mean)) + sign * half / slope))) for sign in (-1, 1)]
    assert statistics.two_way_t(data, 0.95, rate=True) == pytest.approx(ends)


def test_standard_errors_are_those_of_a_two_way_random_anova():
    of_seeds, of_prompts, rest = anova(TABLE)
    assert of_prompts > rest
    errors = statistics.standard_errors(crossed(TABLE[:, :, None]))
    assert errors == [(pytest.approx(math.sqrt(of_seeds / 12)), 2), (pytest.approx(math.sqrt(of_prompts / 12)), 3)]
    mixed = TABLE - TABLE.mean(axis=0) + np.array([[0.1, -0.1, 0, 0], [-0.1, 0.1, 0, 0], [0, 0, 0, 0]])
    of_seeds, of_prompts, rest = anova(mixed)
    assert of_prompts < rest
    errors = statistics.standard_errors(crossed(mixed[:, :, None]))
    assert errors == [(pytest.approx(math.sqrt(of_seeds / 12)), 2), (pytest.approx(math.sqrt(rest / 12)), 3)]


def test_prompts_weigh_by_their_images():
    # Prompt a has nine images and b one: the mean is that of the images, and prompts that agree add nothing.
    prompts = np.tile(np.array(["a"] * 9 + ["b"], object), 2)
    data = Crossed.of(np.repeat([0.2, 0.6], 10), np.repeat([0, 1], 10).astype(object), prompts)
    low, high = statistics.two_way_t(data, 0.9, rate=False)
    expected = stats.t.interval(0.9, 1, loc=0.4, scale=0.2)
    assert low < expected[0] < expected[1] < high
    assert (low + high) / 2 == pytest.approx(0.4)


@pytest.mark.parametrize("axis", [0, 1])
def test_two_way_t_of_one_factor_is_students(axis: int):
    values = np.array([0.2, 0.5, 0.9, 0.4])
    data = crossed(np.expand_dims(values, axis)[:, :, None])
    expected = stats.t.interval(0.9, 3, loc=values.mean(), scale=stats.sem(values))
    assert statistics.two_way_t(data, 0.9, rate=False) == pytest.approx(expected)
    assert math.isnan(statistics.two_way_t(crossed(np.ones((1, 1, 5))), 0.9, rate=False).low)


def test_two_way_t_is_not_certain_where_seeds_and_prompts_cancel():
    table = np.tile([[1.0, -1.0], [-1.0, 1.0]], 8)[:, :, None]
    low, high = statistics.two_way_t(crossed(table), 0.95, rate=False)
    assert low < -0.3
    assert high > 0.3


def test_two_way_t_covers_where_few_seeds_differ_and_the_bootstrap_does_not():
    rng = np.random.default_rng(3)
    methods = [IntervalMethod(300, 0.95, rare_prompts=1, kind=kind) for kind in ("bootstrap", "two_way_t")]
    hits = np.zeros(2)
    for _ in range(200):
        chance = 0.5 + 0.15 * rng.standard_normal((3, 1, 1)) + 0.1 * rng.standard_normal((1, 100, 1))
        data = crossed((rng.random((3, 100, 2)) < chance).astype(float))
        found = [statistics.pooled_interval(data, method, rng, rate=True) for method in methods]
        hits += [interval.low <= 0.5 <= interval.high for interval in found]
    assert hits[0] / 200 < 0.85
    assert hits[1] / 200 > 0.89


@pytest.mark.parametrize(("seeds", "high"), [(2, 0.8419), (3, 0.7076), (5, 0.5218)])
def test_no_relapse_bounds_a_seeds_chance_by_the_number_of_seeds(seeds: int, high: float):
    found = statistics.relapse_chance(0, seeds, 0.95)
    assert found == pytest.approx((0.0, 1 - 0.025 ** (1 / seeds)))
    assert found.high == pytest.approx(high, abs=1e-4)


def test_some_relapses_are_counted_exactly():
    expected = stats.binomtest(1, 5).proportion_ci(0.95, method="exact")
    assert statistics.relapse_chance(1, 5, 0.95) == pytest.approx((expected.low, expected.high))
    assert statistics.relapse_chance(3, 3, 0.95) == pytest.approx((0.025 ** (1 / 3), 1.0))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_rate_of_zero_or_one_is_not_certain(value: float):
    table = np.full((3, 50, 4), value)
    low, high = statistics.pooled_interval(crossed(table), METHOD, np.random.default_rng(0), rate=True)
    bound = 0.025 ** (1 / 50)  # Clopper-Pearson with the 50 prompts as the sample
    assert (low, high) == pytest.approx((0.0, 1 - bound) if value == 0 else (bound, 1.0), abs=1e-12)


def test_a_rare_event_is_no_more_certain_than_none():
    table = np.zeros((3, 50, 4))
    none = statistics.pooled_interval(crossed(table), METHOD, np.random.default_rng(0), rate=True)
    table[0, 0, 0] = 1
    rare = statistics.pooled_interval(crossed(table), METHOD, np.random.default_rng(0), rate=True)
    assert rare.high > none.high
    assert rare.low == pytest.approx(0.0, abs=1e-3)


def test_pooled_spread_is_over_seed_means():
    table = np.stack([np.full((20, 2), value) for value in (0.2, 0.4, 0.9)])
    estimate = statistics.pooled(crossed(table), METHOD, np.random.default_rng(0), rate=False)
    assert estimate.mean == pytest.approx(0.5)
    assert estimate.std == pytest.approx(np.std([0.2, 0.4, 0.9], ddof=1))
    assert (estimate.n, estimate.seeds) == (120, 3)


def test_one_seed_has_no_spread_but_an_interval():
    table = np.random.default_rng(0).random((1, 20, 2))
    estimate = statistics.pooled(crossed(table), METHOD, np.random.default_rng(0), rate=False)
    assert math.isnan(estimate.std)
    assert estimate.low < estimate.mean < estimate.high


def test_same_seed_same_bits():
    table = np.random.default_rng(0).random((3, 20, 2))
    first, again, other = (
        statistics.bootstrap_interval(crossed(table), METHOD, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_across_seeds_is_students():
    values = np.array([16.9, 17.3, 18.2])
    estimate = statistics.across_seeds(values, 600, 0.95)
    low, high = stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(values))
    assert (estimate.low, estimate.high) == pytest.approx((low, high))
    # 4.302653 = t(0.975, 2), from a table.
    assert estimate.high - estimate.mean == pytest.approx(4.302653 * values.std(ddof=1) / math.sqrt(3), rel=1e-6)


def test_one_run_of_a_set_metric_has_no_interval():
    estimate = statistics.across_seeds(np.array([16.9]), 200, 0.95)
    assert estimate.mean == 16.9
    assert all(math.isnan(value) for value in (estimate.std, estimate.low, estimate.high))


def test_incomplete_run_is_an_error():
    with pytest.raises(ValueError, match="training seed 1 has no image of prompt 'b'"):
        Crossed.of(np.ones(3), np.array([0, 0, 1], object), np.array(["a", "b", "a"], object))


@pytest.mark.parametrize("values", [[], [1.0, float("nan")]])
def test_no_or_nan_values_are_errors(values: list[float]):
    labels = np.zeros(len(values), object)
    with pytest.raises(ValueError, match="finite"):
        Crossed.of(np.array(values, np.float64), labels, labels)
    with pytest.raises(ValueError, match="finite"):
        statistics.across_seeds(np.array(values, np.float64), 1, 0.95)
