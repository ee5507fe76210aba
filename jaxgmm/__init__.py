"""Gaussian mixtures in bulk: thousands to millions of fits in one call, on a CPU or a GPU."""

from jaxgmm.diagnosis import Diagnosis, diagnose
from jaxgmm.engine.programs import keep_programs
from jaxgmm.fitting import FitResult, fit
from jaxgmm.mixture import Mixture, log_prob, predict, responsibilities, sample
from jaxgmm.resampling import Bootstrap, bootstrap
from jaxgmm.status import Status
from jaxgmm.sweeping import Sweep, sweep

__version__ = "0.1.0"
__all__ = [
    "Bootstrap",
    "Diagnosis",
    "FitResult",
    "Mixture",
    "Status",
    "Sweep",
    "bootstrap",
    "diagnose",
    "fit",
    "keep_programs",
    "log_prob",
    "predict",
    "responsibilities",
    "sample",
    "sweep",
]
