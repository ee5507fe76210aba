"""fit_groups(): a mixture for every group of a data frame, and its way back to the rows.

pandas, Polars and PyArrow tables are read through Narwhals, and the results are tables of the same kind.
"""

try:
    from jaxgmm.frames.group_fit import GroupFit
    from jaxgmm.frames.group_fits import GroupFits
    from jaxgmm.frames.grouping import fit_groups
except ImportError as missing:
    raise ImportError(f"jaxgmm.frames needs more packages ({missing}): pip install 'jaxgmm[frames]'.") from None

__all__ = ["GroupFit", "GroupFits", "fit_groups"]
