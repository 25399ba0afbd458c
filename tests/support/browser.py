"""A browser that tests start themselves: Chromium without a window, spoken to over DevTools.

It is Debian's package `chromium`; nothing is downloaded. Where it is not installed the tests fail
and say so, unless somebody states with COMITY_NO_BROWSER=1 that they are to be left out.
"""

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Timer
from typing import Any, Final

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse

START_SECONDS_MAX: Final = 30
ANSWER_SECONDS_MAX: Final = 30

_FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-port=0",
)
_LISTENING: Final = re.compile(r"DevTools listening on (ws://127\.0\.0\.1:\d+/\S+)")

_SETTLED: Final = """
new Promise((resolve) => {
  const root = document.documentElement;
  const look = () => {
    const state = root.dataset.state;
    if (state !== "running") {
      resolve({
        state: state ?? "none",
        milliseconds: Number(root.dataset.milliseconds ?? -1),
        status: document.getElementById("status")?.textContent ?? "",
        bad: document.querySelector("#checks .bad")?.textContent ?? "",
        harmed: root.dataset.harmed ?? "",
      });
    }
  };
  new MutationObserver(look).observe(root, { attributes: true });
  look();
})
"""
"""Resolves when a loaded page has come to its word; its program may not have run at all."""


@dataclass(slots=True)
class Page:
    """A tab."""

    _socket: ClientWebSocketResponse
    _session: str = ""
    _number: int = 0
    _loads: int = 0
    requests: list[str] = field(default_factory=list)

    async def ask(self, method: str, **params: object) -> dict[str, Any]:
        """Give a DevTools command and wait for its answer."""
        self._number += 1
        message: dict[str, object] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        await self._socket.send_json(message)
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            while True:
                answer = await self._next()
                if answer.get("id") == self._number:
                    assert "error" not in answer, answer
                    result: dict[str, Any] = answer["result"]
                    return result

    async def evaluate(self, expression: str) -> object:
        """Run a program in the page and give what its promise gives."""
        answer = await self.ask(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        value: object = answer["result"].get("value")
        return value

    async def open(self, path: Path) -> dict[str, Any]:
        """Open a file from the disk and wait until it has come to its word."""
        self._loads = 0
        await self.ask("Page.navigate", url=path.as_uri())
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            while self._loads == 0:
                await self._next()
        settled = await self.evaluate(_SETTLED)
        assert isinstance(settled, dict), settled
        return settled

    async def _next(self) -> dict[str, Any]:
        message: dict[str, Any] = await self._socket.receive_json()
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        self._loads += message.get("method") == "Page.loadEventFired"
        return message


@contextmanager
def browser(folder: Path) -> Iterator[str]:
    """Run a browser; gives its DevTools address."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        if os.environ.get("COMITY_NO_BROWSER") == "1":
            pytest.skip("COMITY_NO_BROWSER=1: pages are not tested in a browser")
        pytest.fail(
            "Chromium is not installed, and pages of certificates are tested in it: install the"
            " package chromium, or set COMITY_NO_BROWSER=1 to leave these tests out"
        )
    with subprocess.Popen(
        [program, *_FLAGS, f"--user-data-dir={folder}"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        stop = Timer(START_SECONDS_MAX, process.kill)
        stop.start()
        try:
            assert process.stderr is not None
            found = next(filter(None, map(_LISTENING.search, process.stderr)), None)
            stop.cancel()
            assert found, "Chromium did not start"
            yield found[1]
        finally:
            stop.cancel()
            process.kill()


@asynccontextmanager
async def page(address: str) -> AsyncIterator[Page]:
    """Open a tab, and close it again."""
    async with ClientSession() as client, client.ws_connect(address, max_msg_size=0) as socket:
        opened = Page(socket)
        target = (await opened.ask("Target.createTarget", url="about:blank"))["targetId"]
        attached = await opened.ask("Target.attachToTarget", targetId=target, flatten=True)
        opened._session = attached["sessionId"]
        await opened.ask("Page.enable")
        await opened.ask("Network.enable")
        yield opened
        opened._session = ""
        await opened.ask("Target.closeTarget", targetId=target)
