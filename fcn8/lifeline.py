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
    try:
        socket.create_connection(address, timeout=PATIENCE).close()
    except OSError:
        return False
    return True


def wait_for(addresses):
    """Wait until all of the (host, port) answer; raises UserError if one does not within START_LIMIT seconds."""
    deadline = time.time() + START_LIMIT
    for host, port in addresses:
        while not is_there((host, port)):
            if time.time() > deadline:
                raise UserError(f'{host}:{port} has not answered for {START_LIMIT} seconds: start the process that '
                                'TF_CONFIG names there, and look at the name and the firewall')
            time.sleep(0.1)


def watch(addresses, on_loss):
    """In a thread, call on_loss(rank) once a process has not answered for PATIENCE seconds.

    addresses: (host, port) of the processes, by rank.

    Returns a function that ends this.
    """
    ended = threading.Event()

    def look():
        seen, has_parent = [time.time()] * len(addresses), bool(launcher.PARENT)
        while not ended.wait(INTERVAL):
            if has_parent and os.getppid() != launcher.PARENT:
                has_parent = False
                os.kill(os.getpid(), signal.SIGTERM)  # what has started all is gone: with a checkpoint, if it can
            for rank, address in enumerate(addresses):
                if is_there(address):
                    seen[rank] = time.time()
                elif time.time() - seen[rank] > PATIENCE and not ended.is_set():
                    on_loss(rank)

    threading.Thread(target=look, daemon=True).start()
    return ended.set
