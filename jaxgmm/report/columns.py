"""The columns of the table: one number for each group."""

import numpy as np
import pyarrow as pa

import jaxgmm
from jaxgmm.doubts import largest_overlap
from jaxgmm.report.content import Content
from jaxgmm.report.flags import flagged
from jaxgmm.report.models import Models
from jaxgmm.tables.groups import decoded, key_codes

_UINT16 = np.iinfo(np.uint16).max


def keys(table: pa.Table) -> tuple[list[list[str | None]], dict[str, np.ndarray]]:
    """Of each key column its distinct values as texts, in order, and for each group the number of its value.

    Args:
        table: one row for each of B groups.

    Returns:
        a list for each column, None for null; and arrays `(B,)` called `key0`, `key1`, and so on.
    """
    texts, numbers = [], {}
    for column, name in enumerate(table.column_names):
        _, first, number = np.unique(key_codes(table, [name]), return_index=True, return_inverse=True)
        values = decoded(table[name]).take(first).to_pylist()
        texts.append([None if value is None else str(value) for value in values])
        numbers[f"key{column}"] = number.astype(np.uint32)
    return texts, numbers


def columns(content: Content, checks: "jaxgmm.Diagnosis", models: Models | None) -> dict[str, np.ndarray]:
    """The columns beside the keys.

    Args:
        content: the fits of B groups.
        checks: their diagnosis.
        models: the models that were tried, or None.

    Returns:
        arrays `(B,)`: `n` (rows), `total` (the sum of the weights, if there are weights), `k` (0 without an answer),
        `status`, `p` (the smallest p-value of the residuals, adjusted), `overlap` (the largest of two components),
        `spurious` and `ridge` (numbers of such components), `flags` (a bit for each of `FLAGS`); and with models
        `family`, `value` (the criterion) and `lead`.
    """
    result, has_answer = content.result, content.has_answer
    p_value = np.where(has_answer, adjusted(checks.p_values), np.nan)
    overlap = largest_overlap(result.mixture)
    flags = flagged(result, models, checks, content.flags, overlap).values()
    found = {
        "n": content.n_samples.astype(np.uint32),
        "k": np.where(has_answer, np.sum(result.mixture.weights > 0, axis=1), 0).astype(np.uint16),
        "status": result.status.astype(np.uint8),
        "p": p_value.astype(np.float32),
        "overlap": np.where(has_answer, overlap, np.nan).astype(np.float32),
        "spurious": np.clip(result.spurious, 0, _UINT16).astype(np.uint16),
        "ridge": np.clip(result.ridge_dominated, 0, _UINT16).astype(np.uint16),
        "flags": np.sum([flag.astype(np.uint16) << bit for bit, flag in enumerate(flags)], axis=0, dtype=np.uint16),
    }
    if content.sample_weight is not None:
        found["total"] = np.add.reduceat(content.sample_weight, content.offsets[:-1])
    if models is not None:
        found["family"] = models.of_chosen(models.family, 0).astype(np.uint8)
        found["value"], found["lead"] = models.of_chosen(models.value, np.nan), models.lead.astype(np.float32)
    return found


def adjusted(p_values: np.ndarray) -> np.ndarray:
    """The smallest of each group's p-values `(B, 2 D + 1)`, adjusted for their number as by Šidák, `(B,)`.

    Two of them are the same: those of the first feature, which no other precedes. So there are 2 D tests, and
    1 - (1 - p)^(2 D) bounds the probability that one of them is as small as p by chance.
    """
    n_tests = p_values.shape[1] - 1
    # Just below 1, of which there is no logarithm.
    smallest = np.minimum(np.min(p_values, axis=1), 1 - 1e-16)
    return -np.expm1(n_tests * np.log1p(-smallest))
