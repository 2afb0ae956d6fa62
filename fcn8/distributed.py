"""Several processes that train one network together: Horovod.

`horovodrun -np N python main.py` starts N processes. They take the same steps, each on its own share of the pictures,
with the gradients averaged: N batches of n pictures act like one of N * n. The chief, the process of rank 0, alone
writes and prints. With one process each function here does the obvious thing.

Sergeev and Del Balso 2018, https://arxiv.org/abs/1802.05799.
"""
import contextlib
import os
import shlex
import sys

from fcn8 import launcher
from fcn8.errors import UserError, reason
from fcn8.tf1 import tf

_hvd = None  # the module horovod.tensorflow, once together() has started it


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
    return not _hvd or _hvd.local_rank() == 0


def resume_command(folder):
    """The command that resumes the run in this folder, with as many processes."""
    return ('' if size() == 1 else f'horovodrun -np {size()} ') + f'python main.py --resume {shlex.quote(folder)}'


def gather(value):
    """The values of all processes, by rank. All processes must call it equally often."""
    if not _hvd:
        return [value]
    with tf.Graph().as_default(), tf.Session() as sess:
        return _hvd.allgather_object(value, session=sess, name='gather')


def mean(tensor):
    """A tensor's mean over the processes, through which no gradient flows if there are several."""
    return _hvd.allreduce(tf.stop_gradient(tensor), op=_hvd.Average) if _hvd else tensor


def average_gradients(optimizer):
    """A tf.train.Optimizer that averages the gradients over the processes."""
    return _hvd.DistributedOptimizer(optimizer) if _hvd else optimizer


def broadcast_variables(sess):
    """Give all variables of the default graph, which are initialised, the chief's values."""
    if _hvd:
        sess.run(_hvd.broadcast_variables(tf.global_variables(), root_rank=0))


def is_lost(error):
    """Whether an exception means that another process has ended."""
    # The operation that has failed, not the message: that also names the operations that wait for it.
    return bool(_hvd and isinstance(error, tf.errors.OpError) and error.op is not None and
                error.op.type.startswith('Horovod'))


def compare(found):
    """Raise UserError, in all processes, unless all of them have found the same: {name: value}."""
    everywhere = gather(found)
    for other, theirs in enumerate(everywhere):
        for name, value in theirs.items():
            if value != everywhere[0][name]:
                raise UserError(f'{name} differs: it is {value} in process {other}, and {everywhere[0][name]} in '
                                'process 0. Use the same in both')


@contextlib.contextmanager
def together():
    """Work with the other processes of this run, if there are any: only the chief prints.

    Raises UserError if Horovod cannot be used, and when another process has ended.
    """
    if size() == 1:
        yield
        return
    _start()
    with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(sys.stdout if is_chief() else nowhere):
        print(f'{size()} processes train together')
        try:
            yield
        except tf.errors.OpError as error:
            if not is_lost(error):
                raise
            raise UserError('another process of the run has ended: see its message') from error


def _start():
    global _hvd
    try:
        if not tf.__version__.startswith('1.'):
            raise RuntimeError(f'it needs TensorFlow 1.15 on Python 3.7, and this is {tf.__version__}')
        import horovod.tensorflow as hvd
        hvd.init()
        if hvd.size() != size():
            raise RuntimeError('it was built without support for what started these processes: use horovodrun')
    except Exception as error:  # Horovod may be missing, or compiled for another TensorFlow or another launcher
        raise UserError(f'this is process {rank()} of {size()}, and Horovod cannot be used: {reason(error)}. Install '
                        'requirements-distributed.txt as docs/many_gpus.md says, or start one process without '
                        'horovodrun') from error
    _hvd = hvd
