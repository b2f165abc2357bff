"""Forms as values that JSON can hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import msgspec


def plain(value: object) -> Any:
    """Any form as values that JSON can hold: bytes as hex; absent fields, salts and lists of critical ones left out."""
    match value:
        case bytes():
            return value.hex()
        case msgspec.Struct():
            return {
                name: plain(getattr(value, name))
                for name in value.__struct_fields__
                if getattr(value, name) is not None and name not in ("salt", "critical")
            }
        case tuple() | list() | frozenset():
            return [plain(each) for each in cast("Iterable[object]", value)]
        case dict():
            return {str(key): plain(each) for key, each in cast("dict[object, object]", value).items()}
        case _:
            return value
