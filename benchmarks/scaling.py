#!/usr/bin/env python3
"""What it costs to average the gradients over several processes: measured where horovodrun starts it, and computed.

    horovodrun -np 2 python benchmarks/scaling.py       measures here, and computes
    python benchmarks/scaling.py                        computes the tables of docs/scaling.md
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))

import distributed  # first, before TensorFlow is loaded
from tf1 import tf

import time

import numpy as np

ROUNDS = 5
BATCH = 5  # pictures in a step of each process
FLOATS = {'everything': 134271436, 'the decoder': 10892}  # VGG-16 has 134260544 of them
PROCESSES = (1, 8, 64)

# Seconds for a step of 5 pictures. The first is measured (README, Speed); the others are computed: for each picture as
# much as three passes forward, at half of a V100's 15.7 TFLOP/s in float32, a third of an A100's 156 TFLOP/s in TF32.
FORWARD = 77.9e9  # floating-point operations for a picture, counted by bench.py
STEPS = (('two CPU cores', 10.1), ('V100, float32', 3 * BATCH * FORWARD / (15.7e12 / 2)),
         ('A100, TF32', 3 * BATCH * FORWARD / (156e12 / 3)))

LINKS = (('NVLink 2.0 (V100)', 150e9), ('PCIe 4.0 x16', 32e9), ('InfiniBand HDR', 25e9), ('100 Gb/s Ethernet', 12.5e9),
         ('10 Gb/s Ethernet', 1.25e9))  # bytes a second in each direction
USED = 0.8  # share of these rates that is taken for reached


def all_reduce_seconds(count, processes, rate, bytes_each=4):
    """Computed: every process sends and receives 2 (N - 1) / N of all the bytes, one half after the other, in a ring.

    Patarasuk and Yuan 2009, Bandwidth optimal all-reduce algorithms for clusters of workstations.
    """
    return 2 * (processes - 1) / processes * count * bytes_each / (USED * rate)


def compute():
    """Print the tables."""
    print('| link | 8 processes | 64 | 8, in float16 | 64, in float16 |\n' + '| --- ' * 5 + '|')
    for link, rate in LINKS:
        milliseconds = (1e3 * all_reduce_seconds(FLOATS['everything'], processes, rate, bytes_each)
                        for bytes_each in (4, 2) for processes in PROCESSES[1:])
        print('| {} | {} |'.format(link, ' | '.join(map('{:.0f} ms'.format, milliseconds))))
    print('\n| step | link | ' + ' | '.join(map(str, PROCESSES)) + ' |\n| --- | --- |' + ' --- |' * len(PROCESSES))
    for step, seconds in STEPS:
        for link, rate in LINKS if seconds < 1 else LINKS[-1:]:
            speeds = []
            for processes in PROCESSES:
                slow = seconds + all_reduce_seconds(FLOATS['everything'], processes, rate)
                fast = max(seconds, all_reduce_seconds(FLOATS['everything'], processes, rate))
                speeds.append('{:.0f} to {:.0f} ({:.0%} to {:.0%})'.format(
                    BATCH * processes / slow, BATCH * processes / fast, seconds / slow, seconds / fast))
            speeds[0] = '{:.3g}'.format(BATCH / seconds)
            print('| {}, {:.3g} s | {} | {} |'.format(step, seconds, link, ' | '.join(speeds)))


def measure(hvd):
    """Print the median of some all-reduces, of which the first is left out."""
    for name, count in FLOATS.items():
        for compression in ('none', 'fp16'):
            with tf.Graph().as_default(), tf.Session() as sess:
                gradient = tf.Variable(tf.ones([count]))
                mean = hvd.allreduce(gradient, compression=getattr(hvd.Compression, compression))
                sess.run(gradient.initializer)
                seconds = []
                for _ in range(1 + ROUNDS):
                    start = time.time()
                    sess.run(mean.op)
                    seconds.append(time.time() - start)
            if hvd.rank() == 0:
                print('{} processes here, gradients of {}, compression {}: {:.4g} s'.format(
                    hvd.size(), name, compression, np.median(seconds[1:])), flush=True)


if __name__ == '__main__':
    if distributed.SIZE > 1:
        import horovod.tensorflow as hvd
        hvd.init()
        measure(hvd)
    if distributed.RANK == 0:
        compute()
