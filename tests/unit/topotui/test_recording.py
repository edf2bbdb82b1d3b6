"""A recording survives whatever ends its writer, and a damaged one is told in a line with its number."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from topod.errors import ConflictError, DataError, NotFoundError, StoreError, TopodError
from topotui.picture import Picture
from topotui.player import Player
from topotui.recording import AnyPicture, Recorder, load, take_in

STORY = Path(__file__).parent / "story.jsonl"
WRITES = """
import sys
from pathlib import Path
from topotui.picture import Picture
from topotui.recording import Recorder, load, take_in
picture, recorder = Picture(), Recorder(Path(sys.argv[2]))
for changes in load(Path(sys.argv[1])).changes:
    take_in(picture, changes)
    recorder.take(changes, picture)
    print(flush=True)
sys.stdin.read()
"""


def recorded(path: Path, count: int = 17) -> Picture:
    picture, recorder = Picture(), Recorder(path)
    for changes in load(STORY).changes[:count]:
        take_in(picture, changes)
        recorder.take(changes, picture)
    recorder.close()
    return picture


def shown(picture: AnyPicture) -> object:
    assert isinstance(picture, Picture)
    jobs = [*picture.jobs.values(), *picture.ended.values()]
    return jobs, picture.gpus, [event.seq for event in picture.events], len(picture.timeline.all)


def test_what_was_recorded_is_what_was_seen(tmp_path: Path) -> None:
    seen = recorded(tmp_path / "a")
    recording = load(tmp_path / "a")
    player = Player(recording)
    player.go(player.count)
    assert shown(player.picture) == shown(seen)
    assert (recording.head.host, recording.cut) == ("dgx1", False)


def test_who_is_killed_while_it_writes_leaves_all_that_it_wrote(tmp_path: Path) -> None:
    path = tmp_path / "a"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", WRITES, STORY, path], stdout=pipe, stdin=pipe) as writer:
        assert writer.stdout is not None
        for _ in range(9):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
    assert len(load(path).changes) >= 9


def test_a_line_that_was_cut_short_is_left_out_and_gone_on_behind(tmp_path: Path) -> None:
    path = tmp_path / "a"
    recorded(path, 6)
    whole = path.read_bytes()
    os.truncate(path, len(whole) - 20)
    assert (load(path).cut, len(load(path).changes)) == (True, 5)
    seen = recorded(path)
    again = load(path)
    assert not again.cut
    assert again.parts == {0, 5}
    player = Player(again)
    player.go(player.count)
    assert shown(player.picture) == shown(seen)


def test_only_one_records_to_a_file(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "a")
    with pytest.raises(ConflictError, match="somebody records to"):
        Recorder(tmp_path / "a")
    recorder.close()
    Recorder(tmp_path / "a").close()


def test_what_is_no_recording_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("dear diary")
    with pytest.raises(DataError, match="is no recording"):
        Recorder(path)
    assert path.read_text() == "dear diary"
    with pytest.raises(StoreError, match="Is a directory"):
        Recorder(tmp_path)


HEAD = '{"format":"topod-recording","version":1}\n'
BARE = '{"kind":"changes","life":"a","number":1,"now":1.0}\n'
DEEP = BARE.replace(
    "}\n", ',"events":[{"seq":1,"at":1,"name":"","job":1,"text":"","data":{"a":' + "[" * 10**5
)
BAD_PLAN = {"victims": ["x"]}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "bad:1: nothing is recorded in it"),
        ("dear diary", "bad:1: no recording of topoctl top"),
        ("[1]\n", "bad:1: no recording of topoctl top"),
        (HEAD, "bad:1: nothing is recorded in it"),
        (HEAD.replace("1}", "2}"), "bad:1: a recording of version 2, and this reads 1"),
        (f"{HEAD}{BARE}", "bad:2: a change, and nothing before it that it changes"),
        (f"{HEAD}{{}}\n", "bad:2: Object missing required field `life`"),
        (f"{HEAD}{DEEP}\n", "bad:2: maximum recursion depth exceeded"),
        (f"{HEAD}\xff\n", "bad:2: "),
    ],
)
def test_a_damaged_file_is_told_in_a_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "bad"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(TopodError) as refused:
        load(path)
    assert told in refused.value.message
    assert "\n" not in refused.value.message


def test_an_answer_that_makes_no_sense_is_told_with_its_line(tmp_path: Path) -> None:
    whole = msgspec.json.decode(STORY.read_bytes().splitlines()[1])
    event = {"seq": 10**6, "at": 1.0, "name": "job.placed", "job": 1, "text": "", "data": {"plan": BAD_PLAN}}
    lines = [
        HEAD.encode(),
        msgspec.json.encode(whole),
        b"\n",
        msgspec.json.encode({**whole, "events": [event]}),
        b"\n",
    ]
    (tmp_path / "bad").write_bytes(b"".join(lines))
    with pytest.raises(DataError, match="bad:3: invalid literal"):
        load(tmp_path / "bad")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no file"):
        load(tmp_path / "none")


def test_quiet_times_are_short_and_speed_is_as_chosen() -> None:
    player = Player(load(STORY))
    assert not player.pass_time(0.01)
    for _ in range(3):
        player.change_speed(1)
    assert player.speed == 8.0
    while not player.ended:
        before = player.at
        assert player.pass_time(5.0 / 8)
        assert player.at > before
    assert not player.playing
    assert not player.pass_time(100.0)


def preemptions(player: Player) -> list[int]:
    assert isinstance(player.picture, Picture)
    return [one.job for one in player.picture.timeline.all]


def test_one_goes_from_preemption_to_preemption_and_back() -> None:
    player = Player(load(STORY))
    seen = []
    while player.go_to_preemption(forward=True):
        seen.append((player.at, preemptions(player)[-1]))
    assert [job for _, job in seen] == [5, 8]
    assert player.go_to_preemption(forward=False)
    assert (player.at, preemptions(player)) == (seen[0][0], [5])
