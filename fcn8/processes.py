"""The processes that --processes N starts on this machine: watched, stopped together, none is left behind."""
import glob
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time

from fcn8 import launcher
from fcn8.errors import reason
from fcn8.lifeline import LOST

GRACE = 20  # seconds for the others to end by themselves, with a line that says how to go on


def run(number):
    """Carry out this program's command line in several processes, and end when they have, with their exit status.

    number: of the processes.

    In TensorFlow 1.15 horovodrun does that.
    """
    gpus = launcher.use_first_gpu(dict(os.environ))
    is_known = glob.glob(launcher.DRIVERS_GPUS) or 'CUDA_VISIBLE_DEVICES' in os.environ  # not in WSL: there it says 1
    if is_known and 0 < gpus < number:
        _refuse(f'--processes {number}: visible GPUs: {gpus}. Use --processes {gpus}, or CUDA_VISIBLE_DEVICES= for the '
                'CPU')
    if sys.version_info < (3, 9):  # TensorFlow 1.15
        if not importlib.util.find_spec('horovod'):
            _refuse('--processes needs Horovod in TensorFlow 1.15. To install it: ' + launcher.INSTALL_HOROVOD)
        os.execv(sys.executable, [sys.executable, '-m', 'horovod.runner.launch', '-np', str(number), sys.executable]
                 + sys.argv)
    children, stops = [], []

    def stop(signum, frame):  # raises nothing: a process that has just been started would be left behind
        stops.append(signum)
        if children:
            children[0].send_signal(signum)  # the chief, which writes a checkpoint; then the others are ended

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, stop)
    try:
        for environment in _environments(number):
            if stops:
                break
            # In sessions of their own: a Ctrl-C would reach all.
            children.append(subprocess.Popen([sys.executable] + sys.orig_argv[1:], env=dict(os.environ, **environment),
                                             stdin=subprocess.DEVNULL, start_new_session=True))
        status = 128 + stops[0] if stops else _wait(children, stops)
    except OSError as error:
        _refuse(f'{number} processes cannot be started: {reason(error)}')
    finally:
        for child in children:
            child.kill()
            child.wait()
    sys.exit(status)


def _refuse(problem):
    sys.stderr.write(f'error: {problem}\n')
    sys.exit(2)


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
    if code < 0 and codes[1 if first == 0 else 0] != LOST and not stops:  # otherwise that process has said it
        name = signal.Signals(-code).name
        sys.stderr.write(f'error: process {first} was ended by {name}. Start again, or go on with --resume\n')
    return code if code >= 0 else 128 - code
