"""How weights are split into files."""

from __future__ import annotations

from collections.abc import Mapping


def split_into_shards(sizes: Mapping[str, int], max_bytes: int) -> list[list[str]]:
    """Names in order, as many into a shard as fit; what fits nowhere has a shard of its own.

    Args:
        sizes: bytes of what goes into one shard as a whole, by name; not empty.
        max_bytes: of a shard.
    """
    found: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if found[-1] and filled + size > max_bytes:
            found.append([])
            filled = 0
        found[-1].append(name)
        filled += size
    return found
