"""The plan of a job, kept in a file: a job that is continued does not count again, and has the same parts."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from jaxgmm.tables import atomic
from jaxgmm.tables.parts import Cut, Plan
from jaxgmm.tables.ranges import Ranges

_METADATA = b"jaxgmm"


def keep(plan: Plan, path: Path) -> None:
    """Writes a plan to an Arrow stream, with a row for each part.

    Raises:
        OSError: the disk refuses.
    """
    cut, keys = plan.cut, plan.cut.first_keys
    rest = {
        "by": keys.column_names,
        "is_in_order": cut.is_in_order,
        "bounds": cut.ranges.bounds.tolist(),
        "before": cut.ranges.before.tolist(),
        "sizes": plan.sizes.tolist(),
    }
    table = pa.table({"rows": np.diff(cut.ends), "groups": plan.n_groups})
    for i, column in enumerate(keys.columns):
        table = table.append_column(f"key {i}", column)
    table = table.replace_schema_metadata({_METADATA: json.dumps(rest).encode()})
    with atomic.written(path) as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def kept(path: Path) -> Plan | None:
    """A plan that was kept, or None if there is none.

    Raises:
        OSError: it is damaged.
    """
    if not path.exists():
        return None
    try:
        table = pa.ipc.open_stream(path.read_bytes()).read_all()
        rest = json.loads(table.schema.metadata[_METADATA])
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        raise OSError(f"{path} is damaged; remove {path.parent} to begin anew.") from error
    first_keys = table.select(range(2, table.num_columns)).rename_columns(rest["by"]).replace_schema_metadata(None)
    ends = np.concatenate([[0], np.cumsum(table["rows"].to_numpy())])
    found = Ranges(np.array(rest["bounds"]), np.array(rest["before"]))
    cut = Cut(first_keys, ends, found, rest["is_in_order"])
    return Plan(cut, table["groups"].to_numpy(), np.array(rest["sizes"]))
