"""Every file has a budget of time and memory: its parser runs in a process that is ended when the budget is spent."""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from revela_rag.corpus.formats import worker
from revela_rag.corpus.formats.documents.pdf import read_pdf
from revela_rag.corpus.formats.unreadable import Unreadable

__all__ = ["MEMORY", "OUT_OF_MEMORY", "OUT_OF_TIME", "SECONDS", "SECONDS_PER_MB", "guarded"]

#: Seconds of computing that every file may take, and more for each of its megabytes.
SECONDS, SECONDS_PER_MB = 10.0, 2.0
#: Bytes of memory that reading one file may take.
MEMORY = 2 << 30
#: On a busy machine a second of computing takes longer; after so many times the budget the clock decides.
_PATIENCE = 2.0 if os.name == "posix" else 1.0
_SECONDS_TO_START, _SECONDS_TO_END = 60.0, 5.0
OUT_OF_TIME = f"reading it takes more than its time ({SECONDS:.0f} s, and {SECONDS_PER_MB:.0f} s for each MB)"
OUT_OF_MEMORY = f"reading it takes more than its memory ({MEMORY >> 30} GiB)"
_OUT_OF_TIME = {-signal.SIGPROF} if hasattr(signal, "SIGPROF") else set()
_KILLED = -signal.SIGKILL if hasattr(signal, "SIGKILL") else None
_MODULE = "import sys; sys.path[:] = sys.argv[2:]; from revela_rag.corpus.formats.worker import main; main()"

_logger = logging.getLogger(__name__)


def guarded(operation: str, data: bytes, **options: Any) -> Any:
    """What an operation of :data:`~revela_rag.corpus.formats.worker.OPERATIONS` makes of the content of a file.

    It runs in a process that is started once. Where none can be started it runs here, with a limit on time between the
    pages of a PDF.

    Raises:
        Unreadable: the content cannot be used, or not within its budget; the message is the reason.
    """
    return _reader().read(operation, data, options)


class _Reader:
    """One process and the pipes to it."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._refused = False

    def read(self, operation: str, data: bytes, options: dict[str, Any]) -> Any:
        seconds = SECONDS + SECONDS_PER_MB * len(data) / 1e6
        with self._lock:
            process = self._started()
            request = {"operation": operation, "options": options, "seconds": seconds}
            answer = self._ask(process, request, data, seconds) if process else None
        if answer is None:
            return _here(operation, data, options, seconds)
        if "unreadable" in answer:
            raise Unreadable(answer["unreadable"])
        return answer["value"]

    def _ask(
        self, process: subprocess.Popen[bytes], request: dict[str, Any], data: bytes, seconds: float
    ) -> dict[str, Any]:
        assert process.stdin is not None and process.stdout is not None
        try:
            with _ended_after(process, _PATIENCE * seconds) as ended:
                worker.write_frame(process.stdin, json.dumps(request).encode())
                worker.write_frame(process.stdin, data)
                answer = json.loads(worker.read_frame(process.stdout))
        except (EOFError, OSError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_SECONDS_TO_END)
            code = process.returncode
            self.close()
            if ended.is_set() or code in _OUT_OF_TIME:
                return {"unreadable": OUT_OF_TIME}
            return {"unreadable": OUT_OF_MEMORY if code == _KILLED else worker.BROKEN}
        except BaseException:
            self.close()
            raise
        return {"unreadable": OUT_OF_MEMORY} if answer.get("exceeded") else dict(answer)

    def _started(self) -> subprocess.Popen[bytes] | None:
        """The process, or None where none can be had."""
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        if self._refused:
            return None
        try:
            if getattr(sys, "frozen", False) or not _is_python(sys.executable):
                raise OSError(f"{sys.executable or 'this program'} is no Python interpreter")
            process = self._process = subprocess.Popen(
                [sys.executable, "-c", _MODULE, str(MEMORY), *sys.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # of Windows
            )
            assert process.stdout is not None
            with _ended_after(process, _SECONDS_TO_START):
                worker.read_frame(process.stdout)
        except (OSError, ValueError, EOFError) as error:
            _logger.warning("No process for reading files can be started (%s); they are read in this one.", error)
            self.close()
            self._refused = True
        return self._process

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None or self.owner != os.getpid():
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        process.wait()


@contextlib.contextmanager
def _ended_after(process: subprocess.Popen[bytes], seconds: float) -> Iterator[threading.Event]:
    """Ends a process that is still busy after so many seconds; the event tells whether it was."""
    ended = threading.Event()

    def end() -> None:
        ended.set()
        process.kill()

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield ended
    finally:
        timer.cancel()


def _is_python(executable: str | None) -> bool:
    return Path(executable or "").name.lower().startswith(("python", "pypy"))


def _here(operation: str, data: bytes, options: dict[str, Any], seconds: float) -> Any:
    """The same in this process, which nobody ends."""
    if operation != "pdf":
        return worker.OPERATIONS[operation](data, **options)
    until = time.monotonic() + seconds

    def check() -> None:
        if time.monotonic() > until:
            raise Unreadable(OUT_OF_TIME)

    return read_pdf(data, check)


_current: _Reader | None = None


def _reader() -> _Reader:
    """The process of this process: one that was forked off has none yet."""
    global _current
    if _current is None or _current.owner != os.getpid():
        _current = _Reader()
    return _current


@atexit.register
def _close() -> None:
    if _current is not None:
        _current.close()
