"""What is said where no coordinator does what it is asked."""

from topod.protocol.client import NOBODY_HINT, nobody_leads
from topod.protocol.replies import Failure


def failure(code: str, text: str) -> Failure:
    return Failure(code=code, text=text, hint=f"about {text}", exit_status=69)


FOLLOWS = failure("not-leader", "this coordinator stands by: tcp://a:1 leads the fleet just now")
AWAY = failure("memory-away", "no coordinator can lead the fleet: etcd does not answer, for 12 s now")


def test_the_cause_is_said_once_where_all_see_it() -> None:
    told = nobody_leads({"tcp://a:1": AWAY, "tcp://b:1": AWAY}, asked=2)
    assert (told.message, told.hint) == (AWAY.text, AWAY.hint)
    assert nobody_leads({"/run/c.sock": FOLLOWS}, asked=0).message == FOLLOWS.text


def test_who_named_all_coordinators_is_not_told_to_name_them() -> None:
    told = nobody_leads({"tcp://b:1": FOLLOWS}, asked=2)
    assert told.message.endswith(f"; tcp://b:1 says: {FOLLOWS.text}")
    assert told.hint == NOBODY_HINT
    assert nobody_leads({"tcp://b:1": FOLLOWS}, asked=1).hint == FOLLOWS.hint
    assert nobody_leads({"tcp://a:1": AWAY, "tcp://b:1": FOLLOWS}, asked=2).hint == AWAY.hint
