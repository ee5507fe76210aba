"""The scikit-learn estimator: scikit-learn's parameters, starts and stopping rule, fitted by jaxgmm's engine."""

try:
    from jaxgmm.sklearn.estimator import GaussianMixture, to_sklearn
    from jaxgmm.sklearn.parameters import from_sklearn
except ImportError as missing:
    raise ImportError(f"jaxgmm.sklearn needs scikit-learn ({missing}): pip install 'jaxgmm[sklearn]'.") from None

__all__ = ["GaussianMixture", "from_sklearn", "to_sklearn"]
