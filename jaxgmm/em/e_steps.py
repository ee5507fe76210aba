"""The table of E-steps; `jaxgmm.driver.plan` chooses one by shape and machine.

They agree to rounding. They differ in what they read, and in how many runs they process at once:

    products                a product with the features of all samples, or of one tile after another
    products in one kernel  the same, with larger covariances inverted by one CPU kernel
    vectors                 loops along the samples of small data sets, one run after another
    centred                 sums about each component's mean, where raw moments cancel

`summed_over` makes one for samples that are divided over devices.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float, Int

from jaxgmm.em.centred import centred_e_step, centred_parameters, centred_precisions
from jaxgmm.em.covariance import Ridge
from jaxgmm.em.expectation import Data, Tiles, as_data, e_step, natural_parameters, precisions
from jaxgmm.em.statistics import SufficientStatistics, features
from jaxgmm.em.vectors import e_steps
from jaxgmm.mixture import Mixture

# Numbers of the slots that hold a run, then zeros; and the number of such slots.
Busy = tuple[Int[Array, " s"], Int[Array, ""]]

Sums = tuple[SufficientStatistics, Float[Array, "*s"]]


class Form(NamedTuple):
    """The form in which samples are read.

    Attributes:
        n_features: D.
        diagonal: whether components are axis-aligned.
        tile: samples that are read at a time, or 0 for all.
    """

    n_features: int
    diagonal: bool
    tile: int


Parameters = Callable[[Mixture, Ridge], tuple[Array, Array]]
Precisions = Callable[[Array, Mixture], Array]


class EStep(NamedTuple):
    """The E-step of runs in slots; slots are the last axis of parameters and sums.

    Attributes:
        parameters: from mixtures and the ridge to the parameters that it reads, `(K, F)`, and the share left of each
            component's variance. Trailing axes beyond those of a mixture are further mixtures.
        precisions: from these parameters, and the mixtures, to inverse covariances `(K, D, D)`, or `(K, D)`.
        share: from the standardised samples `(C, D, N)` and weights `(C, N)` of all data sets to the data that slots
            share.
        load: from the shared data and the row of a data set to the data that a slot holds.
        read: from shared and held data, the slots' parameters `(K, F, S)` and which slots are busy, to their statistics
            and log-likelihoods.
        idle_is_free: whether slots without a run take no time.
        about_means: whether statistics are about the means of the components, not about the origin.
    """

    parameters: Parameters
    precisions: Precisions
    share: Callable[[Array, Array, Form], Any]
    load: Callable[[Any, Array, Form], Any]
    read: Callable[[Any, Any, Array, Busy, Form], Sums]
    idle_is_free: bool = False
    about_means: bool = False


def _together(
    of_one: Callable[..., Sums], parameters: Parameters, precisions: Precisions, *, about_means: bool = False
) -> EStep:
    """An E-step written for one run and mapped over slots, each of which holds its data."""

    def share(z: Array, weights: Array, _form: Form) -> tuple[Array, Array]:
        return z, weights

    def load(shared: tuple[Array, Array], row: Array, form: Form) -> Data | Tiles:
        z, weights = shared
        return as_data(z[row], weights[row], form.tile, diagonal=form.diagonal)

    def read(_shared: Any, held: Data | Tiles, parameters: Array, _busy: Busy, form: Form) -> Sums:
        of_slot = functools.partial(of_one, n_features=form.n_features, diagonal=form.diagonal)
        return jax.vmap(of_slot, in_axes=(0, -1), out_axes=-1)(held, parameters)

    return EStep(parameters, precisions, share, load, read, about_means=about_means)


def _natural(mixture: Mixture, _ridge: Ridge) -> tuple[Array, Array]:
    return natural_parameters(mixture)


def _natural_in_one_kernel(mixture: Mixture, _ridge: Ridge) -> tuple[Array, Array]:
    return natural_parameters(mixture, as_one_kernel=True)


def _all_features(z: Array, weights: Array, form: Form) -> Data:
    return Data(jax.vmap(lambda z: features(z, diagonal=form.diagonal))(z), weights)


def _row(_shared: Data, row: Array, _form: Form) -> Array:
    return row


def _in_turn(shared: Data, rows: Array, parameters: Array, busy: Busy, form: Form) -> Sums:
    return e_steps(shared, rows, parameters, *busy, form.n_features, diagonal=form.diagonal)


E_STEPS = {
    "products": _together(e_step, _natural, precisions),
    "products in one kernel": _together(e_step, _natural_in_one_kernel, precisions),
    "vectors": EStep(_natural, precisions, _all_features, _row, _in_turn, idle_is_free=True),
    "centred": _together(centred_e_step, centred_parameters, centred_precisions, about_means=True),
}


def summed_over(e_step: EStep, axis: str) -> EStep:
    """The E-step of data sets whose samples are divided over the devices of a mesh axis: sums are those of all.

    Every device has the same sums, and so the same next parameters.
    """

    def read(*arguments: Any) -> Sums:
        return jax.lax.psum(e_step.read(*arguments), axis)

    return e_step._replace(read=read)
