"""What obligations kept out, from a node's own store, where alone it is listed.

    python -m demo_main.withheld STORE

It runs as the store's owner: nobody else reads it.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from comity.protocol.encoding import decode_value

WITHHELD_BYTES_MAX: Final = 1_048_576
"""What a node keeps of the values of one obligation."""


def withheld(store: Path) -> list[dict[str, Any]]:
    """The rows about what was withheld."""
    with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)) as connection:
        rows = connection.execute(
            'SELECT asset, obligation, "column", "rows", "values" FROM withheld'
        ).fetchall()
    return [
        {
            "asset": asset,
            "obligation": obligation,
            "column": column,
            "rows": count,
            "values": decode_value(values, WITHHELD_BYTES_MAX),
        }
        for asset, obligation, column, count, values in rows
    ]


if __name__ == "__main__":
    print(json.dumps(withheld(Path(sys.argv[1]))))
