"""The estimator. Only its fitting is jaxgmm's: all starts are drawn as in scikit-learn, and fitted in one call.

Parameters, validation, prediction and criteria are inherited from `sklearn.mixture.GaussianMixture`.
"""

import inspect
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import sklearn.mixture
from sklearn.base import _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture._gaussian_mixture import _compute_precision_cholesky, _estimate_log_gaussian_prob
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, validate_data

from jaxgmm.driver.arguments import check_mixture, numeric_mixture
from jaxgmm.families import families_of
from jaxgmm.fit_result import FitResult
from jaxgmm.mixture import Mixture, as_mixture, full_covariances
from jaxgmm.sklearn.parameters import for_each, from_sklearn
from jaxgmm.sklearn.runs import fit_starts
from jaxgmm.sklearn.starts import moments_of, responsibilities_of, shift_of
from jaxgmm.status import Status

_NOT_CONVERGED = (
    "Best performing initialization did not converge. Try different init parameters, or increase max_iter, tol, or "
    "check for degenerate data."
)
_ILL_DEFINED = (
    "Fitting the mixture model failed because some components have ill-defined empirical covariance (for instance "
    "caused by singleton or collapsed samples). Try to decrease the number of components, increase reg_covar, or scale "
    "the input data."
)

# From 1.8 on, scikit-learn's checks take the array namespace as an argument.
_checks = inspect.signature(sklearn.mixture.GaussianMixture._check_parameters)
_NAMESPACE = {"xp": np} if "xp" in _checks.parameters else {}


class GaussianMixture(sklearn.mixture.GaussianMixture):
    """`sklearn.mixture.GaussianMixture`, fitted by jaxgmm; its parameters, attributes and defaults are scikit-learn's.

    From the same `random_state` it makes the same starts and the same iterations and stops by the same rule, so that
    results agree to rounding. `fit`, `fit_predict` and `score` also take a `sample_weight`. The fit itself is computed
    in float64; attributes have the type of X, as in scikit-learn.

    What differs:
        - All starts run at once. So a failed start does not end the fit if another is sound, and `verbose` prints its
          output when all starts have ended.
        - The engine's arithmetic cannot represent components without samples, or narrower than about a millionth of
          the data's spread. If that happens in every start, scikit-learn's own loop makes the fit, or raises its error;
          with sample weights, that is a ValueError.
        - Samples may be far from 0 compared with their spread, as times are. There scikit-learn's squares cancel, and
          it finds no mixture, or a wrong one.
        - `bic` and `aic` are scikit-learn's, and ignore weights.
        - The array API is not supported.

    `lower_bound_`, the mean log-likelihood of a sample in nats, belongs to the parameters before the last M-step, as in
    scikit-learn; `score` uses the returned parameters.

    Example:
        >>> import numpy as np
        >>> from jaxgmm.sklearn import GaussianMixture
        >>> x = np.array([[1, 2], [1, 4], [1, 0], [10, 2], [10, 4], [10, 0]])
        >>> GaussianMixture(n_components=2, random_state=0).fit(x).means_
        array([[10.,  2.],
               [ 1.,  2.]])
    """

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> "GaussianMixture":
        """Fits the mixture by expectation-maximisation, from `n_init` starts or from where the last fit ended.

        Args:
            X: samples `(N, D)`, array or data frame.
            y: not used.
            sample_weight: `(N,)`, not negative; None for 1. Weight 0 removes a sample, weight 2 counts it twice, in the
                starts too.

        Returns:
            the estimator.

        Raises:
            ValueError: wrong parameters or data, fewer samples than components, or no start that gave a mixture.
        """
        given: Any = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        x, weights = _weighted(given, sample_weight)
        if len(x) < self.n_components:
            raise ValueError(
                f"Expected n_samples >= n_components but got n_components = {self.n_components}, n_samples = {len(x)}"
            )
        self._check_parameters(x, **_NAMESPACE)
        resumes = self.warm_start and hasattr(self, "converged_")
        random_state = check_random_state(self.random_state)
        before = random_state.get_state()
        starts = self._last(x) if resumes else self._drawn(x, weights, random_state)
        if self.max_iter == 0:
            self._keep(starts[-1], x.dtype)
            return self
        total = len(x) if weights is None else np.sum(weights)
        fits = self._run(x, weights, starts, self.max_iter)
        # The first iteration's gain is relative to the end of the last fit, which the engine does not know.
        at_once = resumes and abs(np.asarray(fits.history)[0, 0] / total - self.lower_bound_) < self.tol
        if at_once and self.max_iter > 1:
            fits = self._run(x, weights, starts, 1)
        is_sound = (fits.status == Status.CONVERGED) | (fits.status == Status.MAX_ITER)
        if not np.any(is_sound):
            if weights is not None or len(x) < len(given):
                raise ValueError(_ILL_DEFINED)
            # Repeat the same draws.
            random_state.set_state(before)
            super().fit_predict(X)
            return self
        best = int(np.argmax(np.where(is_sound, fits.log_likelihood, -np.inf)))
        self._report(fits, total)
        mixture = fits.mixture.of(best)
        bounds = np.asarray(fits.history)[best, : fits.n_iter[best]] / total
        converged = at_once or bool(fits.status[best] == Status.CONVERGED)
        self._keep(mixture, x.dtype, bounds.tolist(), converged)
        if not self.converged_:
            warnings.warn(_NOT_CONVERGED, ConvergenceWarning, stacklevel=2)
        return self

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> np.ndarray:
        """Fits the mixture and returns the most probable component of each sample.

        Args:
            X: samples `(N, D)`.
            y: not used.
            sample_weight: as for `fit`.

        Returns:
            `(N,)`, components numbered from 0.
        """
        return self.fit(X, sample_weight=sample_weight).predict(X)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """The (weighted) mean log-likelihood of a sample, in nats.

        Args:
            X: samples `(N, D)`.
            y: not used.
            sample_weight: `(N,)`, not negative; None for 1.

        Returns:
            the mean of `score_samples`.
        """
        if sample_weight is None:
            return super().score(X)
        log_density = self.score_samples(X)
        return float(np.average(log_density, weights=_checked_weights(sample_weight, log_density)))

    def _estimate_log_prob(self, X: Any, xp: Any = None) -> np.ndarray:
        """Log-densities of the components. Samples and means are moved to 0, as scikit-learn squares them."""
        means: Any = self.means_
        shift = self.weights_ @ means
        return _estimate_log_gaussian_prob(X - shift, means - shift, self.precisions_cholesky_, self.covariance_type)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.array_api_support = False
        return tags

    def _last(self, x: np.ndarray) -> list[Mixture]:
        """The one start of a fit that continues the last one."""
        n_axes = {"full": 3, "tied": 2, "diag": 2, "spherical": 1}[self.covariance_type]
        if np.asarray(self.covariances_).ndim != n_axes:
            raise ValueError("covariance_type has changed since the last fit, to start from; set warm_start=False.")
        last = from_sklearn(self)
        if last.n_components != self.n_components:
            raise ValueError(
                f"n_components is {self.n_components}, and that of the last fit, to start from, {last.n_components}; "
                "set warm_start=False."
            )
        if last.n_features != x.shape[1]:
            raise ValueError(f"X has {x.shape[1]} features, and the last fit, to start from, {last.n_features}.")
        return [last]

    def _drawn(self, x: np.ndarray, weights: np.ndarray | None, random_state: np.random.RandomState) -> list[Mixture]:
        """All starts, drawn as in scikit-learn."""
        shift = shift_of(x)
        near = x - shift if np.any(shift) else x
        return [self._start(near, shift, weights, random_state) for _ in range(self.n_init)]

    def _start(
        self, x: np.ndarray, shift: np.ndarray, weights: np.ndarray | None, random_state: np.random.RandomState
    ) -> Mixture:
        """A start from samples that have been moved to 0 by a shift, with the parameters that the user gave."""
        start = Mixture(None, None, None)
        if self.weights_init is None or self.means_init is None or self.precisions_init is None:
            responsibilities = responsibilities_of(x, weights, self.n_components, self.init_params, random_state)
            start = moments_of(x, responsibilities, weights, self.covariance_type, self.reg_covar)
            start = replace(start, means=start.means + shift)
        if self.weights_init is not None:
            start = replace(start, weights=np.asarray(self.weights_init, np.float64))
        if self.means_init is not None:
            start = replace(start, means=np.asarray(self.means_init, np.float64))
        if self.precisions_init is not None:
            precisions = np.asarray(self.precisions_init, np.float64)
            is_diagonal = self.covariance_type in ("diag", "spherical")
            covariances = 1 / precisions if is_diagonal else np.linalg.inv(precisions)
            start = replace(start, covariances=for_each(covariances, self.covariance_type, start.means.shape))
        return start

    def _run(self, x: np.ndarray, weights: np.ndarray | None, starts: list[Mixture], max_iter: int) -> FitResult:
        """EM from all starts."""
        stacked = starts[0].map(lambda *arrays: np.stack(arrays), *starts[1:])
        x = x.astype(np.float64, copy=False)
        return fit_starts(x, stacked, self.covariance_type, self.tol, max_iter, self.reg_covar, weights)

    def _keep(self, mixture: Mixture, dtype: Any, bounds: list[float] | None = None, converged: bool = False) -> None:
        """Sets the fitted attributes."""
        covariances = mixture.covariances
        if self.covariance_type == "tied":
            covariances = covariances[0]
        elif self.covariance_type == "spherical":
            covariances = covariances[:, 0]
        factors = _compute_precision_cholesky(covariances, self.covariance_type)
        parameters = (mixture.weights, mixture.means, covariances, factors)
        self._set_parameters(tuple(leaf.astype(dtype) for leaf in parameters))
        self.converged_, self.n_iter_ = converged, len(bounds or [])
        self.lower_bounds_, self.lower_bound_ = bounds or [], bounds[-1] if bounds else -np.inf

    def _report(self, fits: FitResult, total: float) -> None:
        """Prints what scikit-learn prints during the fit."""
        if not self.verbose:
            return
        for r, (trace, n_iter) in enumerate(zip(np.asarray(fits.history) / total, fits.n_iter, strict=True)):
            self._print_verbose_msg_init_beg(r)
            for i in range(n_iter):
                self._print_verbose_msg_iter_end(i + 1, trace[i] - trace[i - 1] if i else np.inf)
            self._print_verbose_msg_init_end(trace[n_iter - 1], fits.status[r] == Status.CONVERGED)


def to_sklearn(mixture: Mixture, covariance_type: str | None = None) -> GaussianMixture:
    """Converts a mixture to a fitted estimator. Components of weight 0 are left out.

    That of a fit has its `converged_` and `n_iter_` and, if it has converged, its `lower_bound_`; that of a mixture
    alone is as after `max_iter=0`.

    Args:
        mixture: one mixture, or the fit of one data set, without a batch axis.
        covariance_type: the family; None infers the narrowest of `"spherical"`, `"diag"`, `"tied"` and `"full"` that
            the covariances belong to, and that has the number of parameters that a fit counts.

    Returns:
        an estimator that predicts, scores and samples, and is a `sklearn.mixture.GaussianMixture`. With
        `warm_start=True` set, its `fit` continues from here.

    Raises:
        ValueError: a batch of mixtures, parameters that are not finite, or covariances that are not of the family.
    """
    fit, given, counted = mixture, numeric_mixture(as_mixture(mixture)), getattr(mixture, "n_parameters", None)
    check_mixture(given, None)
    mixture = given.map(lambda leaf: leaf.astype(np.float64, copy=False))
    if mixture.weights.ndim != 1:
        raise ValueError(
            f"mixture must be one mixture, with weights (K,); its weights have shape {mixture.weights.shape}. Convert "
            "one of the batch at a time: mixture.of(b)."
        )
    if not all(np.all(np.isfinite(leaf)) for leaf in mixture.arrays):
        raise ValueError("mixture holds NaN or infinity: this fit has no answer.")
    mixture = mixture.components(mixture.weights > 0)
    inferred = families_of(mixture.map(lambda leaf: leaf[None]), counted).item()
    family = inferred if covariance_type is None else covariance_type
    estimator = GaussianMixture(mixture.n_components, covariance_type=family)
    estimator._validate_params()
    full = full_covariances(mixture)
    variances = np.diagonal(full, axis1=1, axis2=2)
    is_diagonal = np.array_equal(full, variances[:, :, None] * np.eye(mixture.n_features))
    spread, belongs = {
        "full": (full, True),
        "tied": (full, np.all(full == full[:1])),
        "diag": (variances, is_diagonal),
        "spherical": (variances, is_diagonal and np.all(variances == variances[:, :1])),
    }[family]
    if not belongs:
        raise ValueError(f"The mixture's covariances are not of covariance_type={family!r}; they are of {inferred!r}.")
    estimator._keep(replace(mixture, covariances=spread), np.float64)
    if isinstance(fit, FitResult):
        estimator.converged_, estimator.n_iter_ = bool(fit.status == Status.CONVERGED), int(fit.n_iter)
        # A fit that goes on from here ends at once if it gains nothing on this bound.
        if estimator.converged_:
            estimator.lower_bound_ = float(fit.log_likelihood / fit.n_samples)
    validate_data(estimator, mixture.means)  # notes the number of features
    return estimator


def _checked_weights(sample_weight: Any, x: np.ndarray) -> np.ndarray:
    weights = _check_sample_weight(sample_weight, x, dtype=np.float64, ensure_non_negative=True)
    if not np.any(weights):
        raise ValueError("Sample weights must contain at least one non-zero number.")
    return weights


def _weighted(x: np.ndarray, sample_weight: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Samples with positive weight, and their weights; None where all are equal."""
    if sample_weight is None:
        return x, None
    weights = _checked_weights(sample_weight, x)
    x, weights = x[weights > 0], weights[weights > 0]
    return x, None if np.all(weights == weights[0]) else weights
