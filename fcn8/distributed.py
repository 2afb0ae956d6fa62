"""Several processes that train one network together.

They take the same steps, each on its own share of the pictures, with the gradients averaged: N batches of n pictures
act like one of N * n. The chief, the process of rank 0, alone writes and prints. TensorFlow's collectives connect the
processes where `python main.py --processes N` or a TF_CONFIG has started them, and Horovod where horovodrun has. With
one process each function here does the obvious thing.

Sergeev and Del Balso 2018, https://arxiv.org/abs/1802.05799.
"""
import contextlib
import os
import shlex
import sys

from fcn8 import launcher
from fcn8.collectives import Collectives
from fcn8.errors import UserError, reason
from fcn8.tf1 import tf

_engine = None  # Collectives or _Horovod, once together() has started it
_is_together = False  # whether this is within together()
_folder = None  # of the run, once it has one


def rank():
    """The number of this process, from 0."""
    return launcher.RANK


def size():
    """The number of processes."""
    return launcher.SIZE


def is_chief():
    """Whether this process is the one that writes and prints."""
    return rank() == 0


def is_first_on_machine():
    """Whether no other process on this machine has a lower rank."""
    return launcher.LOCAL_RANK == 0


def resume_command(folder):
    """The command that resumes the run in this folder, with as many processes."""
    # Of several machines, each process has a TF_CONFIG of its own.
    processes = f' --processes {size()}' if size() > 1 and len({host for host, _ in launcher.WORKERS}) < 2 else ''
    return f'python main.py{processes} --resume {shlex.quote(folder)}'


def session(config=None):
    """A tf.Session for a graph that has been, or will be, built with the functions below."""
    return _engine.session(config) if _engine else tf.Session(config=config)


def gather(value):
    """The values of all processes, by rank. All processes must call it equally often."""
    return _engine.gather(value) if _engine else [value]


def mean(tensor):
    """A tensor's mean over the processes, through which no gradient flows if there are several."""
    return _engine.mean(tf.stop_gradient(tensor)) if _engine else tensor


def average_gradients(optimizer):
    """A tf.train.Optimizer that averages the gradients over the processes."""
    return _engine.average_gradients(optimizer) if _engine else optimizer


def broadcast_variables(sess):
    """Give all variables of the default graph, which are initialised, the chief's values."""
    if _engine:
        _engine.broadcast_variables(sess)


def compare(found):
    """Raise UserError, in all processes, unless all of them have found the same: {name: value}."""
    everywhere = gather(found)
    if not all(isinstance(theirs, dict) for theirs in everywhere):  # what another process gathers elsewhere
        raise UserError('the processes do different things: start all of them with the same options')
    for other, theirs in enumerate(everywhere):
        for name, value in theirs.items():
            if value != everywhere[0][name]:
                raise UserError(f'{name} differs: it is {value} in process {other}, and {everywhere[0][name]} in '
                                'process 0. Use the same in both')


def remember(folder):
    """Note the folder to resume, for the line with which this process ends if another one has ended."""
    global _folder
    _folder = folder


def _describe_lost_process(lost=None):
    process = 'another process' if lost is None else 'process {} ({}:{})'.format(lost, *launcher.WORKERS[lost])
    advice = f'; to go on: {resume_command(_folder)}' if _folder else ''
    return f'{process} of the run has ended, and so does this one{advice}'


@contextlib.contextmanager
def together():
    """Work with the other processes of this run, if there are any: only the chief prints.

    Within another call it does nothing.

    Raises UserError if they cannot be connected, and when another process has ended.
    """
    global _engine, _is_together
    if launcher.PROBLEM:
        raise UserError(launcher.PROBLEM)
    if size() == 1 or _is_together:
        yield
        return
    if _engine and launcher.WORKERS:  # of which all but the chief have been waiting for its end
        raise UserError('with several processes a program can train only once: start it again')
    _engine = Collectives(_describe_lost_process) if launcher.WORKERS else _Horovod()
    with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(sys.stdout if is_chief() else nowhere):
        warning = '. Their ports are open to the network, without authentication: use a firewall'
        print(f'{size()} processes train together' + warning * bool(launcher.WORKERS))
        _is_together = True
        try:
            yield
        except Exception as error:
            _engine.await_loss(error)
            raise
        finally:
            _is_together = False
        _engine.leave()


class _Horovod:
    def __init__(self):
        if not tf.__version__.startswith('1.'):
            raise UserError(f'this is process {rank()} of {size()} of Horovod, which is for TensorFlow 1.15, and this '
                            f'is {tf.__version__}: start with --processes {size()}, or with TF_CONFIG')
        try:
            import horovod.tensorflow as hvd
            hvd.init()
            if hvd.size() != size():
                raise RuntimeError('it was built without support for what started these processes: use horovodrun')
        except Exception as error:  # Horovod may be missing, or compiled for another TensorFlow or another launcher
            raise UserError(f'this is process {rank()} of {size()}, and Horovod cannot be used: {reason(error)}. '
                            f'To install it: {launcher.INSTALL_HOROVOD}') from error
        self._hvd, self.average_gradients = hvd, hvd.DistributedOptimizer

    def session(self, config):
        return tf.Session(config=config)

    def gather(self, value):
        with tf.Graph().as_default(), tf.Session() as sess:
            return self._hvd.allgather_object(value, session=sess, name='gather')

    def mean(self, tensor):
        return self._hvd.allreduce(tensor, op=self._hvd.Average)

    def broadcast_variables(self, sess):
        sess.run(self._hvd.broadcast_variables(tf.global_variables(), root_rank=0))

    def await_loss(self, error):
        """Raise UserError if an exception means that another process has ended."""
        # The operation that has failed, not the message: that also names the operations that wait for it.
        if isinstance(error, tf.errors.OpError) and error.op is not None and error.op.type.startswith('Horovod'):
            raise UserError(_describe_lost_process()) from error

    def leave(self):
        """Nothing: the others may end before the chief."""
