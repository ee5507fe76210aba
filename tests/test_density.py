"""The density of mixtures, for whatever samples and however many."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from compilation import slow
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import jaxgmm
from jaxgmm import density, pieces
from jaxgmm.mixture import full_covariances

QUESTIONS = (jaxgmm.log_prob, jaxgmm.responsibilities, jaxgmm.predict)


def mixtures(*batch: int, n_components: int = 3, n_features: int = 2, diagonal: bool = False) -> jaxgmm.Mixture:
    rng = np.random.default_rng(n_features)
    factors = rng.normal(size=(*batch, n_components, n_features, n_features))
    covariances = factors @ factors.swapaxes(-1, -2) + 0.1 * np.eye(n_features)
    if diagonal:
        covariances = np.diagonal(covariances, axis1=-2, axis2=-1).copy()
    weights = rng.dirichlet(np.ones(n_components), size=batch or None)
    return jaxgmm.Mixture(weights, rng.normal(size=(*batch, n_components, n_features)), covariances)


def samples(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape)


def scipy_log_prob(mixture: jaxgmm.Mixture, x: np.ndarray) -> np.ndarray:
    parts = zip(mixture.weights, mixture.means, full_covariances(mixture), strict=True)
    return logsumexp([np.log(w) + multivariate_normal(mean, c).logpdf(x) for w, mean, c in parts], axis=0)


def as_jax(mixture: jaxgmm.Mixture, dtype: type = np.float32) -> jaxgmm.Mixture:
    return mixture.map(lambda leaf: jnp.asarray(leaf, dtype))


def n_compiled(call) -> int:
    found = []

    def count(event: str, _: float, **__: object) -> None:
        found.append(event == "/jax/core/compile/backend_compile_duration")

    jax.monitoring.register_event_duration_secs_listener(count)
    call()
    jax.monitoring.unregister_event_duration_listener(count)
    return sum(found)


# Each power of two is a program of each question. Those of many features take long to compile.
EVERY_SIZE, A_FEW_SIZES = (1, 2, 3, 5, 16, 31, 100, 1000, 4097, 9999), (1, 31, 4097, 9999)


@pytest.mark.usefixtures("compiled_as_for_users")
@pytest.mark.parametrize(
    ("n_components", "n_features", "diagonal", "as_given", "numbers"),
    [
        (3, 2, False, np.asarray, EVERY_SIZE),
        slow(3, 2, True, jnp.float32, A_FEW_SIZES),
        slow(8, 8, True, np.asarray, A_FEW_SIZES),
        slow(4, 11, False, jnp.float32, A_FEW_SIZES),
    ],
)
def test_answer_of_a_sample_does_not_depend_on_how_many_there_are(
    n_components: int, n_features: int, diagonal: bool, as_given: Callable, numbers: tuple[int, ...]
) -> None:
    mixture = mixtures(n_components=n_components, n_features=n_features, diagonal=diagonal)
    mixture = mixture.map(as_given)
    x = as_given(samples(10_000, n_features))
    for question in QUESTIONS:
        whole = np.asarray(question(mixture, x))
        for n in numbers:
            np.testing.assert_array_equal(question(mixture, x[:n]), whole[:n])


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_as_for_users")
def test_answers_of_a_batch_do_not_depend_on_how_many_samples_there_are() -> None:
    mixture, x = mixtures(5), samples(5, 700, 2)
    for question in QUESTIONS:
        whole = question(mixture, x)
        for n in (1, 17, 300):
            np.testing.assert_array_equal(question(mixture, x[:, :n]), whole[:, :n])


@pytest.mark.parametrize("n_features", [1, 2, 9])
@pytest.mark.parametrize("n", [1, 40, 300, 20_000])
def test_log_density_of_many_is_scipys(n: int, n_features: int) -> None:
    mixture, x = mixtures(n_features=n_features), samples(n, n_features)
    np.testing.assert_allclose(jaxgmm.log_prob(mixture, x), scipy_log_prob(mixture, x), rtol=1e-11, atol=1e-12)
    assert np.shape(jaxgmm.responsibilities(mixture, x)) == (n, 3)


@pytest.mark.parametrize("diagonal", [False, True])
def test_narrow_components_far_away_keep_their_digits(diagonal: bool) -> None:
    mixture = mixtures(diagonal=diagonal)
    # Multiples of a power of two, so that adding the offset is exact.
    near = replace(mixture, means=np.round(mixture.means * 64) / 64)
    x = np.round(samples(50, 2) * 64) / 64
    far = replace(near, means=near.means + 1e8)
    np.testing.assert_array_equal(jaxgmm.log_prob(far, x + 1e8), jaxgmm.log_prob(near, x))


def test_sixty_lengths_compile_few_programs() -> None:
    mixture = mixtures(n_components=6, n_features=3)
    lengths = np.exp(np.random.default_rng(0).uniform(0, np.log(100_000), 60)).astype(int)
    x = samples(100_000, 3)
    assert n_compiled(lambda: [jaxgmm.log_prob(mixture, x[:n]) for n in lengths]) <= 12


def test_stacks_and_ragged_data_compile_few_programs() -> None:
    mixture = mixtures(7, n_components=6, n_features=3)
    lengths = range(30, 200, 5)
    assert n_compiled(lambda: [jaxgmm.log_prob(mixture, samples(7, n, 3)) for n in lengths]) <= 12
    ragged = [[samples(n + i, 3) for i in range(7)] for n in lengths]
    assert n_compiled(lambda: [jaxgmm.log_prob(mixture, x) for x in ragged]) <= 12


def test_jax_arrays_of_sixty_lengths_compile_few_programs() -> None:
    mixture, x = as_jax(mixtures(n_components=5)), np.float32(samples(5000, 2))
    parts = [jax.device_put(x[:n]) for n in range(30, 5000, 83)]
    assert n_compiled(lambda: [jaxgmm.responsibilities(mixture, part) for part in parts]) <= 12


@pytest.mark.parametrize("n_mixtures", [1, 3, 70, 1500])
def test_many_mixtures_answer_as_each_alone(n_mixtures: int) -> None:
    mixture, x = mixtures(n_mixtures), samples(n_mixtures, 10, 2)
    found = [question(mixture, x) for question in QUESTIONS]
    for b in {0, n_mixtures // 2, n_mixtures - 1}:
        own = mixture.of(b)
        for question, answer in zip(QUESTIONS, found, strict=True):
            np.testing.assert_allclose(answer[b], question(own, x[b]), rtol=1e-12, atol=1e-15)


def test_every_layout_of_axes() -> None:
    several, x = mixtures(2, 3), samples(2, 3, 40, 2)
    one = several.of((1, 2))
    for question in QUESTIONS:
        own = question(several, x)
        np.testing.assert_allclose(own[1, 2], question(one, x[1, 2]), rtol=1e-12)
        np.testing.assert_allclose(question(several, x[0, 0])[1, 2], question(one, x[0, 0]), rtol=1e-12)
        assert question(one, x).shape == own.shape
        np.testing.assert_array_equal(question(one, x)[1, 2], question(one, x[1, 2]))
        assert question(one, x[0, 0, :0]).shape[0] == 0
        assert question(several, x[:, :, :0]).shape[:3] == (2, 3, 0)


def test_data_sets_of_unequal_length_answer_as_each_alone() -> None:
    mixture, x = mixtures(3), [samples(n, 2) for n in (5, 0, 300)]
    for question in QUESTIONS:
        for of in (mixture, mixture.of(0)):
            found = question(of, x)
            assert [len(rows) for rows in found] == [5, 0, 300]
            for b, rows in enumerate(x):
                own = of if of.weights.ndim == 1 else of.of(b)
                np.testing.assert_allclose(found[b], question(own, rows), rtol=1e-12)


@pytest.mark.parametrize(
    "as_given",
    [
        pd.DataFrame,
        lambda x: pd.DataFrame(x).convert_dtypes(),
        np.ndarray.tolist,
        lambda x: x.astype(object),
        np.asfortranarray,
        lambda x: x.astype(">f8"),
        np.ma.masked_array,
        lambda x: x[::-1][::-1],
    ],
)
def test_whatever_fit_takes_is_taken(as_given) -> None:
    mixture, x = mixtures(), samples(7, 2)
    for question in QUESTIONS:
        np.testing.assert_array_equal(question(mixture, as_given(x)), question(mixture, x))


# As a start, it is that in `test_explicit_starts_may_differ_between_data_sets`.
def test_result_of_a_fit_is_its_mixture() -> None:
    # A fit of too few samples, which compiles nothing, is given the mixture of one that has an answer.
    x, mixture = samples(60, 2), mixtures()
    result = replace(jaxgmm.fit(x[:2], 3), mixture=mixture)
    for question in QUESTIONS:
        np.testing.assert_array_equal(question(result, x), question(mixture, x))
        with pytest.raises(ValueError, match=r"got Sweep. Of a sweep, pass its .best"):
            question(jaxgmm.Sweep({}, result), x)
    np.testing.assert_array_equal(jaxgmm.sample(0, result, 5)[0], jaxgmm.sample(0, mixture, 5)[0])
    np.testing.assert_array_equal(jaxgmm.diagnose(result, x).pit, jaxgmm.diagnose(mixture, x).pit)


@pytest.mark.parametrize(
    ("mixture", "x", "words"),
    [
        (mixtures(), samples(5, 3), "as many features as the mixture"),
        (mixtures(), samples(2), r"it has shape \(2,\). For one sample, pass x\[None\]"),
        (mixtures(), samples(5), r"as many features as the mixture; it has shape \(5,\). For one feature"),
        (mixtures(3), samples(2, 5, 2), r"begin with the axes \(3,\) of the mixtures"),
        (mixtures(3), [samples(5, 2), samples(4, 2)], r"begin with the axes \(3,\) of the mixtures"),
        (mixtures(), [samples(5, 2), samples(4, 3)], r"x\[1\] has shape \(4, 3\)"),
        (mixtures(), [["a", 1.0]], r"x\[0, 0\] is 'a' \(str\)"),
        (mixtures(), samples(5, 2) + 1j, "dtype is complex128"),
        (mixtures(), np.ma.masked_less(samples(5, 2), 0), "masked entries"),
        (mixtures(), None, "x must be an array of real numbers; got None"),
        (mixtures(), {"a": 1}, "got {'a': 1}"),
        ({"weights": 1}, samples(5, 2), "mixture must be a jaxgmm.Mixture or a result of jaxgmm.fit; got dict"),
        (replace(mixtures(), means=samples(2, 2)), samples(5, 2), r"its shapes are \(3,\), \(2, 2\) and \(3, 2, 2\)"),
        (replace(mixtures(), weights=np.array(["a"] * 3)), samples(5, 2), r"mixture.weights\[0\] is 'a'"),
    ],
)
def test_misuse_is_refused_in_words(mixture: object, x: object, words: str) -> None:
    for question in QUESTIONS:
        with pytest.raises(ValueError, match=words):
            question(mixture, x)


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("given", [np.asarray, jnp.asarray])
def test_one_rule_says_which_samples_belong_to_no_component(diagonal: bool, given) -> None:
    mixture = mixtures(diagonal=diagonal).map(given)
    far = 1e200 if given is np.asarray else 1e30
    x = given([[far, far], [far, -far], [np.inf, 0], [np.inf, -np.inf], [-np.inf, -np.inf], [np.nan, 0], [0.0, 0.0]])
    assert jaxgmm.predict(mixture, x).tolist()[:-1] == [-1] * 6
    assert np.all(np.isnan(jaxgmm.responsibilities(mixture, x)[:-1]))
    np.testing.assert_array_equal(jaxgmm.log_prob(mixture, x)[:-1], [-np.inf] * 5 + [np.nan])
    assert jaxgmm.predict(mixture, x)[-1] >= 0
    assert np.sum(jaxgmm.responsibilities(mixture, x)[-1]) == pytest.approx(1)


def test_mixtures_without_an_answer_have_no_components() -> None:
    mixture, x = mixtures(4), samples(4, 6, 2)
    mixture.means[0] = np.nan
    mixture.weights[1] = 0
    mixture.covariances[2, 1] = -np.eye(2)
    component, shares = jaxgmm.predict(mixture, x), jaxgmm.responsibilities(mixture, x)
    assert np.all(component[:3] == -1)
    assert np.all(component[3] >= 0)
    np.testing.assert_array_equal(component == -1, np.isnan(shares).all(axis=-1))
    np.testing.assert_array_equal(component == -1, np.isnan(shares).any(axis=-1))
    assert np.all(jaxgmm.log_prob(mixture, x)[1] == -np.inf)


def test_absent_component_may_hold_anything() -> None:
    mixture, x = mixtures(), samples(6, 2)
    with_nothing = jaxgmm.Mixture(
        np.append(mixture.weights, 0.0),
        np.append(mixture.means, [[np.nan, np.inf]], axis=0),
        np.append(mixture.covariances, np.zeros((1, 2, 2)), axis=0),
    )
    np.testing.assert_allclose(jaxgmm.log_prob(with_nothing, x), jaxgmm.log_prob(mixture, x), rtol=1e-14)
    assert np.all(jaxgmm.responsibilities(with_nothing, x)[:, 3] == 0)


@pytest.mark.parametrize("n", [5, slow(5000)])
def test_derivatives_in_both_directions_are_those_of_the_formula(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tiles of 16, so that several are gone through. No other test has as many components: programs keep their tiles.
    monkeypatch.setattr(pieces, "_HELD", 224)
    mixture, x = as_jax(mixtures(n_components=7)), jnp.asarray(samples(n, 2), jnp.float32)
    shares = jaxgmm.responsibilities(mixture, x)
    precisions = np.linalg.inv(mixture.covariances)
    slopes = -np.einsum("kij,nkj->nki", precisions, x[:, None] - mixture.means[None])
    expected = np.einsum("nk,nki->ni", shares, slopes)
    total = lambda x: jnp.sum(jaxgmm.log_prob(mixture, x))  # noqa: E731
    np.testing.assert_allclose(jax.grad(total)(x), expected, rtol=2e-3, atol=2e-3)
    _, along = jax.jvp(total, (x,), (jnp.ones_like(x),))
    assert along == pytest.approx(expected.sum(), rel=1e-3)
    by_weight = jax.jit(jax.grad(lambda w: jnp.sum(jaxgmm.log_prob(replace(mixture, weights=w), x))))(mixture.weights)
    np.testing.assert_allclose(by_weight, np.sum(np.asarray(shares) / np.asarray(mixture.weights), axis=0), rtol=1e-3)


@pytest.mark.slow
def test_inside_a_program_all_layouts_answer_as_outside() -> None:
    several = as_jax(mixtures(4))
    x = jnp.asarray(samples(4, 9, 2), jnp.float32)
    for question in QUESTIONS:
        outside = question(several, x)
        np.testing.assert_allclose(jax.jit(question)(several, x), outside, rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(jax.vmap(question)(several, x), outside, rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(jax.jit(question)(several, list(x)), outside, rtol=1e-5, atol=1e-9)
        shared = jax.jit(lambda m, x, ask=question: ask(m, x))(several, x[0])
        np.testing.assert_allclose(shared, question(several, x[0]), rtol=1e-5, atol=1e-9)
    with pytest.raises(ValueError, match="list of arrays of one shape"):
        jax.jit(lambda x: jaxgmm.log_prob(several, [x, x[:2]]))(x[0])


def test_what_is_known_is_answered_inside_a_program() -> None:
    mixture, x = mixtures(), samples(6, 2)
    expected = jaxgmm.log_prob(mixture, x).sum() + jaxgmm.sample(0, mixture, 3)[0].sum()

    @jax.jit
    def program(shift: jax.Array) -> jax.Array:
        return shift + np.float32(jaxgmm.log_prob(mixture, x).sum() + jaxgmm.sample(0, mixture, 3)[0].sum())

    np.testing.assert_allclose(program(jnp.float32(0)), expected, rtol=1e-6)


def test_samples_on_an_accelerator_stay_there(monkeypatch: pytest.MonkeyPatch) -> None:
    # The CPU stands in for one.
    monkeypatch.setattr(density, "_is_on_accelerator", lambda array: isinstance(array, jax.Array))
    mixture, x = mixtures(), samples(40, 2)
    for question in QUESTIONS:
        found = question(as_jax(mixture), jnp.asarray(x, jnp.float32))
        assert isinstance(found, jax.Array)
        np.testing.assert_allclose(found, question(mixture, x), rtol=1e-4, atol=1e-5)


def test_types_of_answers() -> None:
    mixture, x = mixtures(), samples(5, 2)
    assert jaxgmm.log_prob(mixture, x).dtype == np.float64
    assert jaxgmm.predict(mixture, x).dtype == np.int64
    assert jaxgmm.predict(mixture, x).flags.writeable
    for dtype in (jnp.float32, jnp.float16, jnp.bfloat16):
        found = jaxgmm.log_prob(as_jax(mixture, dtype), jnp.asarray(x, dtype))
        assert isinstance(found, jax.Array)
        assert found.dtype == dtype
    assert jaxgmm.predict(as_jax(mixture), jnp.asarray(x, jnp.float32)).dtype == jnp.int32
    assert isinstance(jaxgmm.log_prob(mixture, jnp.ones((2, 2), int)), np.ndarray)
    assert jaxgmm.log_prob(mixture, jnp.asarray(x, jnp.float32)).dtype == jnp.float32


MANY = """
import json
import numpy as np
import jaxgmm

def memory(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))

rng = np.random.default_rng(0)
x = rng.standard_normal((500_000, 16))
mixture = jaxgmm.Mixture(np.full(32, 1 / 32), rng.standard_normal((32, 16)), np.tile(np.eye(16), (32, 1, 1)))
jaxgmm.log_prob(mixture, x[:1000])
before = memory("VmRSS")
jaxgmm.log_prob(mixture, x)
print(json.dumps(memory("VmHWM") - before))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_samples_times_components() -> None:
    answer = subprocess.run([sys.executable, "-c", MANY], check=True, capture_output=True, text=True)
    # 500,000 x 32 x 16 numbers of float64 are 2 GB.
    assert json.loads(answer.stdout) < 200 * 2**20
