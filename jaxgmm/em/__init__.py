"""The mathematics of one run: pure JAX functions that know neither batches nor devices."""
