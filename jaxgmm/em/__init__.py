"""The mathematics of one run: pure JAX functions that know neither batches nor devices; `run.run` makes one."""

from jaxgmm.em import run

__all__ = ["run"]
