"""A browser without a window, driven through the pipe of Chromium's DevTools protocol."""

import json
import os
import select
import shutil
import subprocess
import sys
import time

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = [
    "--headless=new",
    "--no-sandbox",  # which root can't have; the pages are our own
    "--disable-gpu",
    "--in-process-gpu",
    "--disable-accelerated-2d-canvas",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-features=ProactivelySwapBrowsingInstance,BackForwardCache",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
]
CONNECT = """
import os, sys
read, write, *command = sys.argv[1:]
for end, number in ((os.dup(int(read)), 3), (os.dup(int(write)), 4)):
    os.dup2(end, number)
    os.set_inheritable(number, True)
os.execv(command[0], command)
"""
"""Starts the browser with the two ends of its pipe where it looks for them."""
PATIENCE = 300
"""Seconds for an answer, on a busy machine."""
KEY_CODES = {"ArrowLeft": 37, "ArrowRight": 39, "ArrowUp": 38, "ArrowDown": 40, "End": 35, "Home": 36, "Tab": 9}


class Browser:
    """One browser with one page; what goes wrong there is among its `complaints`."""

    def __init__(self, folder):
        self.number, self.unread, self.events = 0, b"", []
        (read, self.write), (self.read, write) = os.pipe(), os.pipe()
        command = [CHROMIUM, *OPTIONS, f"--user-data-dir={folder}", "about:blank"]
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", CONNECT, str(read), str(write), *command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(read, write),
        )
        os.close(read)
        os.close(write)
        self.session = None
        [page] = [one for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """Call a method of the protocol; return its result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def receive(self):
        """Take the next message."""
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self.unread:
            ready, _, _ = select.select([self.read], [], [], max(0, deadline - time.monotonic()))
            chunk = os.read(self.read, 1 << 20) if ready else b""
            if not chunk:
                raise TimeoutError("the browser doesn't answer")
            self.unread += chunk
        message, _, self.unread = self.unread.partition(b"\0")
        return json.loads(message)

    def wait_for(self, method):
        """Wait until something has happened."""
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self.receive())

    def open(self, path, width=800, height=900, **media):
        """Load a page in a window of some size."""
        self.resize(width, height)
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        self.wait_for("Page.loadEventFired")

    def resize(self, width, height=900):
        """Change the size of the window."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def run(self, expression):
        """Evaluate JavaScript; return its value."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"]["exception"].get("description", "an exception"))
        return result["result"].get("value")

    def press(self, *keys):
        """Press keys, as a hand does."""
        for key in keys:
            code = KEY_CODES.get(key) or ord(key.upper())
            text = {"text": key} if len(key) == 1 else {}
            for kind in ("keyDown", "keyUp"):
                self.call(
                    "Input.dispatchKeyEvent",
                    type=kind,
                    key=key,
                    code=key,
                    windowsVirtualKeyCode=code,
                    **(text if kind == "keyDown" else {}),
                )

    @property
    def complaints(self):
        """Errors and warnings since the page was opened, and whatever it asked the network for."""
        found = []
        for event in self.events:
            given = event.get("params", {})
            match event.get("method"):
                case "Runtime.exceptionThrown":
                    details = given["exceptionDetails"]
                    found.append(details.get("exception", details).get("description", details["text"]))
                case "Runtime.consoleAPICalled":
                    found.append(" ".join(str(one.get("value")) for one in given["args"]))
                case "Log.entryAdded":
                    found.append(given["entry"]["text"])
                case "Network.requestWillBeSent" if not given["request"]["url"].startswith(("file:", "data:")):
                    found.append(f"asks for {given['request']['url']}")
        return found

    def close(self):
        """End the browser."""
        self.process.terminate()
        self.process.wait(PATIENCE)
        os.close(self.read)
        os.close(self.write)
