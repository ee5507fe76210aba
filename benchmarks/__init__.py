"""What jaxgmm is measured against, and how."""
