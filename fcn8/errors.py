"""How the program ends: errors in one line, and stops between two training steps."""
import contextlib
import errno
import os
import signal
import sys
import threading
import time
import traceback

from fcn8 import launcher

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
SAME_SIGNAL = 0.3  # seconds within which two are one: timeout(1) and job schedulers send them in pairs
RESOURCE_EXHAUSTED = 8  # TensorFlow's error code
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
OUTPUT_IS_GONE = (errno.EPIPE, errno.EIO)  # that of a pipe, and that of a terminal
# Messages of errors with other codes
GPU_OUT_OF_MEMORY = ('out of memory', 'Dst tensor is not initialized', 'Failed to get convolution algorithm',
                     'CUDNN_STATUS_ALLOC_FAILED', 'CUBLAS_STATUS_ALLOC_FAILED')

_stop_received = threading.Event()


class UserError(Exception):
    """Something that the user can fix: the program ends in this one line, without a stack trace."""


class Stopped(KeyboardInterrupt):
    """SIGINT (Ctrl-C) or SIGTERM has asked the program to stop."""

    def __init__(self, signum, advice=''):
        super().__init__(advice)
        self.signum = signum


@contextlib.contextmanager
def in_one_line(out_of_memory_hint, debug=False):
    """End every error that a user can cause in one line and exit status 2, and a stop with 128 + the signal's number.

    out_of_memory_hint: what to try if there is not enough memory.
    debug: show the stack trace before that line.
    """
    received = []

    def stop(signum, frame):
        if not received:
            received.append(signum)
            raise Stopped(signum)

    with _stop_signals(stop):
        try:
            yield
        except KeyboardInterrupt as stopped:
            _print_last_line(' '.join(filter(None, ['stopped', str(stopped)])), debug, below_bar=True)
            # At once: a bar that was interrupted while it was made would complain while Python ends.
            os._exit(128 + getattr(stopped, 'signum', signal.SIGINT))
        except Exception as error:
            line = _describe(error, out_of_memory_hint)
            if not line:
                raise
            _print_last_line('error: ' + line, debug)
            sys.exit(2)


def _describe(error, out_of_memory_hint):
    """The line for an error that a user can cause, None for any other."""
    if isinstance(error, UserError):
        return str(error)
    if is_out_of_memory(error):
        on_gpu = 'GPU' in str(error) or getattr(error, 'error_code', RESOURCE_EXHAUSTED) != RESOURCE_EXHAUSTED
        return (f'out of memory: try {out_of_memory_hint}'
                + ', and stop other programs on the GPU (nvidia-smi lists them)' * on_gpu)
    if isinstance(error, OSError):
        text = (f'{error.filename}: ' if error.filename else '') + reason(error)
        return '. '.join(filter(None, [text, _advice(error)]))
    if _is_tensorflow_error(error):
        return f'TensorFlow failed: {reason(error)}. --debug shows where'
    return None


def _print_last_line(line, debug, below_bar=False):
    """Print a line on stderr, if that is still there; below_bar: a bar was interrupted, and may still be shown."""
    with contextlib.suppress(OSError):
        if debug:
            traceback.print_exc()
        if below_bar or launcher.RANK:  # the bar of the chief, on the same terminal
            sys.stderr.write('\n')
        sys.stderr.write(' '.join(line.splitlines()) + '\n')
        sys.stderr.flush()


def is_out_of_memory(error):
    """Whether an error was raised because memory ran out, that of the GPU or that of the machine."""
    return isinstance(error, MemoryError) or _is_tensorflow_error(error) and (
        error.error_code == RESOURCE_EXHAUSTED or any(text in error.message for text in GPU_OUT_OF_MEMORY))


def _is_tensorflow_error(error):
    # By name: where TensorFlow has not been imported, nothing of it is needed.
    return any(kind.__name__ == 'OpError' for kind in type(error).__mro__)


def reason(error):
    """What an exception says, in one line: of TensorFlow's many, the one before the place in the graph."""
    if _is_tensorflow_error(error):
        lines = error.message.split('\n\t [[')[0].strip().splitlines()[-1:]
    else:
        lines = (getattr(error, 'strerror', None) or str(error)).strip().splitlines()
    return (lines or [repr(error)])[0].strip().rstrip('.')


def cannot_write(path, error):
    """The UserError for a path that an OSError, or an error of TensorFlow, has kept from being written."""
    return UserError(f'{path}: cannot be written ({reason(error)}). '
                     + (_advice(error) or 'Check what is at this path, and the disk'))


def _advice(error):
    """What helps where a disk is full or read-only, None elsewhere."""
    for codes, advice in ((DISK_FULL, 'Free some disk space'), (READ_ONLY, 'Make it writable, or use another folder')):
        if any(os.strerror(code) in reason(error) for code in codes):  # TensorFlow's errors have other codes
            return advice
    return None


@contextlib.contextmanager
def stop_between_steps(heeded=True):
    """Keep SIGINT and SIGTERM from interrupting a training step; a second one ends the program at once.

    heeded: whether the first one requests a stop; otherwise it is ignored.

    Yields a function that returns the signal received, or None. In the end a signal received is raised as Stopped.
    """
    received = []
    with _stop_signals(lambda signum, frame: received.append(signum) if heeded else None):
        yield lambda: received[0] if received else None
    if received:
        raise Stopped(received[0])


def is_stopping():
    """Whether SIGINT or SIGTERM has asked this process to stop."""
    return _stop_received.is_set()


@contextlib.contextmanager
def _stop_signals(handler):
    """Have SIGINT and SIGTERM call a function; a second one ends the program, wherever it hangs."""
    if threading.current_thread() is not threading.main_thread():  # where Python handles no signals
        yield
        return
    reader, writer = os.pipe()
    _stop_received.clear()

    # A thread of its own: Python calls a handler only when TensorFlow has returned from its step, or from saving.
    def watch():
        first = None
        for byte in iter(lambda: os.read(reader, 1), b''):
            if byte[0] in STOP_SIGNALS:
                now = time.time()
                first = first or now
                _stop_received.set()
                if now - first > SAME_SIGNAL:
                    os.write(2, b'\nstopped at once: what was not saved is lost\n')
                    os._exit(128 + byte[0])

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    os.set_blocking(writer, False)
    wakeup = signal.set_wakeup_fd(writer)
    handlers = {signum: signal.signal(signum, handler) for signum in STOP_SIGNALS}
    try:
        yield
    finally:
        for signum, before in handlers.items():
            signal.signal(signum, before)
        signal.set_wakeup_fd(wakeup)
        os.close(writer)
        watcher.join()
        os.close(reader)
