"""`topoctl top` in a real terminal, with few colours, against a live topod that is killed."""

import sys
from pathlib import Path

from tests.integration.daemon_process import Topod
from tests.tmux import Tmux

TOP = (sys.executable, "-m", "topoctl", "top")


def test_a_preemption_a_cancel_and_a_killed_topod_are_seen(tmp_path: Path) -> None:
    with Topod(tmp_path / "d") as topod:
        topod.start()
        environment = {"TOPOD_SOCKET": str(topod.socket)}
        with Tmux(tmp_path, TOP, (80, 24), environment) as screen:
            screen.until(lambda text: "8 of 8 GPUs free" in text)
            low = topod.submit("sleep", "600", gpus=8, priority=100, name="batch")
            screen.press("2")
            screen.until(lambda text: "batch" in text and "running" in text)

            # A number that is typed at once is for what-if, and leads to no other tab.
            screen.press("w", "3")
            screen.until(lambda text: "◂3▸" in text and "What if" in text)
            screen.press("Escape")
            screen.until(lambda text: "batch" in text and "REASON" in text)

            serve = topod.submit("sleep", "600", gpus=4, priority=1000, name="serve")
            topod.wait(serve.id, "running")
            screen.press("4")
            shown = screen.until(lambda text: "start  " in text and "why these" in text)
            assert f"job {serve.id} (serve), runs after" in shown
            assert f"job {low.id} (batch)" in shown
            for phase in ("decide", "create", "stop", "free"):
                assert f"  {phase} " in shown

            screen.press("2")
            screen.until(lambda text: "REASON" in text)
            screen.press("/")
            screen.until(lambda text: "words that a job must have" in text)
            screen.press(*"serve", "Enter")
            screen.until(lambda text: "x8" not in text and "l Log" in text)
            screen.press("k")
            screen.until(lambda text: f"Cancel job {serve.id} (serve)?" in text and "Yes (y)" in text)
            screen.press("y")
            assert topod.wait(serve.id).state == "cancelled"
            screen.press("Escape")
            topod.wait(low.id, "running")
            screen.until(lambda text: "batch" in text and "running" in text)

            topod.kill()
            shown = screen.until(lambda text: "trying again" in text)
            assert "batch" in shown
            topod.start()
            screen.until(lambda text: "trying again" not in text and "batch" in text)
            more = topod.submit("sleep", "600", name="after")
            topod.wait(more.id, "running")
            screen.until(lambda text: "after" in text and "batch" in text)
            screen.press("4")
            screen.until(lambda text: f"job {serve.id} (serve), runs after" in text)
            screen.press("5")
            told = screen.until(lambda text: "after) runs" in text)
            assert f"job {serve.id} (serve) cancelled" in told
            screen.press("q")
            screen.until(lambda text: not text)
