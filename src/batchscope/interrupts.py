"""What ends a process early: Ctrl-C, SIGTERM (a scheduler wants the machine back), SIGHUP (a terminal is closed).

While there is nothing to keep, the command ends at once; while a run goes on, each of them is a ``KeyboardInterrupt``.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
INTERRUPTED = 130
_SHOW_CURSOR = "\x1b[?25h"


def end_at_once() -> None:
    """For the command, from its first moment: end on a signal with a word, whatever is being imported or read."""
    for number in SIGNALS:
        if signal.getsignal(number) in _REPLACEABLE:  # not under nohup, which ignores SIGHUP
            signal.signal(number, _end)


def raise_them() -> None:
    """For the command, once it does its work: what it has begun to write is cleaned up as for any exception."""
    for number in SIGNALS:
        if signal.getsignal(number) is _end:
            signal.signal(number, _raise)


@contextmanager
def kept() -> Iterator[None]:
    """Within, the signals raise ``KeyboardInterrupt``; those that the caller handles, or ignores, are left to them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    ours = {number: found for number, found in before.items() if found in _REPLACEABLE}
    for number, found in ours.items():
        signal.signal(number, _stop if found in (_end, _raise) else _raise)
    try:
        yield
    finally:
        for number, found in ours.items():
            signal.signal(number, found)


def _end(number: int, frame: FrameType | None) -> None:
    _say("interrupted; nothing is lost")
    os._exit(INTERRUPTED)


def _stop(number: int, frame: FrameType | None) -> None:
    _say("stopping; what is finished is kept")
    raise KeyboardInterrupt


def _raise(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(words: str) -> None:
    with suppress(OSError):
        os.write(2, f"{_SHOW_CURSOR if os.isatty(2) else ''}\nbatchscope: {words}\n".encode())


_REPLACEABLE = (signal.SIG_DFL, signal.default_int_handler, _end, _raise)
