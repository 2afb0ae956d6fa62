#!/usr/bin/env python3
"""Trains the demo for so long that the loss jumps with the published Adam at a constant rate:

    python benchmarks/stability.py                      as main.py trains, with the norm of the gradients clipped and
                                                        a larger epsilon
    python benchmarks/stability.py --clip-norm 0        with the published Adam, which does not clip; also --beta2,
                                                        --epsilon
    python benchmarks/stability.py --clip-norm 0 --layers
                                                        also the steps around the highest jump, layer by layer

250 epochs of 12 steps for each of three seeds, the demo's scenes at 96x320. An epoch jumps by its cross entropy over
the lowest before it; the first 30 epochs are left out.
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))

from fcn8.tf1 import tf

import argparse
from unittest import mock

import numpy as np
from tqdm import tqdm

import helper
import main
from fcn8.data import demo
from fcn8.settings import Settings
from fcn8.training import variables

SHAPE = 96, 320
SETTLED = 30  # epochs from which on a jump counts
JUMP = 1.5  # a jump of more than this is counted
AROUND = 8  # steps shown before and after the highest jump
FIRST_LAYERS = 'conv1_1', 'conv3_1', 'conv5_1', 'fc6', 'fc7'  # shown of VGG-16, and the kernels of the decoder


class WatchedAdam(tf.train.AdamOptimizer):
    """The published Adam, which records what a step does to each kernel.

    norm: of all gradients, before they are clipped.
    layers: {name: float32 [3]}, root mean squares of gradient and step, and the root of the mean second moment.
    """

    def __init__(self, learning_rate, **settings):
        super().__init__(learning_rate, **settings)
        self.norm, self.layers = None, {}

    def compute_gradients(self, *args, **kwargs):
        grads_and_vars = super().compute_gradients(*args, **kwargs)
        self.norm = tf.global_norm([gradient for gradient, _ in grads_and_vars])
        return grads_and_vars

    def apply_gradients(self, grads_and_vars, global_step=None, name=None):
        grads_and_vars = list(grads_and_vars)
        train_op = super().apply_gradients(grads_and_vars, global_step, name)
        with tf.control_dependencies([train_op]):
            _, beta2_power = self._get_beta_accumulators()
            correction = tf.sqrt(1 - beta2_power / self._beta2)  # that of the first moment has long become 1
            for gradient, variable in grads_and_vars:
                if variable.shape.ndims == 4:
                    first, second = (tf.identity(self.get_slot(variable, name)) for name in 'mv')
                    self.layers[variable.op.name] = tf.stack([
                        _root_mean_square(gradient),
                        _root_mean_square(self._lr * correction * first / (tf.sqrt(second) + self._epsilon)),
                        tf.sqrt(tf.reduce_mean(second))])
        return train_op


class WatchedClippedAdam(main.ClippedAdam, WatchedAdam):
    """The Adam of main.py, watched: it clips the gradients and passes them on to WatchedAdam."""


def _root_mean_square(values):
    return tf.sqrt(tf.reduce_mean(tf.square(values)))


def train(data_dir, epochs, seed, clip_norm, adam):
    """Train everything; returns the cross entropy of each epoch, and of each step (loss, norm, layers).

    clip_norm: 0 for the published Adam, otherwise it is that of main.py with this limit.
    adam: settings of either that are to differ, such as epsilon.
    """
    settings = Settings(data_dir=data_dir, epochs=epochs, seed=seed, image_shape=SHAPE)
    get_batches_fn = helper.gen_batch_function(settings.training_folder, SHAPE, seed)
    optimizers, steps, history = [], [], []

    def make_optimizer(learning_rate, **of_main):
        optimizers.append(WatchedClippedAdam(learning_rate, **dict(of_main, **adam)) if clip_norm else
                          WatchedAdam(learning_rate, **adam))
        return optimizers[0]

    with tf.Graph().as_default(), tf.Session() as sess:
        tf.set_random_seed(seed)
        input_image, keep_prob, *vgg_layers = main.load_vgg(sess, settings.vgg_path)
        nn_last_layer = main.layers(*vgg_layers, num_classes=2)
        correct_label, learning_rate = tf.placeholder(tf.bool, [None, None, None, 2]), tf.placeholder(tf.float32)
        with mock.patch.multiple(main, ClippedAdam=make_optimizer, CLIP_NORM=clip_norm):
            _, train_op, cross_entropy_loss = main.optimize(nn_last_layer, correct_label, learning_rate, 2)
        variables.initialize(sess, {})
        watched = [cross_entropy_loss, optimizers[0].norm, optimizers[0].layers]
        for _ in tqdm(range(epochs), desc=f'Seed {seed}', unit='epoch', leave=False):
            losses, counts = [], []
            for images, labels in get_batches_fn(settings.batch_size):
                _, step = sess.run([train_op, watched], {
                    input_image: images, correct_label: labels, keep_prob: settings.keep_prob,
                    learning_rate: settings.learning_rate})
                steps.append(step)
                losses.append(step[0])
                counts.append(len(labels))
            history.append(np.average(losses, weights=counts))
    return np.array(history), steps


def show_jump(steps):
    """Print the steps around the one whose loss jumps the highest, over the median of the 50 before it.

    The first quarter of the steps is left out.
    """
    losses = np.array([loss for loss, _, _ in steps])
    jumps = [losses[index] / np.median(losses[index - 50:index]) for index in range(len(steps) // 4, len(steps))]
    highest = len(steps) // 4 + int(np.argmax(jumps))
    names = [name for name in steps[0][2] if name.split('/')[0] in FIRST_LAYERS + ('decoder',)
             and 'transpose' not in name]
    print('gradient, step and second moment (its root) of ' + ', '.join(names))
    for index in range(max(highest - AROUND, 0), min(highest + AROUND, len(steps))):
        loss, norm, layers = steps[index]
        print(f'step {index + 1:5d}  loss {loss:.4f}  norm {norm:7.3f}  ' + '  '.join(
            '{:.1e} {:.1e} {:.1e}'.format(*layers[name]) for name in names))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--epochs', type=int, default=250)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--beta2', type=float, default=argparse.SUPPRESS)
    parser.add_argument('--epsilon', type=float, default=argparse.SUPPRESS)
    parser.add_argument('--clip-norm', type=float, default=main.CLIP_NORM)
    parser.add_argument('--layers', action='store_true')
    arguments = parser.parse_args()
    if arguments.epochs <= SETTLED:
        parser.error(f'jumps are counted after epoch {SETTLED}: ask for more --epochs')
    return arguments


if __name__ == '__main__':
    ADAM = vars(parse_arguments())
    EPOCHS, SEEDS, CLIP, LAYERS = (ADAM.pop(name) for name in ('epochs', 'seeds', 'clip_norm', 'layers'))
    DEMO = demo.prepare(Settings())
    print('seed  lowest cross entropy  last  last/lowest  highest jump  epochs above ' + str(JUMP))
    for SEED in SEEDS:
        HISTORY, STEPS = train(DEMO, EPOCHS, SEED, CLIP, ADAM)
        RATIOS = HISTORY[SETTLED:] / np.minimum.accumulate(HISTORY)[SETTLED - 1:-1]
        print(f'{SEED:4d}  {HISTORY.min():20.4f}  {HISTORY[-1]:.4f}  {HISTORY[-1] / HISTORY.min():7.2f}  '
              f'{RATIOS.max():12.2f}  {(RATIOS > JUMP).sum():6d}')
        if LAYERS:
            show_jump(STEPS)
