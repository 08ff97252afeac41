"""Iteration in a thread, so that items are made on another core than the one that uses them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")


def made_ahead(items: Iterable[_T], count: int = 1) -> Iterator[_T]:
    """Yields items; a thread makes the next `count` of them while the current one is used.

    An exception of `items` is raised in place of its item. After an early end the item in work is finished.

    Example:
        >>> list(made_ahead([1, 2, 3], count=2))
        [1, 2, 3]
    """
    iterator, end = iter(items), object()
    pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
    try:
        coming = deque(pool.submit(next, iterator, end) for _ in range(count))
        while (item := coming.popleft().result()) is not end:
            coming.append(pool.submit(next, iterator, end))
            yield item  # type: ignore[misc]
    finally:
        pool.shutdown(cancel_futures=True)
