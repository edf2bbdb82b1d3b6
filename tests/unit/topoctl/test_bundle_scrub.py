"""What may be secret is taken out of a bug report, and what helps stays."""

import json
from typing import Any

import pytest

from topoctl.bundle.scrub import Scrubber, event_without_private, private_words, without_private

KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
SECRETS = [
    ("password = hunter2-x", "hunter2-x"),
    ('"api_key": "hunter2-x", "b": 1', "hunter2-x"),
    ("DB_PASSWORD=hunter2-x next", "hunter2-x"),
    ("train --hf-token hunter2-x --lr 1", "hunter2-x"),
    ("Authorization: Bearer abcdefgh12345678", "abcdefgh12345678"),
    ("https://ann:hunter2-x@registry.example/v2", "hunter2-x"),
    (f"topod-secret:{KEY} host node-a", KEY),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----", "MIIE"),
    ("-----BEGIN PRIVATE KEY-----\nMIIE cut short", "MIIE"),
    ("AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"),
    ("hf_abcdefghijklmnopqrstuv", "hf_abcdefghijklmnopqrstuv"),
    ("eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl", "eyJzdWIiOiIx"),
]


@pytest.mark.parametrize(("text", "secret"), SECRETS)
def test_what_looks_like_a_secret_goes(text: str, secret: str) -> None:
    assert secret not in Scrubber().text(text)
    assert secret not in Scrubber().dumped({"detail": [text]})


def test_values_under_a_telling_key_go_and_json_stays_json() -> None:
    value = {"labels": {"db_password": "hunter2-x"}, "n": 123456, "t": 'a "password": "hunter2-x" b'}
    found = json.loads(Scrubber(["123456", "hunter2-x"]).dumped(value))
    assert found["labels"] == {"db_password": "<removed>"}
    assert found["n"] == 123456
    assert "hunter2" not in found["t"]


def test_what_helps_stays() -> None:
    lines = [
        '2026-02-03 INFO decision job=5 job_name=serve wanted="4 GPUs, nvlink" gpus=4-7 decide_ms=0.87',
        'coordinator_key = "topod-public:rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"',
        'authorized_keys = "/etc/topod/authorized_keys"',
        "tcp://head-1:7461,tcp://head-2:7461",
        "http://127.0.0.1:9464/metrics",
    ]
    assert [Scrubber().text(line) for line in lines] == lines


def test_a_job_keeps_the_names_of_its_variables_and_its_program() -> None:
    spec: dict[str, Any] = {
        "env": {"WANDB": "hunter2-x", "N": "1"},
        "command": ["python", "--lr", "a-long-argument", "/data/train.py"],
        "checkpoint": {"command": ["save", "a-long-password"], "timeout_seconds": 3},
    }
    job = {"id": 3, "name": "a", "spec": spec}
    assert without_private(job)["spec"] == {
        "env": {"WANDB": "<removed>", "N": "<removed>"},
        "command": ["python", "<3 removed>"],
        "checkpoint": {"command": ["save", "<1 removed>"], "timeout_seconds": 3},
    }
    words = private_words(job)
    assert {"hunter2-x", "a-long-argument", "a-long-password"} <= {*words}
    scrub = Scrubber(words)
    assert scrub.text("start failed: hunter2-x; 1 of a") == "start failed: <removed>; 1 of a"
    assert spec["env"]["WANDB"] == "hunter2-x"


def test_of_a_hook_only_that_it_failed_is_told() -> None:
    event = {
        "name": "hook.failed",
        "text": "the hook of job 3 failed: status 1: SECRET",
        "data": {"output": "S"},
    }
    assert event_without_private(event) == {
        "name": "hook.failed",
        "text": "the hook of job 3 failed",
        "data": {},
    }


def test_a_line_without_end_takes_no_time_without_end() -> None:
    # A moment; longer than a test may take, where the time grew with the square.
    line = "token" * 10_000 + "a" * 100_000 + "-" * 100_000
    assert Scrubber(["x" * 40]).text(line) == line
