"""Who of the half-open connections goes when there are too many."""

import random

from topod.adapters.curve_waiting import Waiting


def test_a_machine_that_only_opens_connections_pushes_out_its_own() -> None:
    waiting = Waiting(10)
    waiting.add(1, "host", 0.0)
    for fd in range(100, 110):
        waiting.add(fd, "flood", 1.0)
    assert waiting.half_open == 11
    assert waiting.too_many() == 100
    waiting.remove(100)
    assert waiting.too_many() is None
    assert 1 in waiting


def test_one_address_has_a_bound_of_its_own() -> None:
    waiting = Waiting(10, of_address=3)
    waiting.add(1, "host", 0.0)
    for fd in range(100, 104):
        assert waiting.too_many() is None
        waiting.add(fd, "flood", 1.0)
    assert waiting.too_many() == 100


def test_who_was_let_in_takes_no_room() -> None:
    waiting = Waiting(2)
    for fd in range(5):
        waiting.add(fd, f"host{fd}", 0.0)
        waiting.let_in(f"host{fd}")
    assert (waiting.half_open, len(waiting), waiting.too_many()) == (0, 5, None)
    for fd in range(5):
        waiting.spoke(fd)
    # The room that one had is not another's.
    for fd in range(3):
        waiting.add(fd, "host0", 1.0)
    assert waiting.half_open == 3
    assert waiting.too_many() == 0


def test_no_address_has_more_let_in_than_it_has_connections() -> None:
    waiting = Waiting(1)
    waiting.let_in("a")
    waiting.add(1, "a", 0.0)
    waiting.let_in("a")
    waiting.let_in("a")
    waiting.remove(1)
    waiting.add(2, "a", 0.0)
    assert waiting.half_open == 1


def test_who_is_silent_for_long_is_named_oldest_first() -> None:
    waiting = Waiting(10)
    for fd, since in ((3, 1.0), (1, 2.0), (2, 3.0)):
        waiting.add(fd, "a", since)
    assert waiting.accepted_before(3.0) == [3, 1]


def test_it_counts_right_and_keeps_nothing_whatever_happens() -> None:
    rng = random.Random(7)
    waiting = Waiting(8)
    for step in range(5000):
        fd, address = rng.randrange(20), f"a{rng.randrange(4)}"
        rng.choice(
            (
                lambda fd=fd, address=address, step=step: waiting.add(fd, address, float(step)),
                lambda fd=fd: waiting.remove(fd),
                lambda fd=fd: waiting.spoke(fd),
                lambda address=address: waiting.let_in(address),
            )
        )()
        assert 0 <= waiting.half_open <= len(waiting)
        while (surplus := waiting.too_many()) is not None:
            waiting.remove(surplus)
        assert waiting.half_open <= 8
    for fd in range(20):
        waiting.remove(fd)
    assert (len(waiting), waiting._of, dict(waiting._let_in)) == (0, {}, {})
