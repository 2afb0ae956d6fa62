"""The processes that --processes N starts on this machine: watched, stopped together, none is left behind."""
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time

from fcn8.lifeline import LOST

GRACE = 20  # seconds for the others to end by themselves, with a line that says how to go on


def run(number):
    """Carry out this program's command line in so many processes, and end when they have, with their exit status.

    In TensorFlow 1.15 horovodrun does that.
    """
    if importlib.util.find_spec('horovod'):
        os.execv(sys.executable, [sys.executable, '-m', 'horovod.runner.launch', '-np', str(number), sys.executable]
                 + sys.argv)
    if sys.version_info < (3, 9):  # TensorFlow 1.15
        sys.stderr.write('error: --processes needs Horovod in TensorFlow 1.15. docs/many_gpus.md has the command that '
                         'installs it\n')
        sys.exit(2)
    children, stops = [], []

    def stop(signum, frame):
        stops.append(signum)
        if not children:
            sys.exit(128 + signum)
        children[0].send_signal(signum)  # the chief, which writes a checkpoint; then the others are ended

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, stop)
    try:
        for environment in _environments(number):
            # In sessions of their own: a Ctrl-C would reach all.
            children.append(subprocess.Popen([sys.executable] + sys.argv, env=dict(os.environ, **environment),
                                             stdin=subprocess.DEVNULL, start_new_session=True))
        status = _wait(children, stops)
    finally:
        for child in children:
            child.kill()
            child.wait()
    sys.exit(status)


def _environments(number):
    """What the environment of each process has to say."""
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(('', 0))
    workers = [f'127.0.0.1:{one.getsockname()[1]}' for one in sockets]
    for one in sockets:
        one.close()
    return [dict(FCN8_LAUNCHER=str(os.getpid()), TF_CONFIG=json.dumps(
        dict(cluster=dict(worker=workers), task=dict(type='worker', index=rank)))) for rank in range(number)]


def _wait(children, stops):
    """Wait for the end of all, or of the chief alone where it has had its last word; returns the exit status.

    stops: the signals so far with which the chief has been asked to stop.
    """
    first, deadline = None, float('inf')  # the first to fail, and when the others must have ended
    while True:
        codes = [child.poll() for child in children]
        if first is None:
            first = next((rank for rank, code in enumerate(codes) if code not in (None, 0, LOST)), None)
            deadline = deadline if first is None else time.time() + GRACE
        if None not in codes or time.time() > deadline or codes[0] is not None and (codes[0] >= 0 or stops):
            break
        time.sleep(0.1)
    code = codes[first or 0] if codes[0] != 0 else 0  # 0: the chief has come to its end
    if code < 0 and LOST not in codes and not stops:
        name = signal.Signals(-code).name
        sys.stderr.write(f'error: process {first} was ended by {name}. Start again, or go on with --resume\n')
    return code if code >= 0 else 128 - code
