"""Options of `fit` and `sweep`: the allowed names and numbers, checked without JAX.

The command's help and its messages about misuse come from here, so that they need no import of JAX.
"""

import math
import numbers
from collections.abc import Collection, Sequence
from importlib.util import find_spec
from itertools import pairwise
from typing import Any, Literal, get_args

Family = Literal["full", "tied", "diag", "spherical"]
Precision = Literal["mixed", "float32", "float64"]
Method = Literal["quasi-newton", "squarem", "em", "lbfgs", "adam"]
Criterion = Literal["bic", "aic", "aicc", "icl", "cv", "lrt"]

FAMILIES: tuple[str, ...] = get_args(Family)
PRECISIONS: tuple[str, ...] = get_args(Precision)
METHODS: tuple[str, ...] = get_args(Method)
# Methods whose directions are made by optax.
BY_OPTAX = ("lbfgs", "adam")
# Estimated distance of the mean log-likelihood per sample from its limit, in nats, at which runs stop by default.
TOL = 1e-9
# The bootstrap likelihood-ratio test is not a criterion of one model; it compares two.
LRT = "lrt"
# The level at which it rejects K components.
LEVEL = 0.05


def is_integer(value: Any) -> bool:
    """Whether a value is an integer and not a bool."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def check_integer(name: str, value: Any, least: int) -> None:
    """Raises ValueError unless an option is an integer that is large enough."""
    if not is_integer(value) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}; got {value!r}.")


def check_at_least_zero(name: str, value: Any) -> None:
    """Raises ValueError unless an option is a finite number that is not negative."""
    if not isinstance(value, numbers.Real) or not (math.isfinite(value) and float(value) >= 0):
        raise ValueError(f"{name} must be a finite number of at least 0; got {value!r}.")


def is_flag(value: Any) -> bool:
    """Whether a value is True or False."""
    # NumPy's own bool is not a Python bool.
    return isinstance(value, bool) or type(value).__name__ == "bool"


def check_flag(name: str, value: Any) -> None:
    """Raises ValueError unless an option is True or False."""
    if not is_flag(value):
        raise ValueError(f"{name} must be True or False; got {value!r}.")


def check_progress(value: Any) -> None:
    """Raises ValueError unless progress is shown or not, or told to a function."""
    if not callable(value) and not is_flag(value):
        raise ValueError(f"progress must be True, False or a function; got {value!r}.")


def check_model(n_components: Any, covariance_type: Any, reg_covar: Any) -> None:
    """Raises ValueError unless K, family and ridge describe a model."""
    several = " Several are for jaxgmm.sweep."
    _check_number("n_components", n_components, 1, several if isinstance(n_components, list | tuple | range) else "")
    _check_known("covariance_type", covariance_type, FAMILIES)
    check_at_least_zero("reg_covar", reg_covar)


def check_runs(n_init: Any, n_finalists: Any, tol: Any, max_iter: Any, precision: Any, method: Any = None) -> None:
    """Raises ValueError if an option of runs is not valid, and ImportError if it needs a package that is missing."""
    _check_number("n_init", n_init, 1)
    if n_finalists is not None:
        _check_number("n_finalists", n_finalists, 1)
    check_at_least_zero("tol", tol)
    _check_number("max_iter", max_iter, 0)
    _check_known("precision", precision, PRECISIONS)
    if method is not None:
        _check_known("method", method, METHODS)
    if method in BY_OPTAX:
        check_optax(f"method={method!r}")


def _check_number(name: str, value: Any, least: int, remedy: str = "") -> None:
    if not is_integer(value) or not least <= int(value) < 2**31:
        raise ValueError(f"{name} must be an integer of at least {least}, and less than 2**31; got {value!r}.{remedy}")


def _check_known(name: str, value: Any, known: Collection[str]) -> None:
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}; got {value!r}.")


def check_optax(what: str) -> None:
    """Raises ImportError if optax, which something needs, is not installed."""
    if find_spec("optax") is None:
        raise ImportError(f"{what} needs optax: pip install 'jaxgmm[optax]'.")


def options_of_runs(
    n_init: int,
    n_finalists: int | None,
    key: int,
    tol: float,
    max_iter: int,
    precision: str,
    method: str | None,
    *,
    avoid_spurious: bool,
) -> dict[str, Any]:
    """The options of `fit` and `sweep` that jobs record; `avoid_spurious` only where it is not the default.

    Raises:
        ValueError: `key` is no seed, or `avoid_spurious` no flag.
    """
    check_integer("key", key, 0)
    check_flag("avoid_spurious", avoid_spurious)
    told = {
        "n_init": n_init,
        "n_finalists": n_finalists,
        "key": key,
        "tol": tol,
        "max_iter": max_iter,
        "precision": precision,
        "method": method,
    }
    return told if avoid_spurious else told | {"avoid_spurious": False}


def method_for(method: str | None, tol: float) -> str:
    """The method that was asked for, or else the default. A fixed number of iterations is one of EM's."""
    return method or ("em" if tol == 0 else METHODS[0])


def check_choice(criteria: Sequence[Any], n_folds: Any, patience: Any, split: Any) -> None:
    """Raises ValueError unless these are options of a choice among models."""
    for name in criteria:
        if not isinstance(name, str) or name not in get_args(Criterion):
            known = ", ".join(map(repr, get_args(Criterion)))
            raise ValueError(f"criterion must be one of {known}; got {name!r}.")
    check_integer("n_folds", n_folds, 2)
    if patience is not None:
        check_integer("patience", patience, 1)
    check_flag("split", split)


def check_test(
    criteria: Sequence[str],
    models: Sequence[tuple[int, str, float]],
    sample_weight: Any,
    patience: Any,
    split: bool,
) -> None:
    """Raises ValueError if replicates of a likelihood-ratio test could not be fitted in the same way as the data."""
    if any(after - before != 1 for before, after in pairwise(k for k, _, _ in models)):
        given = (", ".join(map(str, dict.fromkeys(own))) for own in zip(*models, strict=True))
        raise ValueError(
            "criterion 'lrt' needs consecutive n_components, one covariance_type and one reg_covar; "
            "got n_components {}, covariance_type {} and reg_covar {}.".format(*given)
        )
    if sample_weight is not None or split:
        raise ValueError("criterion 'lrt' draws and fits samples of weight 1; leave out sample_weight and split.")
    if patience is not None and criteria[0] == LRT:
        raise ValueError("criterion 'lrt' stops at the first K that is not rejected; leave out patience.")


# Orders of components, beside names of features.
ORDERS = ("mean", "weight", "start")


def check_order(order_by: Any, features: Sequence[str]) -> None:
    """Raises ValueError unless components can be put in an order of this name."""
    if not isinstance(order_by, str) or order_by not in (*ORDERS, *features):
        known = ", ".join(map(repr, (*ORDERS, *features)))
        raise ValueError(f"order_by must be one of {known}; got {order_by!r}.")


def named_order(order_by: str, features: Sequence[str]) -> str | int:
    """The order of components by its name among `ORDERS`, or the number of the feature that it names."""
    return order_by if order_by in ORDERS else list(features).index(order_by)
