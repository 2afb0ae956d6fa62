"""TensorFlow's own engine for several processes: collective ops, in sessions of a server in each process.

All processes build their graphs in the same order, so numbers that are counted identify the ops that belong together.
"""
import itertools
import os
import pickle
import threading
import time

import numpy as np

from fcn8 import launcher, lifeline
from fcn8.errors import UserError, reason
from fcn8.tf1 import tf

BUCKET = 1e8  # bytes of gradients that are averaged at once, about
ON_CPU, ANYWHERE = 1, 2  # keys of groups: all members of a group have to be of one type of device
CONNECTION_LIMIT = 60  # seconds for the first exchange, once all processes are there


class Collectives:
    """What distributed.py needs, between the processes of a TF_CONFIG.

    describe_lost_process: called with the rank of a process that has ended, for the line to end with.

    Raises UserError if this process cannot listen at its address, and if another one does not come.
    """

    def __init__(self, describe_lost_process):
        self._describe_lost_process, self._keys = describe_lost_process, itertools.count(1)
        if tf.__version__.startswith('1.'):
            raise UserError(f'TF_CONFIG needs TensorFlow 2, and this is {tf.__version__}: use horovodrun, as '
                            'docs/many_gpus.md says')
        host, port = launcher.WORKERS[launcher.RANK]
        os.environ['no_grpc_proxy'] = ','.join(name.strip('[]') for name, _ in launcher.WORKERS)  # or a proxy is asked
        try:
            self._server = tf.train.Server({'worker': ['{}:{}'.format(*worker) for worker in launcher.WORKERS]},
                                           job_name='worker', task_index=launcher.RANK, config=self._configure())
        except tf.errors.OpError as error:
            raise UserError(f'cannot listen on {host}:{port} ({reason(error)}). Is the port taken? Start again, or '
                            'change TF_CONFIG') from error
        lifeline.wait_for(launcher.WORKERS)
        workers = dict(enumerate(launcher.WORKERS))
        chief = {0: workers.pop(0)}  # watches all, and ends if one does: all others watch the chief alone
        self._stop_watching = lifeline.watch(chief if launcher.RANK else workers, self._end)
        # From outside: where the chief's port is that of another program, no op begins that could have a time limit.
        limit = threading.Timer(CONNECTION_LIMIT, self._give_up)
        limit.daemon = True
        limit.start()
        try:
            self._gather(np.array([launcher.RANK]))
        finally:
            limit.cancel()

    def _configure(self, config=None):
        config = config or tf.ConfigProto()
        config.experimental.collective_group_leader = '/job:worker/replica:0/task:0'
        config.experimental.collective_nccl = True  # between GPUs
        config.isolate_session_state = True  # or a new session finds the variables of the ones before
        config.device_filters.append(f'/job:worker/task:{launcher.RANK}')  # or each session waits for all processes
        return config

    def _give_up(self):
        os.write(2, ('\nerror: all addresses of TF_CONFIG answer, but not all have joined this training within '
                     f'{CONNECTION_LIMIT} seconds: check whether another program uses one of the ports, and the '
                     'firewall\n').encode())
        os._exit(2)

    def _end(self, lost):
        # At once, and in the lifeline's thread: the main thread may be waiting for the lost process.
        if not launcher.PARENT or launcher.RANK == (1 if lost == 0 else 0):
            os.write(2, f'\nerror: {self._describe_lost_process(lost)}\n'.encode())
        os._exit(lifeline.LOST)

    def await_loss(self, error):
        """Leave the lifeline time to end this process, if the error comes from the end of another one.

        That is also the time for the launcher to end this process where the chief has ended in the same error.
        """
        # The chief notices the end of any process, and the others that of the chief, which ends then.
        rounds = bool(launcher.RANK) + isinstance(error, tf.errors.OpError)
        time.sleep(rounds * (lifeline.PATIENCE + 3 * lifeline.INTERVAL))

    def leave(self):
        """Wait until the chief has ended: it still paints, and checks until then whether all are there."""
        self._stop_watching()
        if launcher.RANK:
            chief_has_ended = threading.Event()
            lifeline.watch({0: launcher.WORKERS[0]}, lambda rank: chief_has_ended.set())
            chief_has_ended.wait()

    def session(self, config=None):
        return tf.Session(self._server.target, config=self._configure(config))

    def gather(self, value):
        data = pickle.dumps((launcher.RANK, value))
        numbers = self._gather(np.array([len(data) // 4 + 1])).max()
        rows = self._gather(np.frombuffer(data.ljust(4 * numbers), np.int32))  # there is no gathering of bytes
        by_rank = dict(pickle.loads(row.tobytes()) for row in rows.reshape(launcher.SIZE, -1))
        return [by_rank[rank] for rank in range(launcher.SIZE)]  # TensorFlow sorts by name: task 10 before task 2

    def _gather(self, array):
        with tf.Graph().as_default(), tf.device('/cpu:0'), self.session() as sess:
            values = tf.placeholder(array.dtype, array.shape)
            return sess.run(self._collective(tf.raw_ops.CollectiveGather, ON_CPU, input=values,
                                             shape=[launcher.SIZE * len(array)]), {values: array})

    def _collective(self, op, group_key, **arguments):
        return op(group_size=launcher.SIZE, group_key=group_key, instance_key=next(self._keys), **arguments)

    def _mean(self, tensor, group_key):
        return self._collective(tf.raw_ops.CollectiveReduce, group_key, input=tensor, merge_op='Add', final_op='Div',
                                subdiv_offsets=[0])

    def mean(self, tensor):
        with tf.device('/cpu:0'):  # GPUs need all reductions in one order, and these have none
            return self._mean(tensor, ON_CPU)

    def average_gradients(self, optimizer):
        compute_gradients = optimizer.compute_gradients
        # Here, where a scaled loss has not been looked at: all have to leave out a step in which one has an overflow.
        optimizer.compute_gradients = lambda *args, **kwargs: self._average(compute_gradients(*args, **kwargs))
        return optimizer

    def _average(self, gradients_and_variables):
        """The same with averaged gradients: in a few large reductions, the first for the last layers."""
        pairs = [pair for pair in gradients_and_variables[::-1] if pair[0] is not None]
        sizes = [variable.shape.num_elements() for _, variable in pairs]
        averaged, before = [], []
        for _, bucket in itertools.groupby(range(len(pairs)), (np.cumsum(sizes) * 4 // BUCKET).__getitem__):
            bucket = list(bucket)
            with tf.control_dependencies(before):
                together = tf.concat([tf.reshape(pairs[index][0], [-1]) for index in bucket], axis=0)
                before = [self._mean(together, ANYWHERE)]
            for index, part in zip(bucket, tf.split(before[0], [sizes[index] for index in bucket])):
                averaged.append((tf.reshape(part, pairs[index][1].shape), pairs[index][1]))
        return averaged[::-1]

    def broadcast_variables(self, sess):
        sess.run(tf.group(*map(self._send if launcher.RANK == 0 else self._receive, tf.global_variables())))

    def _send(self, variable):
        with tf.device('/cpu:0'):
            return self._collective(tf.raw_ops.CollectiveBcastSend, ON_CPU, input=variable, shape=variable.shape)

    def _receive(self, variable):
        with tf.device('/cpu:0'):
            value = self._collective(tf.raw_ops.CollectiveBcastRecv, ON_CPU, T=variable.dtype.base_dtype,
                                     shape=variable.shape)
        return variable.assign(value)  # where the variable is
