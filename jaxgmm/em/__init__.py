"""The mathematics of one run: pure JAX functions that know neither batches nor devices; see `run.run`."""

from jaxgmm.em import run

__all__ = ["run"]
