"""Whether the other processes are there: a step may wait forever for one that has ended, and TensorFlow too.

A process is there while the port that TensorFlow's server listens on accepts connections; the system closes it when the
process ends, in whatever way.
"""
import os
import signal
import socket
import threading
import time

from fcn8 import launcher
from fcn8.errors import UserError

START_LIMIT = 300  # seconds for all processes to be started
INTERVAL = 1  # seconds between two looks
PATIENCE = 5  # seconds without an answer: at the end of a run the chief may be gone before others know that it ends
LOST = 3  # exit status of a process that ends because another one has


def is_there(address):
    """Whether a process listens on this (host, port)."""
    host, port = address
    try:
        socket.create_connection((host.strip('[]'), port), timeout=PATIENCE).close()  # [::1] is for TensorFlow
    except OSError:
        return False
    return True


def wait_for(addresses):
    """Wait until all of the (host, port) answer.

    Raises UserError if one does not within START_LIMIT seconds, and if the launcher of --processes has ended.
    """
    deadline = time.time() + START_LIMIT
    for host, port in addresses:
        while not is_there((host, port)):
            if time.time() > deadline:
                raise UserError(f'{host}:{port} has not answered for {START_LIMIT} seconds: start the process that '
                                'TF_CONFIG names there, and look at the name and the firewall')
            if _is_orphan():
                raise UserError('the process that has started this one has ended')
            time.sleep(0.1)


def _is_orphan():
    return bool(launcher.PARENT) and os.getppid() != launcher.PARENT


def watch(addresses, on_loss):
    """In a thread, call on_loss(rank) once a process has not answered for PATIENCE seconds.

    addresses: {rank: (host, port)} of the processes.

    Returns a function that ends this.
    """
    ended = threading.Event()

    def poll():
        seen, has_stopped = dict.fromkeys(addresses, time.time()), False
        while not ended.wait(INTERVAL):
            if _is_orphan() and not has_stopped:
                has_stopped = True
                os.kill(os.getpid(), signal.SIGTERM)  # what has started all is gone: with a checkpoint, if it can
            for rank, address in addresses.items():
                if is_there(address):
                    seen[rank] = time.time()
                elif time.time() - seen[rank] > PATIENCE and not ended.is_set():
                    on_loss(rank)

    threading.Thread(target=poll, daemon=True).start()
    return ended.set
