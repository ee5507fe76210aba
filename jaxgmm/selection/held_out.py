"""Log-densities of samples under the fits of a chunk: of samples held out in cross-validation, and of assignments."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxgmm.driver.chunk import ChunkFits, fit_chunk
from jaxgmm.driver.dispatch import inputs_of, on_chunks
from jaxgmm.driver.plan import Chunk, ModelSet
from jaxgmm.driver.program import Combination, Request
from jaxgmm.engine.batch import Batch, Sizes, padded
from jaxgmm.mixture import Mixture, log_joint

# Samples whose densities are computed at a time.
TILE = 2048


def folds(n_samples: int, n_folds: int) -> np.ndarray:
    """The fold `(N,)` of each sample of a data set, from 0; the same for all data sets of one length."""
    return np.random.default_rng(n_samples).permutation(n_samples) % n_folds


def held_out(
    data: Batch,
    models: Sequence[Combination],
    n_folds: int,
    request: Request,
    report: Callable[[int], None],
    sizes: Sizes,
) -> Float[np.ndarray, "b m"]:
    """Total nats of every sample under the models fitted without its fold.

    Args:
        data: B data sets.
        models: the models fitted to each.
        n_folds: F. A data set with one fold left out has the same samples with other weights.
        request: how they are fitted.
        report: receives the number of finished runs.
        sizes: those of all data sets of the job of which these are a part.
    """
    replicates = data.repeated(n_folds)

    def parts(numbers: np.ndarray, n_samples: int) -> tuple[np.ndarray, np.ndarray]:
        """Weights `(C, n_samples)` of the samples of replicates, and whether they are left out."""
        data_sets, left_out = np.divmod(numbers, n_folds)
        fold_of = np.full((len(numbers), n_samples), -1)
        for length in np.unique(data.lengths[data_sets]):
            fold_of[data.lengths[data_sets] == length, :length] = folds(length, n_folds)[:n_samples]
        return data.weights(data_sets, n_samples), fold_of == left_out[:, None]

    def training_weights(numbers: np.ndarray, n_samples: int) -> np.ndarray:
        own, is_left_out = parts(numbers, n_samples)
        return np.where(is_left_out, 0.0, own)

    training = replicates._replace(weights_of=training_weights)
    of_job = sizes.repeated(n_folds)._replace(is_weighted=True)

    def scores_of(chunk: Chunk) -> np.ndarray:
        own_scores = np.empty((len(chunk.data_sets), len(models)))
        for model_set in chunk.model_sets:
            fits = fit_chunk(inputs_of(chunk, model_set, training))
            own, is_left_out = parts(chunk.data_sets, model_set.n_samples)
            densities = densities_of(fits, chunk, model_set, replicates, np.where(is_left_out, own, 0.0))
            own_scores[:, model_set.models] = densities.log_likelihood
        return own_scores

    scores = np.empty((replicates.n_data_sets, len(models)))
    for chunk, own_scores in on_chunks(scores_of, training, models, request, report, sizes=of_job):
        scores[chunk.data_sets] = own_scores
    return scores.reshape(-1, n_folds, len(models)).sum(axis=1)


class Densities(NamedTuple):
    """Sums over weighted samples, for each fit."""

    log_likelihood: Any
    log_assignment: Any


def densities_of(fits: ChunkFits, chunk: Chunk, model_set: ModelSet, data: Batch, weights: np.ndarray) -> Densities:
    """Log-likelihoods `(C, M)` of the weighted samples of each data set under its fits, and of their assignments."""
    weights = np.concatenate([weights, np.zeros((chunk.size - len(weights), model_set.n_samples))])
    sums = _densities(fits.mixture, padded(data.samples, data, chunk.filled_up, model_set.n_samples), weights)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(chunk.data_sets)], sums)


@jax.jit
def _densities(mixture: Mixture, x: Float[Array, "c n d"], weights: Float[Array, "c n"]) -> Densities:
    """For mixtures `(C M, …)`; a tile of samples and a model at a time."""
    n_data_sets, n_samples, n_features = x.shape
    tile = min(TILE, n_samples)
    missing = -n_samples % tile
    x = jnp.pad(x.astype(jnp.float64), ((0, 0), (0, missing), (0, 0)), mode="edge")
    weights = jnp.pad(weights, ((0, 0), (0, missing)))
    tiles = (
        jnp.moveaxis(x.reshape(n_data_sets, -1, tile, n_features), 1, 0),
        jnp.moveaxis(weights.reshape(n_data_sets, -1, tile), 1, 0),
    )
    by_model = jax.tree.map(lambda leaf: jnp.moveaxis(leaf.reshape(n_data_sets, -1, *leaf.shape[1:]), 1, 0), mixture)

    def of_tile(mixture: Mixture, x: Array, weights: Array) -> Densities:
        joint = log_joint(mixture, x)
        log_density = jax.scipy.special.logsumexp(joint, axis=1)
        terms = Densities(log_density, jnp.max(joint, axis=1) - log_density)
        # A sample of weight 0 may be anything.
        return jax.tree.map(lambda term: jnp.sum(jnp.where(weights > 0, weights * term, 0.0)), terms)

    def of_model(mixture: Mixture) -> Densities:
        def add(total: Densities, one: tuple[Array, Array]) -> tuple[Densities, None]:
            return jax.tree.map(jnp.add, total, jax.vmap(of_tile)(mixture, *one)), None

        zero = jnp.zeros(n_data_sets, jnp.float64)
        return lax.scan(add, Densities(zero, zero), tiles)[0]

    return jax.tree.map(jnp.transpose, lax.map(of_model, by_model))
