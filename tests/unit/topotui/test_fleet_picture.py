"""What is known of a fleet that is followed."""

from topod.protocol.replies import FleetChanges
from topod.protocol.views import EventView, FleetRow, JobLine
from topotui.fleet_picture import FleetPicture


def changes(number: int, *, life: str = "x", **more: object) -> FleetChanges:
    return FleetChanges(**{"life": life, "number": number, "now": float(number), **more})  # type: ignore[arg-type]


def job(number: int, state: str, **more: object) -> JobLine:
    rest = {"affinity": "any", "policy": "guaranteed", "cpus": 0, "cpu_affinity": "none", "submitted_at": 0.0}
    given = {"id": number, "name": "t", "user": "u", "state": state, "priority": 500, "gpus": 1}
    return JobLine(**given, **rest, **more)  # type: ignore[arg-type]


def event(seq: int, name: str, number: int, **data: object) -> EventView:
    return EventView(seq=seq, at=float(seq), name=name, job=number, text=f"job {number} {name}", data=data)


def host(name: str) -> FleetRow:
    return FleetRow(name=name, state="ready", gpus=8)


def test_each_answer_changes_what_it_names_and_a_new_life_begins_anew() -> None:
    picture = FleetPicture()
    first = changes(2, whole=True, hosts=[host("a"), host("b")], jobs=[job(1, "running"), job(2, "pending")])
    assert picture.take(first).whole
    news = picture.take(changes(3, hosts=[host("c")], gone=["a"], jobs=[job(1, "succeeded")]))
    assert (set(picture.rows), set(picture.jobs), set(picture.ended)) == ({"b", "c"}, {2}, {1})
    assert (sorted(news.hosts), news.gone, sorted(news.jobs)) == (["c"], True, [1])
    assert not picture.take(changes(3))
    assert picture.cursor == ("x", 3, 0)
    picture.take(changes(2, life="y", whole=True, hosts=[host("b")]))
    assert (set(picture.rows), set(picture.jobs), set(picture.ended)) == ({"b"}, set(), {1})


def test_a_preemption_is_told_from_the_plan_until_the_job_runs() -> None:
    picture = FleetPicture()
    array = job(7, "pending", array_id=5, array_index=2)
    begins = [
        event(1, "job.assigned", 9, victims=["5[2]", "4 of a"]),
        event(2, "job.assigned", 10, victims=[]),
    ]
    picture.take(changes(2, whole=True, jobs=[array], events=begins))
    (found,) = picture.preemptions.all
    assert (found.victims, found.freed_at) == ({"5[2]": None, "4 of a": None}, None)
    picture.take(changes(3, events=[event(3, "job.requeued", 7), event(4, "job.started", 9)]))
    assert found.victims["5[2]"] == 3.0
    assert found.started_at == 4.0
    again = event(4, "job.started", 9)
    assert not picture.take(changes(4, events=[again]))
