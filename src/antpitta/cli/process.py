"""The process of a command: its standard streams, its signals and its memory.

Only the standard library is imported here, because all of this holds from the first moment on,
while the packages of a command are still being imported.

- Work is not lost because its output is: what a full disk or a closed pipe does not take is
  dropped, and the first error is kept for the exit code. A closed stream becomes the null device:
  otherwise a file of the run would get its number, and with it what the stream is sent.
- A character that the encoding of a stream lacks is escaped.
- A signal that ends a process raises KeyboardInterrupt. Others are ignored for a second, while the
  stack unwinds. After a grace time the process ends in any case, also out of compiled code:
  every file is replaced at once, so that nothing is half-written. The same grace time ends a
  process whose command is done and one of whose threads is not.
- A process whose address space is limited below what a command needs is refused before its work:
  the compiled libraries hang or crash where they get no memory.
"""

import errno
import io
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from antpitta.core.errors import UserError

GRACE = 5.0  # seconds from the first signal to the end of the process
PAUSE = 1.0  # seconds in which more signals have no effect
ENDING = [
    number
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if (number := getattr(signal, name, None)) is not None
]
GONE = (errno.EPIPE, errno.EBADF, errno.EIO)  # a reader that left: it wanted no more

# Address space in GB, measured with a small network on two cores, and what each core adds.
NEEDED = {"train": 3.6, "demo": 3.6, "bench": 2.2, "predict": 1.7, "ensemble": 1.7}
NEEDED_OTHERS, NEEDED_PER_CORE = 1.0, 0.1
NO_MEMORY = (
    "bad_alloc",
    "bad allocation",
    "cannot allocate memory",
    "can't allocate memory",
    "can't start new thread",
    "failed to map segment",
    "not enough memory",
    "out of memory",
    "unable to allocate",
)

_output: dict[int, "OutputFile"] = {}
_null: list[io.FileIO] = []  # kept open
_received: list[int] = []  # signals since the command began
_raise_after = [0.0]  # time of the monotonic clock
_exit_code: list[int] = []
_waking: list[int] = []  # the end of the pipe that wakes the thread _end_after_grace
other_errors: list[BaseException] = []  # of threads and destructors; they go to the log


class OutputFile(io.FileIO):
    """A stream that drops what cannot be written, and keeps the first error."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write bytes, or drop them.

        Parameters
        ----------
        data : bytes

        Returns
        -------
        int
            How many bytes are done with.
        """
        try:
            return super().write(data)
        except OSError as error:
            self.error = self.error or error
            return len(data)


def begin() -> bool:
    """Prepare the process for a command.

    Returns
    -------
    bool
        Whether the process is the command's own. In the process of somebody else, such as a
        test, streams and signals stay as they are.
    """
    _received.clear()
    own = sys.stdout in (sys.__stdout__, None) and _in_main_thread()
    if own:
        _open_closed_streams()
        sys.stdout, sys.stderr = _tolerant(sys.stdout, 1), _tolerant(sys.stderr, 2)
        threading.excepthook = _keep_error
        sys.unraisablehook = _keep_error
        # Such as that the home folder cannot be written: fonts are then looked up anew.
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
        _handle_signals()
    return own


def flush() -> OSError | None:
    """Write what is left of the output.

    Returns
    -------
    OSError or None
        Why a part of the standard output is lost, None if nothing is, or if its reader left.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    error = _output[1].error
    return None if error is None or error.errno in GONE else error


def end(code: int) -> None:
    """Ignore signals from here on, and end within the grace time, whatever threads still do.

    Parameters
    ----------
    code : the exit code
    """
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    _exit_code.append(code)
    for writer in _waking:
        os.write(writer, b"\0")


def interruption() -> int:
    """The signal that the process received since the command began, 0 for none."""
    return _received[0] if _received else 0


def check_memory(arguments: list[str]) -> None:
    """Refuse a limit of the address space in which a command cannot work.

    Parameters
    ----------
    arguments : of the command line

    Raises
    ------
    UserError
        ``E_MEMORY``.
    """
    limit = _address_space_limit()
    command = next((word for word in arguments if not word.startswith("-")), None)
    if limit is None or command is None or {"-h", "--help"} & set(arguments):
        return
    needed = NEEDED.get(command, NEEDED_OTHERS) + NEEDED_PER_CORE * (os.cpu_count() or 1)
    if limit < needed * 1e9:
        raise UserError(
            "E_MEMORY",
            f"this process may use {limit / 1e9:.1f} GB of address space, and {command} needs "
            f"{needed:.1f}",
            "raise the limit: ulimit -v unlimited",
        )


def is_memory_shortage(error: BaseException) -> bool:
    """Whether an error comes from a lack of memory or of threads.

    Parameters
    ----------
    error : of any library, with those that led to it

    Returns
    -------
    bool
        True also for other errors of a process that has used up its address space.
    """
    for part in _chain(error):
        text = str(part).lower()
        if isinstance(part, MemoryError) or getattr(part, "errno", None) == errno.ENOMEM:
            return True
        if any(words in text for words in NO_MEMORY):
            return True
    return _address_space_is_used_up()


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        yield error
        chain.append(error)
        error = error.__cause__ or error.__context__


def _address_space_limit() -> int | None:
    """In bytes; None without a limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _address_space_is_used_up() -> bool:
    """Whether the process came near its limit: libraries then fail with errors of any kind."""
    limit = _address_space_limit()
    if limit is None:
        return False
    try:
        status = io.FileIO("/proc/self/status").read().decode()
    except OSError:  # not Linux
        return False
    peak = next((line.split()[1] for line in status.splitlines() if "VmPeak" in line), "0")
    return int(peak) * 1024 > 0.8 * limit


def _keep_error(details: Any) -> None:
    """Print nothing: what matters to the command fails in the main thread as well."""
    if details.exc_value is not None:
        other_errors.append(details.exc_value)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _open_closed_streams() -> None:
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            _null.append(io.FileIO(os.devnull, "r+"))
            if _null[-1].fileno() != number:
                os.dup2(_null[-1].fileno(), number)
            os.set_inheritable(number, True)


def _tolerant(stream: Any, number: int) -> io.TextIOWrapper:
    """The same stream, which drops what cannot be written and escapes what it cannot encode."""
    if stream is not None:
        with suppress(OSError):
            stream.flush()
    file = _output[number] = OutputFile(number, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(file),
        encoding=getattr(stream, "encoding", "utf-8"),
        errors="backslashreplace",
        line_buffering=number == 2 or file.isatty(),
    )


def _handle_signals() -> None:
    for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, _interrupt)
    if os.name != "posix":
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        threading.Thread(target=_end_after_grace, args=(reader,), daemon=True).start()
    except RuntimeError:  # no thread can be started: the command ends for the same reason
        signal.set_wakeup_fd(-1)
    else:
        _waking.append(writer)


def _interrupt(number: int, frame: object) -> None:
    _received.append(number)
    if time.monotonic() > _raise_after[-1]:  # again: a destructor or a library swallowed the first
        _raise_after.append(time.monotonic() + PAUSE)
        raise KeyboardInterrupt


def _end_after_grace(reader: int) -> None:
    """Wait for a signal or the end; the interpreter writes a signal, whatever it is doing."""
    number = -1
    while number and number not in ENDING:
        number = os.read(reader, 1)[0]
    time.sleep(GRACE)
    if not _exit_code:
        os.write(2, b"antpitta: interrupted. [E_INTERRUPTED]\n")
    os._exit(_exit_code[0] if _exit_code else 128 + number)
