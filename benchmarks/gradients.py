#!/usr/bin/env python3
"""Prints how small and how large the gradients are, by which the loss scale of a training in float16 is chosen:

    python benchmarks/gradients.py --vgg data/vgg --data data/data_road                      before the first step
    python benchmarks/gradients.py --vgg data/vgg --data data/data_road --decoder-first 30   of a trained decoder

The gradients are those of a batch of the published size, computed in float32.
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))

from fcn8.tf1 import tf

import argparse
import tempfile

import numpy as np

import main
from bench import NUM_CLASSES, Job, make_batches, make_features, network, print_row, quietly
from fcn8 import errors
from fcn8.settings import COUNT_OR_ZERO, Settings
from fcn8.training import variables
from fcn8.training.callback import Callback

SCALES = 15, 18, 20  # powers of two: the first is the one with which TensorFlow starts


def train_decoder(job, epochs):
    """{name: value} of the decoder's variables after some epochs on features."""
    with tempfile.TemporaryDirectory() as folder:
        _, get_batches_fn = make_features(job, folder)
        settings = Settings(epochs=epochs, image_shape=get_batches_fn.image_shape)
        with quietly():
            return main.train_decoder(settings, get_batches_fn, Callback(settings, get_batches_fn))


def measure(job, decoder):
    """{name: the gradient's values that are not zero} of the layers' outputs, and the same of the variables."""
    with network(job) as (sess, image_input, keep_prob, nn_last_layer):
        convolutions = [op for op in sess.graph.get_operations() if op.type in ('Conv2D', 'Conv2DBackpropInput')]
        labels = tf.placeholder(tf.bool, [None, None, None, NUM_CLASSES])
        _, _, loss = main.optimize(nn_last_layer, labels, Settings.learning_rate, NUM_CLASSES)
        trained = tf.trainable_variables()
        gradients = tf.gradients(loss, [op.outputs[0] for op in convolutions] + trained)
        variables.initialize(sess, decoder)
        images, one_hot = next(make_batches(job, 'ours', seed=0)(job.batch_size))
        values = sess.run(gradients, {image_input: images, labels: one_hot, keep_prob: Settings.keep_prob})
    values = [np.abs(value[value != 0]) for value in values]
    count = len(convolutions)
    return (dict(zip([op.name.rpartition('/')[0] for op in convolutions], values)),
            dict(zip([variable.op.name for variable in trained], values[count:])))


def gradients():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--vgg', metavar='DIR', required=True, help='SavedModel to run')
    parser.add_argument('--data', metavar='DIR', required=True, help='data_road to read')
    parser.add_argument('--decoder-first', type=COUNT_OR_ZERO.parse, default=0, metavar='N',
                        help='epochs to train the decoder alone before')
    arguments = parser.parse_args()
    job = Job(arguments.vgg, arguments.data, None, Settings.batch_size, False)
    outputs, trained = measure(job, train_decoder(job, arguments.decoder_first) if arguments.decoder_first else {})
    print('The gradients of the outputs, and the share that is below the normal numbers of float16 at a scale:\n')
    print_row('layer', 'largest', 'median', *[f'2^{scale}' for scale in SCALES])
    print_row(*['---'] * (3 + len(SCALES)))
    for name, values in outputs.items():
        print_row(name, f'{values.max():.1e}', f'{np.median(values):.1e}', *[
            f'{100 * np.mean(values * 2. ** scale < np.finfo(np.float16).tiny):.0f} %' for scale in SCALES])
    name, largest = max(((name, values.max()) for name, values in trained.items()), key=lambda pair: pair[1])
    print(f'\nThe largest gradient of a variable is {largest:.2g} ({name}): in float16 it is finite up to a scale of '
          f'2^{int(np.log2(np.finfo(np.float16).max / largest))}.')


if __name__ == '__main__':
    with errors.in_one_line('a device with more memory'):
        gradients()
