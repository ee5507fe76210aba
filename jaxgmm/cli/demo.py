"""`jaxgmm demo`."""


def demo() -> None:
    """Show."""
