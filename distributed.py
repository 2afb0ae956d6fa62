"""Several processes that train one network, each with a share of the pictures: Horovod.

`horovodrun -np N python main.py` starts N processes, of the ranks 0 to N - 1. All take the same steps, each on its own
pictures: the gradients are averaged, so N batches of n pictures are one of N * n. The first process, of rank 0, alone
writes and prints. Sergeev and Del Balso 2018, https://arxiv.org/abs/1802.05799.

To be imported before TensorFlow and tqdm, which ask the environment when they are imported.
"""
import contextlib
import os
import sys

STARTERS = ('HOROVOD_', 'OMPI_COMM_WORLD_')  # of the variables by which horovodrun, or its mpirun, tells a process


def _prepare(environment):
    """Choose the GPU of this process, and silence the bars of all but the first; returns its rank and their number."""
    for starter in STARTERS:
        texts = (environment.get(starter + name, '') for name in ('RANK', 'SIZE', 'LOCAL_RANK'))
        rank, size, local_rank = (int(text) if text.isdigit() else 0 for text in texts)
        if size > 1:
            if rank:
                environment['TQDM_DISABLE'] = '1'
            gpus = environment.get('CUDA_VISIBLE_DEVICES')
            if gpus is None:
                environment['CUDA_VISIBLE_DEVICES'] = str(local_rank)
            elif ',' in gpus:  # otherwise there is none, or one that has been chosen for this process
                environment['CUDA_VISIBLE_DEVICES'] = ','.join(gpus.split(',')[local_rank:local_rank + 1])
            return rank, size
    return 0, 1


RANK, SIZE = _prepare(os.environ)

from tf1 import tf
from safety import UserError, reason


class Alone:
    """A process without others: what the processes of a run do together, for one.

    rank, size: which it is of how many.
    command: how they are started.
    first: whether it is the one that writes and prints.
    writes_features: whether it is the one of its machine that writes what all of them have computed.
    """

    rank, size, command = 0, 1, 'python main.py'
    first = writes_features = True

    def gather(self, value):
        """The values of all processes, by rank."""
        return [value]

    def mean(self, tensor):
        """The tensor's mean over the processes, to which no gradient leads."""
        return tensor

    def average_gradients(self, optimizer):
        """A tf.train.Optimizer that takes the gradients' mean over the processes."""
        return optimizer

    def broadcast_variables(self, sess):
        """Give all variables of the default graph, which have values, those of the first process."""

    def is_lost(self, error):
        """Whether an exception says that another process has ended."""
        return False

    def in_turn(self, function):
        """Call a function in one process after the other: what the first has fetched, the next ones find."""
        for rank in range(self.size):
            if rank == self.rank:
                function()
            self.gather(None)

    def compare(self, found):
        """Raise UserError, in all processes, unless all have found the same: {name: value}."""
        all_found = self.gather(found)
        for rank, its in enumerate(all_found):
            for name, value in its.items():
                if value != all_found[0][name]:
                    raise UserError('process {} has found another {} than process 0: {}, and there it is {}. Have both '
                                    'use the same'.format(rank, name, value, all_found[0][name]))


ALONE = Alone()


class Workers(Alone):
    """A process among others, which are at the same place of the program whenever they have to do with each other."""

    def __init__(self, hvd):
        self._hvd = hvd
        self.rank, self.size = hvd.rank(), hvd.size()
        self.command = 'horovodrun -np {} python main.py'.format(self.size)
        self.first, self.writes_features = self.rank == 0, hvd.local_rank() == 0

    def gather(self, value):
        with tf.Graph().as_default(), tf.Session() as sess:
            return self._hvd.allgather_object(value, session=sess, name='gather')

    def mean(self, tensor):
        return self._hvd.allreduce(tf.stop_gradient(tensor), op=self._hvd.Average)

    def average_gradients(self, optimizer):
        return self._hvd.DistributedOptimizer(optimizer)

    def broadcast_variables(self, sess):
        sess.run(self._hvd.broadcast_variables(tf.global_variables(), root_rank=0))

    def is_lost(self, error):
        # Of the operation that has failed: the message names those that wait for it, too.
        return isinstance(error, tf.errors.OpError) and error.op is not None and error.op.type.startswith('Horovod')


@contextlib.contextmanager
def join():
    """Yields what this process does together with those that were started with it: Workers, or ALONE.

    Raises UserError where there are others, but not what they need, and where another one has ended.
    """
    if SIZE == 1:
        yield ALONE
        return
    workers = _start()
    with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(sys.stdout if workers.first else nowhere):
        print('{} processes train together'.format(workers.size))
        try:
            yield workers
        except tf.errors.OpError as error:
            if not workers.is_lost(error):
                raise
            raise UserError('another process of the run has ended: see what it says')


def _start():
    """Workers; raises UserError where they cannot be had."""
    try:
        if not tf.__version__.startswith('1.'):
            raise RuntimeError('it needs TensorFlow 1.15 on Python 3.7, and this is {}'.format(tf.__version__))
        import horovod.tensorflow as hvd
        hvd.init()
        if hvd.size() != SIZE:
            raise RuntimeError('it was built without what started these processes: use horovodrun')
    except Exception as error:  # Horovod may be missing, or compiled for another TensorFlow or another starter
        raise UserError('this is process {} of {}, and Horovod cannot be used here: {}. Install '
                        'requirements-distributed.txt as the README says, or start one process without '
                        'horovodrun'.format(RANK, SIZE, reason(error)))
    return Workers(hvd)
