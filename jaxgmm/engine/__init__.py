"""Many runs on a machine: batches, slots and devices. Knows no statistics."""
