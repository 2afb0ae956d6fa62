"""Whether the other processes are there: a step may wait forever for one that has ended, and TensorFlow too.

A process is there while the port that TensorFlow's server listens on accepts connections; the system closes it when the
process ends, in whatever way.
"""
import os
import signal
import socket
import threading
import time

from fcn8 import errors, launcher
from fcn8.errors import UserError

START_LIMIT = 300  # seconds for all processes to be started
INTERVAL = 1  # seconds between two checks
PATIENCE = 5  # seconds without an answer: at the end of a run the chief may be gone before others know that it ends
ORPHAN_LIMIT = 300  # seconds for a process whose launcher has gone to write its checkpoint
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
                                'TF_CONFIG names there, and check the host name and the firewall')
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
        seen, deadline = dict.fromkeys(addresses, time.time()), None
        while not ended.wait(INTERVAL):
            if _is_orphan() and deadline is None:
                deadline = time.time() + ORPHAN_LIMIT
                if not errors.is_stopping():  # a second signal would end it at once, without its checkpoint
                    os.kill(os.getpid(), signal.SIGTERM)
            if deadline and time.time() > deadline:
                os._exit(LOST)
            for rank, address in addresses.items():
                if is_there(address):
                    seen[rank] = time.time()
                elif time.time() - seen[rank] > PATIENCE and not ended.is_set():
                    on_loss(rank)

    threading.Thread(target=poll, daemon=True).start()
    return ended.set
