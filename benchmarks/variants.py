#!/usr/bin/env python3
"""Trains FCN-8 with another decoder than the published one, to see what difference it makes:

    python benchmarks/variants.py scaled --freeze-encoder --validation 0.2
    python benchmarks/variants.py no-skips --freeze-encoder --validation 0.2

All options of main.py may follow. A run that was stopped has to be resumed in the same way.

no-skips  the scores of layer 7 alone, upsampled 32 times in one step: the paper's FCN-32s
one-skip  those of layers 7 and 4, upsampled 16 times: FCN-16s
scaled    layers 3 and 4 times 0.0001 and 0.01, as in the authors' FCN-8s that is trained in one step
          (https://github.com/shelhamer/fcn.berkeleyvision.org, voc-fcn8s-atonce)
bilinear  the transposed convolutions start as bilinear interpolation of each class by itself (section 4.3 of the paper)
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))

from fcn8 import command_line

if __name__ == '__main__':
    if not sys.argv[1:] or sys.argv[1].startswith('-'):
        sys.exit(__doc__)
    OPTIONS = command_line.begin(sys.argv[2:])  # before TensorFlow is loaded, which takes a GPU

from fcn8.tf1 import tf

from unittest import mock

import numpy as np

import main
from fcn8.settings import Settings

published_layers = main.layers


def no_skips(_, __, vgg_layer7_out, num_classes, l2=Settings.l2):
    """The decoder of FCN-32s."""
    return decoder([vgg_layer7_out], num_classes, l2)


def one_skip(_, vgg_layer4_out, vgg_layer7_out, num_classes, l2=Settings.l2):
    """The decoder of FCN-16s."""
    return decoder([vgg_layer7_out, vgg_layer4_out], num_classes, l2)


def decoder(vgg_layers, num_classes, l2):
    """main.layers on the first of layers 7, 4 and 3 alone; with all three it builds the same."""
    settings = dict(padding='same', kernel_initializer=tf.truncated_normal_initializer(stddev=0.01),
                    kernel_regularizer=lambda kernel: l2 * tf.nn.l2_loss(kernel))
    with tf.variable_scope(None, default_name='decoder'):
        scores = tf.layers.conv2d(vgg_layers[0], num_classes, 1, **settings)
        for features in vgg_layers[1:]:
            scores = tf.add(tf.layers.conv2d_transpose(scores, num_classes, 4, strides=2, **settings),
                            tf.layers.conv2d(features, num_classes, 1, **settings))
        factor = 32 // 2 ** (len(vgg_layers) - 1)
        return tf.layers.conv2d_transpose(scores, num_classes, 2 * factor, strides=factor, **settings)


def scaled(vgg_layer3_out, vgg_layer4_out, vgg_layer7_out, num_classes, l2=Settings.l2):
    """main.layers on scaled layers 3 and 4."""
    return published_layers(1e-4 * vgg_layer3_out, 1e-2 * vgg_layer4_out, vgg_layer7_out, num_classes, l2)


def bilinear(*args, **kwargs):
    """main.layers with transposed convolutions that start as bilinear interpolation."""
    transposed = tf.layers.conv2d_transpose
    with mock.patch.object(tf.layers, 'conv2d_transpose', lambda *a, **settings: transposed(
            *a, **dict(settings, kernel_initializer=bilinear_kernel))):
        return published_layers(*args, **kwargs)


def bilinear_kernel(shape, dtype=tf.float32, partition_info=None):
    """An initialiser: [2f, 2f, classes, classes] that makes a picture f times as large."""
    size, _, classes, _ = (int(side) for side in shape)
    factor = size // 2
    slope = 1 - np.abs(np.arange(size) - (factor - 0.5)) / factor
    return tf.constant(np.multiply.outer(np.multiply.outer(slope, slope), np.eye(classes)), dtype)


VARIANTS = {'no-skips': no_skips, 'one-skip': one_skip, 'scaled': scaled, 'bilinear': bilinear}

if __name__ == '__main__':
    if sys.argv[1] not in VARIANTS:
        sys.exit(__doc__)
    main.layers = VARIANTS[sys.argv[1]]
    command_line.execute(OPTIONS, main.run)
