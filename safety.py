"""Nothing lost: errors in one line, stops between steps, files written whole, folders for work in progress."""
import contextlib
import fcntl
import glob
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback

from tf1 import tf

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
SCRATCH = '.fcn8-scratch-'
SCRATCH_AGE = 60  # seconds
SAME_SIGNAL = 0.3  # seconds within which two are one: timeout(1) and job schedulers send them in pairs


class UserError(Exception):
    """What the user can mend: the program ends with its one line, and shows no stack trace."""


class Stopped(KeyboardInterrupt):
    """SIGINT (Ctrl-C) or SIGTERM has asked the program to stop."""

    def __init__(self, signum, advice=''):
        super().__init__(advice)
        self.signum = signum


@contextlib.contextmanager
def errors_in_one_line(out_of_memory, debug=False):
    """End what the user can mend in one line and exit status 2, a stop in one line and 128 + the signal.

    out_of_memory: what to try where the memory does not suffice.
    debug: show the stack trace before that line.
    """
    received = []

    def stop(signum, frame):
        received.append(time.time())
        if len(received) == 1:
            raise Stopped(signum)
        if received[-1] - received[0] > SAME_SIGNAL:
            os._exit(128 + signum)

    with _handlers(stop):
        try:
            yield
        except KeyboardInterrupt as stopped:
            sys.stderr.write('\n')  # below the bar that was interrupted
            _last_words(' '.join(filter(None, ['stopped', str(stopped)])), debug)
            # At once: a bar that was interrupted in the making would complain while Python ends.
            os._exit(128 + getattr(stopped, 'signum', signal.SIGINT))
        except UserError as error:
            _last_words('error: {}'.format(error), debug)
            sys.exit(2)
        except OSError as error:
            place = '{}: '.format(error.filename) if error.filename else ''
            _last_words('error: {}{}'.format(place, reason(error)), debug)
            sys.exit(2)
        except (tf.errors.ResourceExhaustedError, MemoryError):
            _last_words('error: out of memory: try {}'.format(out_of_memory), debug)
            sys.exit(2)
        except tf.errors.OpError as error:
            _last_words('error: TensorFlow cannot go on: {}. --debug shows where'.format(reason(error)), debug)
            sys.exit(2)


@contextlib.contextmanager
def _handlers(handler):
    """Have SIGINT and SIGTERM handled by a function, and in the end as before."""
    before = {signum: signal.signal(signum, handler) for signum in STOP_SIGNALS}
    try:
        yield
    finally:
        for signum, other in before.items():
            signal.signal(signum, other)


def _last_words(line, debug):
    if debug:
        traceback.print_exc()
    sys.stderr.write('{}\n'.format(' '.join(line.splitlines())))
    sys.stderr.flush()


def reason(error):
    """What an exception says, in one line: of TensorFlow's many, the one before the place in the graph."""
    if isinstance(error, tf.errors.OpError):
        lines = error.message.split('\n\t [[')[0].strip().splitlines()[-1:]
    else:
        lines = (getattr(error, 'strerror', None) or str(error)).strip().splitlines()
    return (lines or [repr(error)])[0].strip().rstrip('.')


@contextlib.contextmanager
def stop_between_steps(heeded=True):
    """Keep SIGINT and SIGTERM from interrupting a step; a second one ends the program at once.

    heeded: whether the first one asks to stop, otherwise nothing comes of it.

    Yields a function that gives the signal that has come, None as long as there is none. On leaving, it is raised as
    Stopped.
    """
    if threading.current_thread() is not threading.main_thread():  # where Python handles no signals
        yield lambda: None
        return
    received = []
    reader, writer = os.pipe()

    # A thread of its own: what Python calls on a signal has to wait until TensorFlow's step, or its saving, has ended.
    def watch():
        first = None
        for byte in iter(lambda: os.read(reader, 1), b''):
            if byte[0] in STOP_SIGNALS:
                first = first or time.time()
                if time.time() - first > SAME_SIGNAL:
                    os.write(2, b'\nstopped at once\n')
                    os._exit(128 + byte[0])

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    os.set_blocking(writer, False)
    wakeup = signal.set_wakeup_fd(writer)
    try:
        with _handlers(lambda signum, frame: received.append(signum) if heeded else None):
            yield lambda: received[0] if received else None
    finally:
        signal.set_wakeup_fd(wakeup)
        os.close(writer)
        watcher.join()
        os.close(reader)
    if received:
        raise Stopped(received[0])


@contextlib.contextmanager
def written_whole(path):
    """Write to the file that this gives, beside `path`: at the end it takes its place, or nothing is left of it.

    Raises UserError where it cannot be written.
    """
    part = path + '.part'
    try:
        with open(part, 'wb') as file:
            yield file
        os.replace(part, path)
    except OSError as error:
        raise UserError('{}: cannot be written ({}). Make room there, and the folder writable'.format(
            path, error.strerror or error))
    finally:
        with contextlib.suppress(OSError):
            os.remove(part)


@contextlib.contextmanager
def scratch_folder(folder):
    """A new folder in `folder`, for what is to be moved from it when it is whole; removed at the end.

    Those that killed processes have left there are removed, too.
    """
    for path in glob.glob(os.path.join(glob.escape(folder), SCRATCH + '*')):
        with contextlib.suppress(OSError):  # another process removes it, or is at it
            # A young one may be of a process that is about to lock it.
            if time.time() - os.path.getmtime(path) > SCRATCH_AGE:
                with locked(path) as certain:
                    if certain:
                        shutil.rmtree(path)
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=folder) as path, locked(path):
        yield path


@contextlib.contextmanager
def locked(folder):
    """Keep other processes from locking a folder; raises BlockingIOError where one has.

    Yields whether it is certain: some file systems have no locks.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            certain = True
        except BlockingIOError:
            raise
        except OSError:
            certain = False
        yield certain
    finally:
        os.close(descriptor)


def check_space(folder, size, purpose):
    """Raise UserError unless the disk of `folder` has `size` bytes left for that purpose."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise UserError('{}: {:,.1f} MB are free, and {} {:,.1f} MB. Make room, or use a folder on another '
                        'disk'.format(folder, free / 1e6, purpose, size / 1e6))
