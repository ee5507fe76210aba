"""Gaussian mixtures in bulk: thousands to millions of fits in one call, on a CPU or a GPU.

Importing the package imports neither JAX nor the dependencies of `jaxgmm.plot` and the like: a name of the package is
imported from its module on first use (PEP 562).
"""

import importlib
from typing import TYPE_CHECKING, Any

# From here on forks are detected.
from jaxgmm import forking

if TYPE_CHECKING:
    from jaxgmm import distributed as distributed
    from jaxgmm import em as em
    from jaxgmm import frames as frames
    from jaxgmm import plot as plot
    from jaxgmm import report as report
    from jaxgmm import sklearn as sklearn
    from jaxgmm import storage as storage
    from jaxgmm.ascent import GradientFit, fit_by_gradient
    from jaxgmm.density import log_prob, outlier_p_values, predict, responsibilities
    from jaxgmm.diagnosis import Diagnosis, diagnose
    from jaxgmm.differentiation import DifferentiableFit, fit_differentiable
    from jaxgmm.doubts import FLAGS
    from jaxgmm.engine.programs import keep_programs
    from jaxgmm.fit_result import FitResult
    from jaxgmm.fitting import fit
    from jaxgmm.flagging import flags
    from jaxgmm.mixture import Mixture
    from jaxgmm.ordering import align_components, order_components
    from jaxgmm.resampling import Bootstrap, bootstrap
    from jaxgmm.sampling import sample
    from jaxgmm.selection.sweep_result import Sweep
    from jaxgmm.selection.sweeping import sweep
    from jaxgmm.sharded import PeerLostError
    from jaxgmm.status import Status
    from jaxgmm.streams.passing import fit_stream
    from jaxgmm.streams.state import Stream
    from jaxgmm.streams.updating import start_stream, update

__version__ = "0.2.0"
__all__ = [
    "FLAGS",
    "Bootstrap",
    "Diagnosis",
    "DifferentiableFit",
    "FitResult",
    "GradientFit",
    "Mixture",
    "PeerLostError",
    "Status",
    "Stream",
    "Sweep",
    "align_components",
    "bootstrap",
    "diagnose",
    "fit",
    "fit_by_gradient",
    "fit_differentiable",
    "fit_stream",
    "flags",
    "keep_programs",
    "log_prob",
    "order_components",
    "outlier_p_values",
    "predict",
    "responsibilities",
    "sample",
    "start_stream",
    "sweep",
    "update",
]

# No module has the name of something it contains: importing the module would replace that.
_NAMES_OF = {
    "ascent": ("GradientFit", "fit_by_gradient"),
    "density": ("log_prob", "outlier_p_values", "predict", "responsibilities"),
    "diagnosis": ("Diagnosis", "diagnose"),
    "differentiation": ("DifferentiableFit", "fit_differentiable"),
    "engine.programs": ("keep_programs",),
    "fit_result": ("FitResult",),
    "fitting": ("fit",),
    "doubts": ("FLAGS",),
    "flagging": ("flags",),
    "mixture": ("Mixture",),
    "ordering": ("align_components", "order_components"),
    "resampling": ("Bootstrap", "bootstrap"),
    "sampling": ("sample",),
    "sharded": ("PeerLostError",),
    "streams.passing": ("fit_stream",),
    "streams.state": ("Stream",),
    "streams.updating": ("start_stream", "update"),
    "status": ("Status",),
    "selection.sweep_result": ("Sweep",),
    "selection.sweeping": ("sweep",),
}
_MODULE_OF = {name: module for module, names in _NAMES_OF.items() for name in names}
# Public modules, some of which need the packages of an extra, and the module to import for each: `em` is a folder, and
# importing a module that uses it imports all of it.
_MODULES = {
    "distributed": "distributed",
    "em": "driver.chunk",
    "frames": "frames",
    "plot": "plot",
    "report": "report",
    "sklearn": "sklearn",
    "storage": "storage",
}


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        value = getattr(importlib.import_module(f"jaxgmm.{_MODULE_OF[name]}"), name)
        forking.withdraw_jax()
        # From now on the name is found without this function, unless another thread has set it meanwhile.
        return globals().setdefault(name, value)
    if name in _MODULES:
        try:
            importlib.import_module(f"jaxgmm.{_MODULES[name]}")
            return importlib.import_module(f"jaxgmm.{name}")
        except ImportError as missing:
            # `hasattr` expects this error; `import` and `from jaxgmm import` raise the ImportError itself.
            raise AttributeError(str(missing)) from missing
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
