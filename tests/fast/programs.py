"""Programs of their own that tests run, and what those have in common that fork."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

PATIENCE = 300
"""Seconds for what takes a moment where the machine does nothing else."""


def run(program, *arguments, **environment):
    """Run a program of its own, which is over long before, and return the words that it prints."""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *map(str, arguments)],
        check=False,
        capture_output=True,
        timeout=PATIENCE,
        text=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | environment,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split()


def fork_beside(compute, is_right, *, seconds, num_threads=2, at_once=2, pause=0):
    """Fork while threads compute, again and again, and count the children, in each of which all must be right."""

    def go_on():
        while True:
            compute()

    for _ in range(num_threads):
        threading.Thread(target=go_on, daemon=True).start()
    forked, until = 0, time.monotonic() + seconds
    while time.monotonic() < until or forked < 4:
        time.sleep(pause)
        children = [fork(is_right) for _ in range(at_once)]
        for child in children:
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if code:
                sys.exit(f"child {forked}: {code}")
            forked += 1
    return forked


def fork(is_right):
    child = os.fork()
    if not child:
        signal.alarm(200)  # ends a child that waits for what its parent alone has
        os._exit(0 if is_right() else 1)
    return child
