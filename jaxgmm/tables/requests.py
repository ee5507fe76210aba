"""Whether a job that was begun earlier is the one requested now, and what to say if it is not."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxgmm.tables.wording import quoted, shortened

# The name of the version in a request.
_VERSION = "jaxgmm"

# From a name, and the requests before and now, to what differs between these, in words that follow "was begun".
Differing = Callable[[str, Mapping[str, Any], Mapping[str, Any]], str]


def check_same(directory: Path, before: Mapping[str, Any], wanted: Mapping[str, Any], differing: Differing) -> None:
    """Checks that the request by which a directory was begun is the wanted one.

    Raises:
        ValueError: it is not; the first difference is named.
    """
    versions = [description.get(_VERSION) for description in (before, wanted)]
    if versions[0] != versions[1] and None not in versions:
        raise ValueError(
            f"{directory} was begun by jaxgmm {quoted(versions[0])}, and this is {quoted(versions[1])}; "
            "continue with the version that began it, or remove it to begin anew."
        )
    for name in {**before, **wanted}:
        if before.get(name) != wanted.get(name):
            raise ValueError(
                f"{directory} was begun {differing(name, before, wanted)}; "
                "ask for the same again, or remove it to begin anew."
            )


def differing(name: str, before: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """A difference between two requests, by its name in them."""
    return f"with {name} {_said(before, name)}, not {_said(wanted, name)}"


def _said(description: Mapping[str, Any], name: str) -> str:
    return shortened(json.dumps(description[name])) if name in description else "left out"
