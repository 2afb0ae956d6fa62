#!/usr/bin/env python3
"""Trains the demo for long enough that Adam at a constant rate breaks out, with the published constants and others:

    python benchmarks/stability.py                      as main.py trains
    python benchmarks/stability.py --beta2 0.999        as TensorFlow's default has it; also --epsilon, --clip-norm
    python benchmarks/stability.py --beta2 0.999 --layers
                                                        also the steps around the highest jump, layer by layer

250 epochs of 12 steps for each of three seeds, the demo's scenes at 96x320. An epoch jumps by its cross entropy over the
lowest before it; the first 30 epochs are left out.
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))

from tf1 import tf

import argparse
from unittest import mock

import numpy as np
from tqdm import tqdm

import helper
import main

SHAPE = 96, 320
SETTLED = 30  # epochs from which on a jump counts
JUMP = 1.5  # a jump of more than this is counted
AROUND = 8  # steps shown before and after the highest jump
FIRST_LAYERS = 'conv1_1', 'conv3_1', 'conv5_1', 'fc6', 'fc7'  # shown of VGG-16, and the kernels of the decoder


class WatchedAdam(tf.train.AdamOptimizer):
    """Adam that clips the norm of all gradients where clip_norm is not 0, and tells of each kernel what a step does.

    norm: of all gradients, before the clip.
    layers: {name: float32 [3]}, root mean squares of gradient and step, and the root of the mean second moment.
    """

    def __init__(self, learning_rate, clip_norm=0., **settings):
        super().__init__(learning_rate, **settings)
        self._clip_norm, self.norm, self.layers = clip_norm, None, {}

    def apply_gradients(self, grads_and_vars, global_step=None, name=None):
        gradients, variables = zip(*[(gradient, variable) for gradient, variable in grads_and_vars
                                     if gradient is not None])
        self.norm = tf.global_norm(gradients)
        if self._clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self._clip_norm, use_norm=self.norm)
        train_op = super().apply_gradients(list(zip(gradients, variables)), global_step, name)
        with tf.control_dependencies([train_op]):
            _, beta2_power = self._get_beta_accumulators()
            correction = tf.sqrt(1 - beta2_power / self._beta2)  # that of the first moment has long become 1
            for gradient, variable in zip(gradients, variables):
                if variable.shape.ndims == 4:
                    first, second = (tf.identity(self.get_slot(variable, name)) for name in 'mv')
                    self.layers[variable.op.name] = tf.stack([
                        _root_mean_square(gradient),
                        _root_mean_square(self._lr * correction * first / (tf.sqrt(second) + self._epsilon)),
                        tf.sqrt(tf.reduce_mean(second))])
        return train_op


def _root_mean_square(values):
    return tf.sqrt(tf.reduce_mean(tf.square(values)))


def train(data_dir, epochs, seed, adam):
    """Train everything; returns the cross entropy of each epoch, and of each step (loss, norm, layers).

    adam: WatchedAdam's settings.
    """
    get_batches_fn = helper.gen_batch_function(os.path.join(data_dir, 'data_road', 'training'), SHAPE, seed)
    optimizers, steps, history = [], [], []

    def make_optimizer(learning_rate, **published):
        optimizers.append(WatchedAdam(learning_rate, **dict(published, **adam)))
        return optimizers[-1]

    with tf.Graph().as_default(), tf.Session() as sess:
        tf.set_random_seed(seed)
        input_image, keep_prob, *vgg_layers = main.load_vgg(sess, os.path.join(data_dir, 'vgg'))
        nn_last_layer = main.layers(*vgg_layers, num_classes=2)
        correct_label, learning_rate = tf.placeholder(tf.bool, [None, None, None, 2]), tf.placeholder(tf.float32)
        with mock.patch.object(tf.train, 'AdamOptimizer', make_optimizer):
            _, train_op, cross_entropy_loss = main.optimize(nn_last_layer, correct_label, learning_rate, 2)
        main.initialize_new_variables(sess)
        watched = [cross_entropy_loss, optimizers[0].norm, optimizers[0].layers]
        for _ in tqdm(range(epochs), desc='Seed {}'.format(seed), unit='epoch', leave=False):
            losses, counts = [], []
            for images, labels in get_batches_fn(main.BATCH_SIZE):
                _, step = sess.run([train_op, watched], {
                    input_image: images, correct_label: labels, keep_prob: main.KEEP_PROB,
                    learning_rate: main.LEARNING_RATE})
                steps.append(step)
                losses.append(step[0])
                counts.append(len(labels))
            history.append(np.average(losses, weights=counts))
    return np.array(history), steps


def show_jump(steps):
    """Print the steps around the one with the highest loss, over the median of the 50 before it, after the first quarter."""
    losses = np.array([loss for loss, _, _ in steps])
    jumps = [losses[index] / np.median(losses[index - 50:index]) for index in range(len(steps) // 4, len(steps))]
    highest = len(steps) // 4 + int(np.argmax(jumps))
    names = [name for name in steps[0][2] if name.split('/')[0] in FIRST_LAYERS + ('decoder',)
             and 'transpose' not in name]
    print('gradient, step and second moment (its root) of ' + ', '.join(names))
    for index in range(max(highest - AROUND, 0), min(highest + AROUND, len(steps))):
        loss, norm, layers = steps[index]
        print('step {:5d}  loss {:.4f}  norm {:7.3f}  '.format(index + 1, loss, norm) + '  '.join(
            '{:.1e} {:.1e} {:.1e}'.format(*layers[name]) for name in names))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--epochs', type=int, default=250)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--beta2', type=float, default=argparse.SUPPRESS)
    parser.add_argument('--epsilon', type=float, default=argparse.SUPPRESS)
    parser.add_argument('--clip-norm', type=float, default=argparse.SUPPRESS)
    parser.add_argument('--layers', action='store_true')
    return parser.parse_args()


if __name__ == '__main__':
    ADAM = vars(parse_arguments())
    EPOCHS, SEEDS, LAYERS = (ADAM.pop(name) for name in ('epochs', 'seeds', 'layers'))
    DEMO = main.prepare_demo('data', 0)
    print('seed  lowest cross entropy  last  last/lowest  highest jump  epochs above {}'.format(JUMP))
    for SEED in SEEDS:
        HISTORY, STEPS = train(DEMO, EPOCHS, SEED, ADAM)
        RATIOS = HISTORY[SETTLED:] / np.minimum.accumulate(HISTORY)[SETTLED - 1:-1]
        print('{:4d}  {:20.4f}  {:.4f}  {:7.2f}  {:12.2f}  {:6d}'.format(
            SEED, HISTORY.min(), HISTORY[-1], HISTORY[-1] / HISTORY.min(), RATIOS.max(), (RATIOS > JUMP).sum()))
        if LAYERS:
            show_jump(STEPS)
