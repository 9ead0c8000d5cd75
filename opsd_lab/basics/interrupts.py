"""Ctrl-C at safe places only.

Python raises KeyboardInterrupt between any two instructions, also inside a `finally` that was putting weights back. While one of
the blocks below holds Ctrl-C back, the signal is only noted, and raised where nothing is half done: at an `interruption_point`, or
once the outermost block has ended. What was installed as the handler (Python's own, a notebook kernel's, one's own) is then called.
Outside the main thread, where Python delivers no signals, none of this does anything.
"""

import _thread
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from enum import Enum
from types import FrameType, TracebackType

Handler = Callable[[int, FrameType | None], object] | int


class _Lets(Enum):
    """When a signal goes through."""

    NOW = "at once"
    POINTS = "at the next interruption point"
    END = "when the block has ended"


class _Hold:
    """The handler in force while Ctrl-C is held back."""

    def __init__(self, previous: Handler) -> None:
        self.previous, self.depth, self.noted, self.lets = previous, 0, False, _Lets.POINTS

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.noted = True
        if self.lets is _Lets.NOW:
            self.deliver(frame)

    def deliver(self, frame: FrameType | None) -> None:
        """Call the handler that was in force before."""
        before, self.lets, self.noted = self.lets, _Lets.END, False  # what unwinds from here on is not interrupted again
        if self.previous == signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.raise_signal(signal.SIGINT)
        else:
            self.previous(signal.SIGINT, frame)
        self.lets = before  # a handler of one's own, which raised nothing


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _present() -> _Hold | None:
    handler = signal.getsignal(signal.SIGINT)
    return handler if isinstance(handler, _Hold) and _in_main_thread() else None


@contextlib.contextmanager
def deferred_interrupts(*, points: bool = True) -> Iterator[None]:
    """Hold Ctrl-C back inside the block, however often it is pressed; blocks may stand in each other.

    Long work inside calls `interruption_point` where nothing is half done, or waits inside `interruptible`. Without `points`, no
    such point lets it through, whoever calls it.
    """
    hold = _present()
    if hold is None:
        previous = signal.getsignal(signal.SIGINT)
        if previous in (None, signal.SIG_IGN) or not _in_main_thread():
            yield
            return
        hold = _Hold(previous)
        signal.signal(signal.SIGINT, hold)
    before = hold.lets
    hold.lets = _Lets.POINTS if points and before is not _Lets.END else _Lets.END
    hold.depth += 1
    try:
        yield
    finally:
        hold.depth -= 1
        if not hold.depth and signal.getsignal(signal.SIGINT) is hold:
            signal.signal(signal.SIGINT, hold.previous)
        hold.lets = before
        if hold.noted and (before is _Lets.NOW or not hold.depth):
            hold.deliver(sys._getframe())


def interruption_point() -> None:
    """Let a Ctrl-C that was held back through, here."""
    hold = _present()
    if hold is not None and hold.noted and hold.lets is not _Lets.END:
        hold.deliver(sys._getframe())


class interruptible:
    """Let Ctrl-C through at once inside the block, where others hold it back: for waiting on what these do not protect.

    What encloses the block is safe: after one interrupt, further ones are held back again.
    """

    def __enter__(self) -> None:
        # No generator: one that an interrupt cuts off would end, and change the hold, whenever it is collected.
        self._hold = _present()
        if self._hold is not None:
            self._before, self._hold.lets = self._hold.lets, _Lets.NOW
            interruption_point()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._hold is not None and (self._hold.lets is _Lets.NOW or self._before is not _Lets.NOW):
            self._hold.lets = self._before


def interrupt_again() -> None:
    """Press Ctrl-C once more, in a moment: for one that was raised where nobody could catch it."""

    def press() -> None:
        if hasattr(signal, "pthread_kill"):  # which ends a sleep as well
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        else:
            _thread.interrupt_main()

    timer = threading.Timer(0.01, press)
    timer.daemon = True
    timer.start()
