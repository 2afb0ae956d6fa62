#!/usr/bin/env python3
"""The starter project's checks, for anybody's code; as a program it runs all tests of tests/, on the CPU.

Each function takes the code to be checked as an argument, such as `tests.test_layers(my_layers)` after `import
project_tests as tests`, and raises AssertionError if the check fails. Nothing of this project but the TensorFlow
interface is imported for them.
"""
import os

if __name__ == '__main__':
    os.environ['CUDA_VISIBLE_DEVICES'] = ''  # as tests/__init__.py says; before TensorFlow is loaded

from fcn8.tf1 import tf  # before other packages, as it says what is missing

import functools
import glob
import io
import multiprocessing
import sys
import unittest
from concurrent import futures
from unittest import mock

import numpy as np


def in_new_graph(check):
    @functools.wraps(check)
    def wrapper(*args):
        with tf.Graph().as_default():
            check(*args)
        print('Tests Passed')
    return wrapper


@in_new_graph
def test_load_vgg(load_vgg, tf_module):
    """load_vgg loads the SavedModel with the tag vgg16 and returns the five tensors of the graph."""
    names = ['image_input', 'keep_prob', 'layer3_out', 'layer4_out', 'layer7_out']
    tensors = [tf_module.placeholder(tf_module.float32, name=name) for name in names]
    with mock.patch.object(tf_module.saved_model.loader, 'load') as load, tf_module.Session() as sess:
        returned = load_vgg(sess, 'the/path')
    assert load.called, 'tf.saved_model.loader.load was not called'
    assert load.call_args == mock.call(sess, ['vgg16'], 'the/path'), f'loaded with {load.call_args}'
    for name, tensor, got in zip(names, tensors, returned):
        assert got is tensor, f'{name} is not the tensor of the graph'


@in_new_graph
def test_layers(layers):
    """layers gives [n, h, w, num_classes] for pictures of any size."""
    inputs = [tf.placeholder(tf.float32, [None, None, None, depth]) for depth in (256, 512, 4096)]
    output = layers(*inputs, 2)
    assert isinstance(output, tf.Tensor), f'the output is not a tensor but {output!r}'
    assert output.shape.as_list() == [None, None, None, 2], f'the output has the shape {output.shape}'
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        scores = sess.run(output, {tensor: np.ones((1, 64 // scale, 96 // scale, tensor.shape.as_list()[-1]))
                                   for tensor, scale in zip(inputs, (8, 16, 32))})
    assert scores.shape == (1, 64, 96, 2), f'a picture of 64x96 gives scores of the shape {scores.shape}'


@in_new_graph
def test_optimize(optimize):
    """optimize gives flat logits, a scalar loss and a training op that lowers it and takes any labels."""
    shape = [2, 3, 4, 2]
    last_layer = tf.Variable(tf.zeros(shape))
    correct_label = tf.placeholder(tf.float32, [None, None, None, 2])
    learning_rate = tf.placeholder(tf.float32)
    returned = optimize(last_layer, correct_label, learning_rate, 2)
    assert isinstance(returned, tuple) and len(returned) == 3, f'three values are expected, not {returned!r}'
    logits, train_op, cross_entropy_loss = returned
    assert logits.shape.as_list() == [24, 2], f'the logits have the shape {logits.shape}'
    one_hot = np.eye(2)[np.arange(24).reshape(shape[:-1]) % 2]
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        before = sess.run(cross_entropy_loss, {correct_label: one_hot})
        sess.run(train_op, {correct_label: one_hot, learning_rate: 0.01})
        after = sess.run(cross_entropy_loss, {correct_label: one_hot})
        assert np.shape(before) == (), 'the loss is not a scalar'
        assert after < before, f'the training op does not lower the loss: {before} to {after}'
        labels = np.arange(np.prod(shape)).reshape(shape)
        sess.run(train_op, {correct_label: labels, learning_rate: 0.01})
        assert np.isfinite(sess.run(last_layer)).all(), 'labels that are not a distribution break the training op'


@in_new_graph
def test_train_nn(train_nn):
    """train_nn runs the training op once a batch, fed with pictures, labels and keep_prob, epoch after epoch."""
    names = ('input_image', 'correct_label', 'keep_prob', 'learning_rate')
    inputs = [tf.placeholder(tf.float32, name=name) for name in names]
    steps = tf.Variable(0., use_resource=True)
    with tf.control_dependencies([tf.identity(tensor) for tensor in inputs[:3]]):
        train_op = steps.assign_add(1.)
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        try:
            train_nn(sess, 2, 4, lambda batch_size: np.zeros([3, 2, batch_size, 5, 5]), train_op, tf.constant(10.11),
                     *inputs)
        except tf.errors.InvalidArgumentError as error:
            raise AssertionError(f'a training step was not fed with all of {names[:3]}: {error}') from error
        assert sess.run(steps) == 6, f'two epochs of three batches made {sess.run(steps)} steps'


def test_for_kitti_dataset(data_dir):
    """data_dir/data_road holds the KITTI road set: 289 training pictures with labels, 290 test pictures."""
    for pattern, expected in (('training/image_2/*.png', 289), ('training/gt_image_2/*_road_*.png', 289),
                              ('testing/image_2/*.png', 290)):
        found = len(glob.glob(os.path.join(glob.escape(data_dir), 'data_road', pattern)))
        assert found == expected, f'{data_dir}/data_road/{pattern}: {found} files instead of {expected}'


class CountingResult(unittest.TextTestResult):
    """Also counts the tests that pass."""

    passed = 0

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed += 1


def run_file(path):
    """Run the tests of one file; returns what it logs, and the numbers of tests that passed, failed, were skipped."""
    log = io.StringIO()
    suite = unittest.defaultTestLoader.loadTestsFromName('tests.' + os.path.basename(path)[:-len('.py')])
    result = unittest.TextTestRunner(log, verbosity=2, resultclass=CountingResult).run(suite)
    failed, skipped = ({getattr(test, 'test_case', test) for test, _ in tests}  # of a test with subtests once
                       for tests in (result.failures + result.errors, result.skipped))
    return log.getvalue(), result.passed, len(failed) + len(result.unexpectedSuccesses), len(skipped)


def run_all():
    """Run all tests of the folder tests/, several files at once; returns the number of those that failed."""
    sys.stderr.write('On the CPU, where float32 is not rounded to TF32\n')
    here = os.path.dirname(os.path.abspath(__file__))
    # The largest first, so that no long one is left for the end
    paths = sorted(glob.glob(os.path.join(glob.escape(here), 'tests', 'test_*.py')), key=os.path.getsize, reverse=True)
    counts = np.zeros(3, int)
    # Not forked: TensorFlow's threads do not come along. Four, as each takes about a gigabyte.
    processes, context = min(os.cpu_count() or 1, 4), multiprocessing.get_context('spawn')
    with futures.ProcessPoolExecutor(processes, context) as pool:
        for finished in futures.as_completed([pool.submit(run_file, path) for path in paths]):
            log, *numbers = finished.result()
            sys.stderr.write(log)
            counts += numbers
    print('{} passed, {} failed, {} skipped'.format(*counts))
    return counts[1]


if __name__ == '__main__':
    sys.exit(1 if run_all() else 0)
