"""Pictures of fits, with matplotlib. Every function draws into `ax`, or a new figure without it, and returns the axes.

Components are told apart by colour (the palette of Okabe and Ito, made for all kinds of colour vision) and by marker or
line style, so that prints in grey can be read. Components of weight 0, and mixtures of NaN, are not drawn.
"""

try:
    import matplotlib  # noqa: F401
except ImportError:
    raise ImportError("jaxgmm.plot needs matplotlib: pip install 'jaxgmm[plot]'.") from None

from jaxgmm.plot.criterion import criterion
from jaxgmm.plot.diagnosis import diagnosis
from jaxgmm.plot.mixtures import histogram, mixture
from jaxgmm.plot.overview import overview
from jaxgmm.plot.pairs import pairs
from jaxgmm.plot.stages import stages

__all__ = ["criterion", "diagnosis", "histogram", "mixture", "overview", "pairs", "stages"]
