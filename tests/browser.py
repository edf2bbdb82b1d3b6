"""A real Chromium without a window, driven by its DevTools protocol over a pipe; gone afterwards."""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from tests.engine import skip_or_fail

SECONDS = 90.0
START = """
import os, sys
commands, answers = map(int, sys.argv[1:3])
os.dup2(answers, 100)
os.dup2(commands, 3)
os.dup2(100, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Chromium reads its commands from descriptor 3 and answers on 4."""
TERMINAL = """
Object.defineProperty(Object.prototype, "_core", {
  configurable: true,
  set(value) {
    Object.defineProperty(this, "_core", {value, writable: true, configurable: true});
    if (value && value.coreService) window.terminalCore = value;
  },
});
window.terminalText = () => {
  const lines = window.terminalCore ? window.terminalCore.buffer.lines : null;
  if (!lines) return "";
  return Array.from({length: lines.length}, (_, row) => lines.get(row).translateToString(true)).join("\\n");
};
"""
"""Runs before the page's scripts: the page keeps its terminal to itself, and draws it as pixels."""


def chromium() -> str:
    """Return the browser's program; without one the test is skipped."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        skip_or_fail("no Chromium is installed (package chromium)")
    return str(found)


class Browser:
    """One page. What it says in its console, and what it asks of the network, is kept."""

    def __init__(self, folder: Path, size: tuple[int, int] = (1280, 800)) -> None:
        self._folder = folder
        self._size = size
        self._number = 0
        self._session = ""
        self._rest = b""
        self.complaints: list[str] = []
        """Errors and warnings of the console, exceptions, and what could not be loaded."""
        self.asked: list[str] = []
        """The addresses that the page asked for."""

    def __enter__(self) -> Self:
        program = chromium()
        read_commands, self._commands = os.pipe()
        self._answers, write_answers = os.pipe()
        options = [
            *("--headless=new", "--no-sandbox", "--remote-debugging-pipe", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--disable-dev-shm-usage", "--use-gl=angle", "--use-angle=swiftshader"),
            *("--enable-unsafe-swiftshader", "--hide-scrollbars"),
            *(f"--user-data-dir={self._folder}", "--window-size={},{}".format(*self._size), "about:blank"),
        ]
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, str(read_commands), str(write_answers), program, *options],
            pass_fds=(read_commands, write_answers),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(read_commands)
        os.close(write_answers)
        pages = [one for one in self.ask("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        attached = self.ask("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        width, height = self._size
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.ask("Page.addScriptToEvaluateOnNewDocument", source=TERMINAL)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._commands)  # Chromium ends with the pipe
        os.close(self._answers)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def ask(self, method: str, **parameters: object) -> dict[str, Any]:
        """Return what the browser answers to one command."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while True:
            message = self._next(SECONDS)
            if message.get("id") == self._number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result

    def _next(self, seconds: float) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, end - time.monotonic()))
            data = os.read(self._answers, 1 << 20) if ready else b""
            assert data, "the browser says nothing"
            self._rest += data
        text, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, told: dict[str, Any]) -> None:
        match method:
            case "Runtime.consoleAPICalled" if told["type"] in ("error", "warning", "assert"):
                said = str([one.get("value") for one in told["args"]])
                # The terminal in the page (xterm.js) warns where a busy machine gave it little time.
                if "exceeded allotted deadline" not in said:
                    self.complaints.append(said)
            case "Runtime.exceptionThrown":
                self.complaints.append(str(told["exceptionDetails"]))
            case "Log.entryAdded" if told["entry"]["level"] in ("error", "warning"):
                self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
            case "Network.requestWillBeSent":
                self.asked.append(told["request"]["url"])
            case "Network.webSocketCreated":
                self.asked.append(told["url"])
            case _:
                pass

    def open(self, address: str) -> None:
        """Go to an address and wait until the page is there whole."""
        self.ask("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def value(self, script: str) -> Any:
        """Return what an expression is in the page."""
        found = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, script: str) -> None:
        """Return once an expression is true in the page."""
        end = time.monotonic() + SECONDS
        while not self.value(script):
            assert time.monotonic() < end, f"never true: {script}\n{self.terminal()}\n{self.complaints}"
            time.sleep(0.05)

    def terminal(self) -> str:
        """Return the text of the page's terminal."""
        return str(self.value("window.terminalText ? window.terminalText() : document.body.innerText"))

    def until_shown(self, text: str) -> None:
        """Return once the terminal shows a text."""
        self.until(f"window.terminalText().includes({json.dumps(text)})")

    def press(self, text: str) -> None:
        """Type characters, one after the other."""
        for key in text:
            self.ask("Input.dispatchKeyEvent", type="keyDown", text=key, key=key)
            self.ask("Input.dispatchKeyEvent", type="keyUp", key=key)

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """Write what the page looks like as PNG; `whole`: also what lies below."""
        found = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))
