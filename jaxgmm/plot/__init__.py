"""Pictures of fits, with matplotlib. Every function draws into `ax`, or else a new figure, and returns the axes.

Components differ in colour (the palette of Okabe and Ito, designed for all kinds of colour vision) and in marker or
line style, so that prints in grey are readable. Components of weight 0, and mixtures of NaN, are not drawn.
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
