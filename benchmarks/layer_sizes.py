#!/usr/bin/env python3
"""Prints what each layer of the network holds and computes for a picture of 160x576, as the table of docs/fcn8.md:

    python benchmarks/layer_sizes.py data/vgg
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))

from fcn8.tf1 import tf

import argparse
import collections

import numpy as np

import main
from fcn8 import errors
from fcn8.data.classes import KITTI_ROAD
from fcn8.settings import Settings
from fcn8.training import variables

# output: [n, height, width, channels]; kernel: its side in pixels; operations: multiplications and additions
Layer = collections.namedtuple('Layer', 'name type output kernel parameters operations')


def measure(sess, feed):
    """The convolutions, transposed convolutions and poolings of the session's graph, in order: [Layer].

    feed: for one picture. What the biases and the poolings compute is not counted.
    """
    ops = [op for op in sess.graph.get_operations() if op.type in ('Conv2D', 'Conv2DBackpropInput', 'MaxPool')]
    outputs, inputs = sess.run([[tf.shape(op.outputs[0]) for op in ops], [
        tf.shape(op.inputs[2 if op.type == 'Conv2DBackpropInput' else 0]) for op in ops]], feed)
    layers = []
    for op, output, before in zip(ops, outputs, inputs):
        name, operations = op.name.rpartition('/')[0] or op.name, 0
        if op.type == 'MaxPool':
            kernel = op.get_attr('ksize')[1]
        else:
            kernel = op.inputs[1].shape.as_list()[0]
            # It is applied once for each pixel of the smaller side: behind a convolution, before a transposed one.
            pixels = min(np.prod(output[1:3]), np.prod(before[1:3]))
            operations = 2 * pixels * np.prod(op.inputs[1].shape.as_list())
        variables = tf.global_variables(name + '/')
        layers.append(Layer(name, op.type, output.tolist(), kernel,
                            sum(variable.shape.num_elements() for variable in variables), operations))
    return layers


def format_table(layers):
    """The layers as a table in Markdown, with the receptive fields of VGG-16's."""
    rows = [('layer', 'kernel', 'output', 'receptive field', 'parameters', 'GFLOP'), ('---',) * 6]
    field = step = 1  # pixels of the picture that a unit sees, and between two units
    for layer in layers:
        in_vgg = not layer.name.startswith('decoder')
        if in_vgg:
            field += (layer.kernel - 1) * step
            step *= 2 if layer.type == 'MaxPool' else 1
        rows.append((layer.name, f'{layer.kernel}x{layer.kernel}', '{}x{}x{}'.format(*layer.output[1:]),
                     f'{field}' if in_vgg else '', f'{layer.parameters:,}', f'{layer.operations / 1e9:.3f}'))
    rows.append(('all', '', '', '', f'{sum(layer.parameters for layer in layers):,}',
                 f'{sum(layer.operations for layer in layers) / 1e9:.1f}'))
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows)


def measure_fcn8(vgg_path):
    """The Layers of FCN-8 for a picture of the published size, on the VGG-16 in the folder `vgg_path`."""
    with tf.Graph().as_default(), tf.Session() as sess:
        image_input, keep_prob, *vgg_layers = main.load_vgg(sess, vgg_path)
        main.layers(*vgg_layers, num_classes=len(KITTI_ROAD))
        variables.initialize(sess, {})
        return measure(sess, {image_input: np.zeros((1,) + Settings.image_shape + (3,)), keep_prob: 1.0})


if __name__ == '__main__':
    PARSER = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    PARSER.add_argument('vgg', nargs='?', default=Settings().vgg_path, help='folder of VGG-16 (default: %(default)s)')
    ARGUMENTS = PARSER.parse_args()
    with errors.in_one_line('a device with more memory'):
        print(format_table(measure_fcn8(ARGUMENTS.vgg)))
