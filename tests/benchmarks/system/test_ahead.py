"""Iteration in a thread."""

import threading
from collections.abc import Iterator

import pytest

from benchmarks.system.ahead import made_ahead


def test_items_are_the_same_and_made_in_another_thread() -> None:
    made: list[threading.Thread] = []

    def items() -> Iterator[int]:
        for number in range(20):
            made.append(threading.current_thread())
            yield number

    assert list(made_ahead(items(), count=4)) == list(range(20))
    assert threading.current_thread() not in made


def test_no_more_than_count_items_are_ahead() -> None:
    made = 0
    reached = threading.Event()

    def items() -> Iterator[int]:
        nonlocal made
        for number in range(100):
            made += 1
            if made == 4:
                reached.set()
            yield number

    numbers = made_ahead(items(), count=3)
    assert next(numbers) == 0
    assert reached.wait(10)  # 0 is used, 1 to 3 are ahead
    assert made == 4
    assert next(numbers) == 1


def test_an_error_comes_in_place_of_its_item() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise ValueError("broken")

    numbers, seen = made_ahead(items(), count=8), []
    with pytest.raises(ValueError, match="broken"):
        seen.extend(numbers)
    assert seen == [0, 1, 2]


def test_the_thread_ends_when_the_iteration_is_closed() -> None:
    before = threading.active_count()
    numbers = made_ahead(iter(range(1000)), count=2)
    assert next(numbers) == 0 and threading.active_count() == before + 1
    numbers.close()
    assert threading.active_count() == before
