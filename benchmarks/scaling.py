#!/usr/bin/env python3
"""What it costs to average the gradients over several processes: measured with the engine that is there, and computed.

    python benchmarks/scaling.py --processes 2          measures here, and computes
    python benchmarks/scaling.py                        computes the tables of docs/many_gpus.md
"""
import argparse
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))

from fcn8 import launcher, processes

if __name__ == '__main__':
    PARSER = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    PARSER.add_argument('--processes', type=int, default=1, metavar='N', help='measure with N processes here, too')
    NUMBER = PARSER.parse_args().processes
    if launcher.SIZE == 1 and NUMBER > 1:
        processes.run(NUMBER)  # before TensorFlow is loaded, which takes a GPU

from fcn8.tf1 import tf

import time
from unittest import mock

import numpy as np

from fcn8 import collectives, distributed

ROUNDS = 5
BATCH = 5  # pictures in a step of each process
CHANNELS = 3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512  # of VGG-16's input and 13 convolutions
VGG = [9 * before * after + after for before, after in zip(CHANNELS, CHANNELS[1:])] + [
    49 * 512 * 4096 + 4096, 4096 * 4096 + 4096]  # numbers in each layer, and in those of the decoder for two classes
DECODER = [2 * 4096 + 2, 4 * 16 + 2, 2 * 512 + 2, 4 * 16 + 2, 2 * 256 + 2, 4 * 256 + 2]
FLOATS = {'everything': sum(VGG + DECODER), 'the decoder': sum(DECODER)}
PROCESSES = (1, 8, 64)
IN_A_MACHINE = 8  # processes, at most

FORWARD = 77.9e9  # floating-point operations for a picture, counted by bench.py
ADAM = 7 * 4 * FLOATS['everything']  # bytes that it reads (gradients, weights, two moments) and writes (the last three)


def step_seconds(rate, memory):
    """Computed: for each picture as much as three passes forward, at `rate` operations a second, and Adam."""
    return 3 * BATCH * FORWARD / rate + ADAM / memory


# Bytes a second in each direction, and whether that is between machines
NETWORKS = (('InfiniBand HDR', 25e9, True), ('100 Gb/s Ethernet', 12.5e9, True), ('10 Gb/s Ethernet', 1.25e9, True))

# What computes a step, its seconds, the links there are. The first is measured (docs/performance.md); for the GPUs half
# of 15.7 TFLOP/s in float32 is assumed, a third of 156 TFLOP/s in TF32, and memory of 900 and 1555 GB/s.
STEPS = (('two CPU cores', 10.1, NETWORKS[-1:]),
         ('V100, float32', step_seconds(15.7e12 / 2, 900e9),
          (('NVLink 2.0', 150e9, False), ('PCIe 3.0 x16', 16e9, False)) + NETWORKS),
         ('A100, TF32', step_seconds(156e12 / 3, 1555e9),
          (('NVLink 3.0', 300e9, False), ('PCIe 4.0 x16', 32e9, False)) + NETWORKS))
USED = 0.8  # share of these rates that is assumed


def all_reduce_seconds(count, processes, rate, bytes_each=4):
    """Computed: every process sends and receives 2 (N - 1) / N of all the bytes, one half after the other, in a ring.

    Patarasuk and Yuan 2009, Bandwidth optimal all-reduce algorithms for clusters of workstations.
    """
    return 2 * (processes - 1) / processes * count * bytes_each / (USED * rate)


def compute():
    """Print the tables."""
    print('| link | 8 processes | 64 | 8, in float16 | 64, in float16 |\n' + '| --- ' * 5 + '|')
    for link, rate, between_machines in STEPS[1][2] + STEPS[2][2][:2]:
        milliseconds = ('{:.0f} ms'.format(1e3 * all_reduce_seconds(FLOATS['everything'], processes, rate, bytes_each))
                        if between_machines or processes <= IN_A_MACHINE else '-'
                        for bytes_each in (4, 2) for processes in PROCESSES[1:])
        print('| {} | {} |'.format(link, ' | '.join(milliseconds)))
    print('\n| step | link | ' + ' | '.join(map(str, PROCESSES)) + ' |\n| --- | --- |' + ' --- |' * len(PROCESSES))
    for step, seconds, links in STEPS:
        for link, rate, between_machines in links:
            speeds = [format_speed(seconds, processes, rate) if between_machines or processes <= IN_A_MACHINE else '-'
                      for processes in PROCESSES[1:]]
            print('| {}, {:.3g} s | {} | {:.3g} | {} |'.format(
                step, seconds, link, BATCH / seconds, ' | '.join(speeds)))


def format_speed(seconds, processes, rate):
    """Pictures a second, where the reduction begins at the end of the step, and where it hides behind it."""
    reduction = all_reduce_seconds(FLOATS['everything'], processes, rate)
    slow, fast = seconds + reduction, max(seconds, reduction)
    return (f'{BATCH * processes / slow:.0f} to {BATCH * processes / fast:.0f} '
            f'({seconds / slow:.0%} to {seconds / fast:.0%})')


def measure():
    """Print the median time to average some gradients, without the first; in TensorFlow 2 in several buckets."""
    for name, sizes in (('everything', VGG + DECODER), ('the decoder', DECODER)):
        for bucket in (collectives.BUCKET, 1, 1e12) if launcher.WORKERS else (0,):
            with tf.Graph().as_default(), distributed.session() as sess, \
                    mock.patch.object(collectives, 'BUCKET', bucket):
                variables = [tf.Variable(tf.ones([size])) for size in sizes]
                sess.run([variable.initializer for variable in variables])
                optimizer = distributed.average_gradients(tf.train.GradientDescentOptimizer(1.))
                gradients = optimizer.compute_gradients(tf.add_n([tf.reduce_sum(tf.square(v)) / 2 for v in variables]))
                average = tf.group(*(gradient for gradient, _ in gradients))
                seconds = []
                for _ in range(1 + ROUNDS):
                    distributed.gather(None)  # so that all begin at once
                    start = time.time()
                    sess.run(average)
                    seconds.append(time.time() - start)
            buckets = f' in buckets of {bucket:.0e} bytes' * bool(bucket)
            print(f'{launcher.SIZE} processes here, gradients of {name}{buckets}: {np.median(seconds[1:]):.4g} s',
                  flush=True)


if __name__ == '__main__':
    if launcher.SIZE > 1:
        with distributed.together():
            measure()
    if launcher.RANK == 0:
        compute()
