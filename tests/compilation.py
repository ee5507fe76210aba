"""How tests compile the functions that they call directly."""

import functools

import jax

from jaxgmm.numerics.kernels import compiler_options

# Called as they are, functions would compile each of their operations, and some of them again each time. What is
# compiled at once cannot be part of another program.
at_once = functools.partial(jax.jit, compiler_options=compiler_options("at once"))
