"""The process that reads what a parser may choke on: requests on its standard input, answers on its standard output.

Both are frames: eight bytes of length, then JSON; a request has the content of the file as a second frame.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from typing import IO, Any

from revela_rag.corpus.code.chunk import chunk_code
from revela_rag.corpus.formats.documents.mail import read_mail
from revela_rag.corpus.formats.documents.office import read_office, read_sheets
from revela_rag.corpus.formats.documents.pdf import read_pdf
from revela_rag.corpus.formats.markup.html import read_html
from revela_rag.corpus.formats.unreadable import Unreadable
from revela_rag.corpus.types import Document

__all__ = ["BROKEN", "OPERATIONS", "read_frame", "write_frame"]

BROKEN = "the parser breaks down on it"
_LENGTH = struct.Struct(">Q")


def _html(data: bytes) -> dict[str, Any]:
    return asdict(read_html(data.decode("utf-8", "replace")))


def _code(data: bytes, *, id: str, title: str, format: str, max_words: int) -> list[dict[str, Any]]:
    document = Document(id, data.decode("utf-8", "replace"), title, format)
    return [asdict(draft) for draft in chunk_code(document, max_words=max_words)]


#: What can be asked for, by name: content of a file and options to values of JSON.
OPERATIONS: dict[str, Callable[..., Any]] = {
    "html": _html,
    "pdf": read_pdf,
    "code": _code,
    "office": read_office,
    "sheets": read_sheets,
    "mail": read_mail,
}
#: Of a native library: what runs beside it takes a stack each, of the memory that is for the file.
_ONE_THREAD = ("TOKIO_WORKER_THREADS", "RAYON_NUM_THREADS")


def read_frame(stream: IO[bytes]) -> bytes:
    """The next frame of a stream.

    Raises:
        EOFError: the other side is gone.
    """
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    size = _LENGTH.unpack(head)[0]
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def write_frame(stream: IO[bytes], data: bytes) -> None:
    """Write one frame."""
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def _answer(request: dict[str, Any], data: bytes) -> dict[str, Any]:
    try:
        return {"value": OPERATIONS[request["operation"]](data, **request["options"])}
    except Unreadable as reason:
        return {"unreadable": str(reason)}
    except MemoryError:
        return {"exceeded": "memory"}
    except RecursionError:
        return {"unreadable": "nested too deeply"}
    except Exception:  # parsers raise whatever the damage leads to
        return {"unreadable": BROKEN}


def _limit_memory(most: int) -> None:
    """Let the process have so many bytes more than it has now, where the system can see to that."""
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            own = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (own + most, resource.getrlimit(resource.RLIMIT_AS)[1]))
    except (ImportError, OSError, ValueError):
        pass


def _limit_time(seconds: float) -> None:
    """Have the system end this process after so many seconds of computing, where it can; 0 ends the limit."""
    with contextlib.suppress(AttributeError, OSError):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def main() -> None:
    """Answer requests until the standard input ends."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a parser prints is no answer
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    for library in ("lxml.etree", "pypdf"):  # before the limit, which is for files
        import_module(library)
    _limit_memory(int(sys.argv[1]))
    write_frame(answers, b"ready")
    while True:
        try:
            request = json.loads(read_frame(requests))
            data = read_frame(requests)
        except EOFError:
            os._exit(0)  # the threads of a native library may not live to see the interpreter end
        _limit_time(request["seconds"])
        answer = _answer(request, data)
        del data
        try:
            made = json.dumps(answer).encode()
        except MemoryError:
            made = json.dumps({"exceeded": "memory"}).encode()
        _limit_time(0)
        write_frame(answers, made)


if __name__ == "__main__":
    main()
