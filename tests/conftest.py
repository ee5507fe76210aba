"""Strictness for the whole suite: shapes are checked, and no rank or dtype is promoted silently."""

import jax
from jaxtyping import install_import_hook

# The faces check what users pass by themselves, and answer in words; everything under them is held to its annotations.
CHECKED = [f"jaxgmm.{room}" for room in ("cholesky", "mixture", "em", "engine", "search", "chunk", "frames", "storage")]
install_import_hook(CHECKED, "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
