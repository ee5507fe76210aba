"""Exponential, logarithm and root, for the arguments that occur in an E-step.

In float32 XLA's functions take up to twice as long, because they serve all arguments. Exponential and logarithm here
combine a polynomial near 0, or near 1, with an exponent that is written, or read, as bits (Muller 2016, "Elementary
Functions", chapter 11). The coefficients are least squares fits, reweighted until the largest relative error was
smallest.

GPU kernels lack these functions in float64. There, logarithm and roots are those of float32, corrected to full
precision.
"""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

# 2^r for |r| ≤ ½, to 2e-9; 1 at 0.
_EXP2 = (1.0, 0.69314718, 0.24022646, 0.055503286, 0.0096184891, 0.0013399932, 0.00015345808)

# (log(1 + f) - f + ½ f²) / f³ for √½ ≤ 1 + f ≤ √2, to 6e-9 of the logarithm.
_LOG1P = (0.33333316, -0.25000811, 0.20002286, -0.16624552, 0.14181195, -0.13128771, 0.12881635, -0.078595541)

# Below this, the exponential would be subnormal.
_LEAST = np.float32(-87)

_FRACTION_BITS = 23
_LOG2_E = np.float32(np.log2(np.e))
_LOG_2 = np.float32(np.log(2))

# A float32 of this size has its unit in the last bit of the fraction.
_UNIT_IN_LAST_BIT = np.float32(1.5 * 2**_FRACTION_BITS)

# 2^r for |r| ≤ ½ in float64, by Taylor series; the constants above in float64; and an argument below which 2^x is 0.
_EXP2_FLOAT64 = tuple(math.log(2) ** n / math.factorial(n) for n in range(13))
_FRACTION_BITS_FLOAT64 = 52
_UNIT_IN_LAST_BIT_FLOAT64 = 1.5 * 2.0**_FRACTION_BITS_FLOAT64
_BITS_OF_UNIT_FLOAT64 = int(np.float64(_UNIT_IN_LAST_BIT_FLOAT64).view(np.int64))
_BITS_OF_SQRT_HALF_FLOAT64 = int(np.float64(np.sqrt(0.5)).view(np.int64))
_LEAST_FLOAT64 = -1000.0

_BITS_OF_SQRT_HALF = int(np.float32(np.sqrt(0.5)).view(np.int32))


def exp_nonpositive(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """exp(x) for x ≤ 0, to 1e-7; exactly 1 at 0 and exactly 0 below -87. NaN stays NaN."""
    binary = x * _LOG2_E
    whole = lax.round(binary, lax.RoundingMethod.TO_NEAREST_EVEN)
    exponent = _bits(whole + _UNIT_IN_LAST_BIT) << _FRACTION_BITS
    return jnp.where(x < _LEAST, np.float32(0), _from_bits(_bits(_polynomial(_EXP2, binary - whole)) + exponent))


def log_from_one(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """log(x) for finite x ≥ 1, to 1e-7 of it; exactly 0 at 1. NaN for x < 1 and for NaN."""
    exponent = (_bits(x) - _BITS_OF_SQRT_HALF) >> _FRACTION_BITS
    f = _from_bits(_bits(x) - (exponent << _FRACTION_BITS)) - 1
    of_fraction = f + (_polynomial(_LOG1P, f) * f - np.float32(0.5)) * (f * f)
    return jnp.where(x >= 1, exponent.astype(jnp.float32) * _LOG_2 + of_fraction, np.float32(np.nan))


def exp2_in_float64(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """2^x for x ≤ 1000, to 4e-16; exactly 0 below -1000. NaN stays NaN."""
    within = jnp.maximum(x, _LEAST_FLOAT64)
    whole = lax.round(within, lax.RoundingMethod.TO_NEAREST_EVEN)
    rest = within - whole
    *lower, highest = _EXP2_FLOAT64
    power = functools.reduce(lambda value, c: value * rest + c, reversed(lower), highest + 0 * rest)
    exponent = _bits64(whole + _UNIT_IN_LAST_BIT_FLOAT64) << _FRACTION_BITS_FLOAT64
    exact = _from_bits64(_bits64(power) + exponent)
    return jnp.where(x < _LEAST_FLOAT64, 0.0, jnp.where(jnp.isnan(x), x, exact))


def log2_in_float64(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """log2(x) for normal x, to 1e-15 of it or of 1; NaN unless x is positive."""
    exponent = (_bits64(x) - _BITS_OF_SQRT_HALF_FLOAT64) >> _FRACTION_BITS_FLOAT64
    fraction = _from_bits64(_bits64(x) - (exponent << _FRACTION_BITS_FLOAT64))
    near = jnp.log2(fraction.astype(jnp.float32)).astype(jnp.float64)
    f = fraction * exp2_in_float64(-near) - 1.0
    # Minus its unit, this number is the exponent.
    whole = _from_bits64(exponent + _BITS_OF_UNIT_FLOAT64) - _UNIT_IN_LAST_BIT_FLOAT64
    exact = whole + (near + f * (1.0 - f * (0.5 - f * (1 / 3 - f * 0.25))) * math.log2(math.e))
    return jnp.where(x > 0, exact, jnp.nan)


def rsqrt_in_float64(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """1 / √x for normal x, to 4e-16; NaN unless x is positive."""
    half = (_bits64(x) - _BITS_OF_SQRT_HALF_FLOAT64) >> (_FRACTION_BITS_FLOAT64 + 1)
    fraction = _from_bits64(_bits64(x) - (half << (_FRACTION_BITS_FLOAT64 + 1)))
    root = lax.rsqrt(fraction.astype(jnp.float32)).astype(jnp.float64)
    for _ in range(3):
        root = root * (1.5 - 0.5 * fraction * root * root)
    return jnp.where(x > 0, _from_bits64(_bits64(root) - (half << _FRACTION_BITS_FLOAT64)), jnp.nan)


def sqrt_in_float64(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """√x for normal x, to 4e-16, for 0 and for infinity; NaN for negative x."""
    return jnp.where(x == 0, 0.0, x * rsqrt_in_float64(x))


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    *lower, highest = (np.float32(c) for c in coefficients)
    return functools.reduce(lambda value, c: value * x + c, reversed(lower), highest + 0 * x)


def _bits(x: Array) -> Array:
    return lax.bitcast_convert_type(x, jnp.int32)


def _from_bits(bits: Array) -> Array:
    return lax.bitcast_convert_type(bits, jnp.float32)


def _bits64(x: Array) -> Array:
    return lax.bitcast_convert_type(x, jnp.int64)


def _from_bits64(bits: Array) -> Array:
    return lax.bitcast_convert_type(bits, jnp.float64)
