"""A change log tells each reader what is new for it, and who has been away for too long to be told."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from topod.shell import changelog
from topod.shell.changelog import ChangeLog


def test_a_reader_is_told_what_is_new_changed_or_gone_since() -> None:
    log = ChangeLog[int, str]()
    log.look({1: "a", 2: "b", 3: "c"}, 1)
    assert log.since(0) == [1, 2, 3]
    log.look({1: "a", 2: "B", 4: "d"}, 2)
    assert (log.since(1), log.gone(1)) == ([2, 4], [3])
    assert (log.since(2), log.gone(2)) == ([], [])
    log.touch([1], 3)
    assert log.since(2) == [1]


def test_what_went_away_and_came_back_is_there() -> None:
    log = ChangeLog[int, str]()
    for number, now in enumerate(({1: "a"}, {}, {1: "b"}), 1):
        log.look(now, number)
    assert (log.since(1), log.gone(1)) == ([1], [])


def test_a_reader_who_missed_more_than_is_remembered_is_known() -> None:
    log = ChangeLog[int, str]()
    log.look(dict.fromkeys(range(changelog.GONE_MAX), "a"), 1)
    log.look({}, 2)
    assert log.remembers(1)
    log.look({-1: "b"}, 3)
    log.look({}, 4)
    assert not log.remembers(1)
    assert log.remembers(2)


states = st.lists(st.dictionaries(st.integers(0, 5), st.integers(1000, 9999)), min_size=1, max_size=12)


@given(states, st.data())
def test_what_a_reader_knew_and_what_it_is_told_make_what_is_there(
    history: list[dict[int, int]], data: st.DataObject
) -> None:
    log = ChangeLog[int, object]()
    # By identity: equal numbers of different states are different values, as two versions of a job are.
    told: list[Mapping[int, object]] = [{}]
    for number, state in enumerate(history, 1):
        kept = told[-1]
        now = {key: kept[key] if data.draw(st.booleans()) and key in kept else object() for key in state}
        log.look(now, number)
        told.append(now)
    known_at = data.draw(st.integers(0, len(history)))
    known = dict(told[known_at])
    for key in log.gone(known_at):
        known.pop(key, None)
    known.update({key: told[-1][key] for key in log.since(known_at)})
    assert known == told[-1]
