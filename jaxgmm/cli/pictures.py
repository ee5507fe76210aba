"""`jaxgmm plot`."""


def plot_file() -> None:
    """Draw."""
