"""Strictness for the whole suite: shapes are checked, and no rank or dtype is promoted silently."""

import jax
from jaxtyping import install_import_hook

install_import_hook("jaxgmm", "beartype.beartype")

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
