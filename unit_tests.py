"""The unit checks of this project, on small graphs and small pictures, without network: run by project_tests.py."""
import contextlib
import glob
import http.server
import io
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
import unittest
import urllib.request
import zipfile
from unittest import mock

from tf1 import tf

import h5py
import imageio.v2 as imageio
import numpy as np
from PIL import Image

import demo
import device
import distributed
import features
import gradients
import helper
import main
import metrics
import palettes
import project_tests
import recorder
import safety
import vgg16

HERE = os.path.dirname(os.path.abspath(__file__))
SHAPE = (64, 96)  # height, width of the small pictures


class Case(unittest.TestCase):
    """A test with a folder of its own and a new default graph."""

    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        graph = tf.Graph().as_default()
        graph.__enter__()
        self.addCleanup(graph.__exit__, None, None, None)
        self.printed = io.StringIO()
        for redirect in (contextlib.redirect_stdout(self.printed), contextlib.redirect_stderr(io.StringIO())):
            redirect.__enter__()
            self.addCleanup(redirect.__exit__, None, None, None)

    def path(self, *parts):
        path = os.path.join(self.folder, *parts)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def write_kitti(self, split='data_road/training', count=4, shape=SHAPE):
        """Bright road on a dark ground, from left to right at another place each time; black label pixels on top."""
        for number in range(count):
            picture = np.random.RandomState(number).randint(0, 60, shape + (3,)).astype(np.uint8)
            label = np.full(shape + (3,), palettes.BACKGROUND, np.uint8)
            road = np.s_[shape[0] // 2:, shape[1] * number // 8:shape[1] * (number + 4) // 8]
            picture[road] += 150
            label[road] = (255, 0, 255)
            label[:8] = palettes.DOES_NOT_COUNT
            imageio.imwrite(self.path(split, 'image_2', 'um_{:06d}.png'.format(number)), picture)
            imageio.imwrite(self.path(split, 'gt_image_2', 'um_road_{:06d}.png'.format(number)), label)
            imageio.imwrite(self.path(split, 'gt_image_2', 'um_lane_{:06d}.png'.format(number)), label[::-1])
        return os.path.join(self.folder, split)

    def write_vgg(self):
        vgg16.write_slim(self.path('vgg'), seed=1, width=1 / 64)
        return self.path('vgg')

    def assert_user_error(self, function, *args, **kwargs):
        """The function raises a UserError of one line; returns it."""
        with self.assertRaises(safety.UserError) as caught:
            function(*args, **kwargs)
        self.assertNotIn('\n', str(caught.exception))
        return str(caught.exception)


def build_fcn(sess, vgg_path):
    """What main.run() builds: (tensors to feed, logits, train_op, cross_entropy_loss)."""
    image_input, keep_prob, layer3_out, layer4_out, layer7_out = main.load_vgg(sess, vgg_path)
    correct_label = tf.placeholder(tf.float32, [None, None, None, 2])
    learning_rate = tf.placeholder(tf.float32)
    ops = main.optimize(main.layers(layer3_out, layer4_out, layer7_out, 2), correct_label, learning_rate, 2)
    main.initialize_new_variables(sess)
    return (image_input, correct_label, keep_prob, learning_rate), ops


# Checks of ours


class StarterChecks(Case):
    def test_ours(self):
        project_tests.test_load_vgg(main.load_vgg, tf)
        project_tests.test_layers(main.layers)
        project_tests.test_optimize(main.optimize)
        project_tests.test_train_nn(main.train_nn)

    def test_wrong_code_is_found(self):
        def keeps_weights(*args):
            return main.optimize(*args)[0], tf.no_op(), tf.constant(0.)

        def feeds_no_labels(sess, epochs, batch_size, get_batches_fn, train_op, loss, image, label, keep_prob, rate):
            sess.run(train_op, {image: 0, keep_prob: 0})

        for check, *wrong in ((project_tests.test_load_vgg, lambda sess, path: (None,) * 5, tf),
                              (project_tests.test_layers, lambda *args: args[0]),
                              (project_tests.test_optimize, keeps_weights),
                              (project_tests.test_train_nn, lambda *args: None),
                              (project_tests.test_train_nn, feeds_no_labels)):
            with self.subTest(check.__name__), self.assertRaises(AssertionError):
                check(*wrong)

    def test_a_main_of_the_starters_form_can_import_them(self):
        with open(self.path('main.py'), 'w') as file:
            file.write('import project_tests as tests\n'
                       'def train_nn(sess, epochs, batch_size, batches, train_op, loss, image, label, keep, rate):\n'
                       '    for _ in range(epochs):\n'
                       '        for images, labels in batches(batch_size):\n'
                       '            sess.run([train_op, loss], {image: images, label: labels, keep: 0.5})\n'
                       'tests.test_train_nn(train_nn)\n')
        process = subprocess.run([sys.executable, 'main.py'], cwd=self.folder, stdout=subprocess.PIPE,
                                 env={**os.environ, 'PYTHONPATH': HERE}, universal_newlines=True)
        self.assertEqual((process.returncode, process.stdout), (0, 'Tests Passed\n'))

    def test_kitti(self):
        for folder, name, count in (('training/image_2', 'um_{:06d}.png', 289),
                                    ('training/gt_image_2', 'um_road_{:06d}.png', 289),
                                    ('testing/image_2', 'um_{:06d}.png', 290)):
            with self.assertRaises(AssertionError):
                project_tests.test_for_kitti_dataset(self.folder)
            for number in range(count):
                open(self.path('data_road', folder, name.format(number)), 'w').close()
        project_tests.test_for_kitti_dataset(self.folder)


class LoadVgg(Case):
    def assert_refused(self, vgg_path, expected):
        with tf.Graph().as_default(), tf.Session() as sess:
            message = self.assert_user_error(main.load_vgg, sess, vgg_path)
        self.assertIn(vgg_path, message)
        self.assertRegex(message, expected)

    def test_weights_are_those_of_the_saved_model_bit_for_bit(self):
        vgg_path = self.write_vgg()
        saved = tf.train.load_checkpoint(os.path.join(vgg_path, 'variables', 'variables'))
        with tf.Session() as sess:
            build_fcn(sess, vgg_path)
            variables = {variable.op.name: variable for variable in tf.global_variables()}
            names = saved.get_variable_to_shape_map()
            self.assertEqual(len(names), 2 * len(vgg16.LAYERS))
            for name in names:
                np.testing.assert_array_equal(sess.run(variables[name]), saved.get_tensor(name), name)

    def test_missing(self):
        self.assert_refused(self.path('vgg'), 'does not exist')

    def test_wrong_tag(self):
        x = tf.Variable(1.)
        with tf.Session() as sess:
            sess.run(x.initializer)
            builder = tf.saved_model.builder.SavedModelBuilder(self.path('vgg'))
            builder.add_meta_graph_and_variables(sess, ['serve'])
            builder.save()
        self.assert_refused(self.path('vgg'), 'vgg16')

    def test_tensor_missing(self):
        with tf.Session() as sess:
            for name in ('image_input', 'keep_prob', 'layer3_out', 'layer4_out'):
                tf.placeholder(tf.float32, name=name)
            builder = tf.saved_model.builder.SavedModelBuilder(self.path('vgg'))
            builder.add_meta_graph_and_variables(sess, ['vgg16'])
            builder.save()
        self.assert_refused(self.path('vgg'), 'layer7_out')

    def test_a_path_that_tensorflow_takes_for_a_pattern(self):
        self.write_vgg()
        os.rename(self.path('vgg'), self.path('a[1]', 'vgg'))
        self.assert_refused(self.path('a[1]', 'vgg'), r'with \[ or')

    def test_damaged(self):
        def cut(path):
            with open(path, 'r+b') as file:
                file.truncate(os.path.getsize(path) // 2)
        for part, damage, expected in (('saved_model.pb', cut, 'saved_model.pb'),
                                       ('variables/variables.data-00000-of-00001', cut, 'vgg/variables, are'),
                                       ('variables/variables.index', cut, 'vgg/variables, are'),
                                       ('variables', shutil.rmtree, 'vgg/variables, are')):
            with self.subTest(part):
                shutil.rmtree(self.path('vgg'), ignore_errors=True)
                vgg_path = self.write_vgg()
                damage(os.path.join(vgg_path, part))
                self.assert_refused(vgg_path, expected)


class Layers(Case):
    def build(self, l2=1e-3):
        inputs = [tf.placeholder(tf.float32, [None, None, None, depth]) for depth in (4, 5, 6)]
        return inputs, main.layers(*inputs, 3, l2=l2)

    def test_is_fcn_8(self):
        """The output is that of the paper's formula, computed with plain convolutions from the same kernels."""
        inputs, output = self.build()
        random = np.random.RandomState(0)
        features = [random.normal(size=(2, 64 // scale, 96 // scale, tensor.shape.as_list()[-1])).astype(np.float32)
                    for tensor, scale in zip(inputs, (8, 16, 32))]
        kernels = {tuple(v.shape.as_list()): v for v in tf.trainable_variables() if v.shape.ndims == 4}
        up2 = [v for v in tf.trainable_variables() if v.shape.as_list() == [4, 4, 3, 3]]
        self.assertEqual(sorted(kernels), [(1, 1, 4, 3), (1, 1, 5, 3), (1, 1, 6, 3), (4, 4, 3, 3), (16, 16, 3, 3)])
        self.assertEqual(len(tf.trainable_variables()), 12)
        with tf.Session() as sess:
            sess.run(tf.global_variables_initializer())
            got = sess.run(output, dict(zip(inputs, features)))
            score3, score4, score7 = [feature.dot(sess.run(kernels[1, 1, depth, 3])[0, 0])
                                      for feature, depth in zip(features, (4, 5, 6))]
            first, second = sess.run(up2)
            last = sess.run(kernels[16, 16, 3, 3])
        fused = upsample(upsample(score7, first, 2) + score4, second, 2) + score3
        np.testing.assert_allclose(got, upsample(fused, last, 8), rtol=1e-4, atol=1e-8)

    def test_kernels_start_small(self):
        self.build()
        with tf.Session() as sess:
            sess.run(tf.global_variables_initializer())
            for variable in tf.trainable_variables():
                value = sess.run(variable)
                self.assertLess(abs(value).max(), 0.1, variable.name)
                self.assertEqual(value.any(), variable.shape.ndims == 4, variable.name)

    def test_regularisation_is_half_the_squared_kernels(self):
        self.build(l2=0.5)
        with tf.Session() as sess:
            sess.run(tf.global_variables_initializer())
            kernels = sess.run([v for v in tf.trainable_variables() if v.shape.ndims == 4])
            self.assertAlmostEqual(sess.run(tf.losses.get_regularization_loss()),
                                   0.5 * sum((kernel ** 2).sum() for kernel in kernels) / 2, places=5)


def upsample(x, kernel, factor):
    """Transposed convolution, slowly: every input pixel stamps the kernel [2f, 2f, out, in] onto the output."""
    n, height, width, _ = x.shape
    canvas = np.zeros((n, factor * (height + 1), factor * (width + 1), kernel.shape[2]))
    for row in range(height):
        for column in range(width):
            canvas[:, factor * row:factor * (row + 2), factor * column:factor * (column + 2)] += np.einsum(
                'ni,kloi->nklo', x[:, row, column], kernel)
    margin = factor // 2
    return canvas[:, margin:margin + factor * height, margin:margin + factor * width]


class Optimize(Case):
    def setUp(self):
        super().setUp()
        random = np.random.RandomState(0)
        self.scores = random.normal(size=(2, 3, 4, 2)).astype(np.float32)
        self.labels = np.eye(2)[random.randint(2, size=(2, 3, 4))]
        self.labels[0, :2] = 0  # does not count

    def step(self, steps=1, labels=None, learning_rate=0.01, kernel=None, loss_scaling=False):
        """Run training steps; returns the loss before and the scores after them."""
        last_layer = tf.Variable(self.scores)
        if kernel is not None:
            tf.add_to_collection(tf.GraphKeys.REGULARIZATION_LOSSES, tf.nn.l2_loss(kernel))
        correct_label, rate = tf.placeholder(tf.float32, [None] * 3 + [2]), tf.placeholder(tf.float32)
        _, train_op, loss = main.optimize(last_layer, correct_label, rate, 2, loss_scaling)
        feed = {correct_label: self.labels if labels is None else labels, rate: learning_rate}
        with tf.Session() as sess:
            sess.run(tf.global_variables_initializer())
            before = sess.run(loss, feed)
            for _ in range(steps):
                sess.run(train_op, feed)
            return before, sess.run(last_layer), None if kernel is None else sess.run(kernel)

    def test_loss_is_the_mean_over_the_pixels_that_count(self):
        probability = np.exp(self.scores) / np.exp(self.scores).sum(axis=-1, keepdims=True)
        expected = -np.log(probability[self.labels == 1]).mean()
        self.assertAlmostEqual(self.step()[0], expected, places=5)

    def test_pixels_that_do_not_count_are_left_alone(self):
        after = self.step(steps=5)[1]
        np.testing.assert_array_equal(after[0, :2], self.scores[0, :2])
        self.assertTrue((after[1] != self.scores[1]).all())

    def test_labels_of_any_number_type(self):
        for dtype in (tf.bool, tf.int32, tf.float64):
            main.optimize(tf.Variable(self.scores), tf.placeholder(dtype, [None] * 3 + [2]), 0.1, 2)

    def test_loss_scaling_changes_nothing_where_nothing_vanishes(self):
        plain = self.step(steps=3)
        variables = len(tf.global_variables())
        scaled = self.step(steps=3, loss_scaling=True)
        self.assertGreater(len(tf.global_variables()), 2 * variables)  # the scale is one
        self.assertAlmostEqual(plain[0], scaled[0], places=6)
        np.testing.assert_allclose(plain[1], scaled[1], atol=1e-4)

    def test_no_pixel_counts(self):
        loss, after, _ = self.step(labels=np.zeros_like(self.labels))
        self.assertEqual(loss, 0)
        np.testing.assert_array_equal(after, self.scores)

    def test_regularisation_is_minimised_but_not_reported(self):
        kernel = tf.Variable([3., -4.])
        loss, _, kernel_after = self.step(kernel=kernel)
        self.assertAlmostEqual(loss, self.step()[0], places=6)
        np.testing.assert_allclose(kernel_after, [2.99, -3.99], rtol=1e-5)  # Adam's first step is the learning rate

    def test_the_norm_of_all_gradients_is_clipped(self):
        """A hard batch after easy ones moves two variables as Adam does with both gradients scaled to the limit."""
        first, second = tf.Variable([0.]), tf.Variable([[0.]])
        hardness, sizes = tf.placeholder(tf.float32), (3., 4.)  # a norm of 5
        tf.add_to_collection(tf.GraphKeys.REGULARIZATION_LOSSES,
                             hardness * tf.reduce_sum(sizes[0] * first + sizes[1] * second))
        for loss_scaling in (False, True):
            _, train_op, _ = main.optimize(tf.zeros([1, 1, 1, 2]), tf.ones([1, 1, 1, 2]), 0.01, 2, loss_scaling)
            norms = [main.CLIP_NORM / 10] * 3 + [main.CLIP_NORM * 100]
            with tf.Session() as sess:
                sess.run(tf.global_variables_initializer())
                for norm in norms:
                    sess.run(train_op, {hardness: norm / 5})
                moved = [value.item() for value in sess.run([first, second])]
            expected, m, v = np.zeros(2), 0, 0
            for step, norm in enumerate(norms, start=1):
                gradient = np.array(sizes) / 5 * min(norm, main.CLIP_NORM)
                m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient ** 2
                expected -= 0.01 * m / (1 - 0.9 ** step) / np.sqrt(v / (1 - 0.999 ** step))
            np.testing.assert_allclose(moved, expected, rtol=1e-3)

    def test_labels_that_are_not_one_hot(self):
        """The minimum for the label (3, 1) is the probability 3/4, and nothing diverges."""
        _, after, _ = self.step(steps=500, labels=np.full((2, 3, 4, 2), [3, 1]), learning_rate=0.05)
        probability = 1 / (1 + np.exp(after[..., 1] - after[..., 0]))
        np.testing.assert_allclose(probability, 0.75, atol=0.01)


class TrainNn(Case):
    def train(self, losses, batches=None, epochs=1):
        """train_nn on a graph whose loss is the mean of the fed pictures."""
        image, label, keep_prob, learning_rate = [tf.placeholder(tf.float32) for _ in range(4)]
        batches = batches or [(np.full((1, 2, 2, 3), loss), np.zeros((1, 2, 2, 2))) for loss in losses]
        with tf.Session() as sess:
            return main.train_nn(sess, epochs, 1, lambda batch_size: batches, tf.no_op(), tf.reduce_mean(image),
                                 image, label, keep_prob, learning_rate)

    def test_reports_the_mean_of_each_epoch(self):
        self.assertEqual(self.train([1, 2, 6], epochs=2), [3, 3])
        lines = self.printed.getvalue().splitlines()
        self.assertEqual(len(lines), 2)
        self.assertRegex(lines[1], r'Epoch 2/2: cross entropy 3\.0000, [\d.]+ pictures/s, \d+ s')

    def test_a_short_last_batch_weighs_less(self):
        batches = [(np.full((n, 2, 2, 3), loss), np.zeros((n, 2, 2, 2))) for n, loss in ((3, 1.), (1, 5.))]
        self.assertEqual(self.train([], batches), [2])

    def test_a_loss_that_is_not_finite_stops_the_run(self):
        for loss in (float('nan'), float('inf')):
            message = self.assert_user_error(self.train, [1, loss])
            self.assertIn('epoch 1', message)
            self.assertIn(str(loss), message)

    def test_no_pictures(self):
        self.assertIn('no pictures', self.assert_user_error(self.train, []))


class Training(Case):
    """Encoder, decoder, batches and overlays together, on small pictures."""

    def test_a_step_changes_every_variable_and_training_adds_nothing_to_the_graph(self):
        self.write_kitti()
        self.write_kitti('data_road/testing')
        get_batches_fn = helper.gen_batch_function(self.path('data_road', 'training'), SHAPE)
        with tf.Session() as sess:
            feeds, (logits, train_op, loss) = build_fcn(sess, self.write_vgg())
            helper.softmax_of(logits)
            before, operations = sess.run(tf.trainable_variables()), tf.get_default_graph().get_operations()
            main.train_nn(sess, 1, 4, get_batches_fn, train_op, loss, *feeds)
            after = sess.run(tf.trainable_variables())
            helper.save_inference_samples(self.path('runs'), self.folder, sess, SHAPE, logits, feeds[2], feeds[0])
            self.assertEqual(tf.get_default_graph().get_operations(), operations)
            for variable, old, new in zip(tf.trainable_variables(), before, after):
                self.assertTrue((old != new).any(), variable.name)
            self.assertEqual(len(before), 2 * len(vgg16.LAYERS) + 12)

    def test_learns_the_road(self):
        get_batches_fn = helper.gen_batch_function(self.write_kitti(), SHAPE, seed=0)
        tf.set_random_seed(0)
        with tf.Session() as sess:
            feeds, (logits, train_op, loss) = build_fcn(sess, self.write_vgg())
            history = main.train_nn(sess, 60, 2, get_batches_fn, train_op, loss, *feeds, keep_prob_value=1.,
                                    learning_rate_value=5e-3)
            self.assertLess(history[-1], history[0] / 2)
            paths, label_of = [picture for picture, _ in get_batches_fn.pairs], dict(get_batches_fn.pairs)
            scores = metrics.RoadScores()
            for path, _, probability in helper.segment(sess, logits, feeds[2], feeds[0], paths, SHAPE):
                scores.add(probability, helper.read_label(label_of[path], SHAPE))
        self.assertGreater(scores.summary()['road_iou'], 0.8)

    def test_run_is_the_same_for_the_same_seed(self):
        self.write_kitti()
        self.write_kitti('data_road/testing')
        self.write_vgg()

        def losses(seed):
            self.printed.truncate(0)
            main.run(self.folder, self.path('runs', ''), epochs=3, batch_size=2, learning_rate=1e-2, seed=seed)
            return [float(loss) for loss in re.findall(r'Epoch .*: cross entropy ([\d.]+)', self.printed.getvalue())]

        first, again, other = losses(3), losses(3), losses(4)
        self.assertEqual(len(first), 3)
        np.testing.assert_allclose(first, again, atol=2e-4)
        self.assertGreater(np.abs(np.subtract(first, other)).max(), 1e-3)

    def test_run_paints_the_test_pictures_and_scores_them_where_there_are_labels(self):
        self.write_kitti()
        testing = self.write_kitti('data_road/testing', count=2)
        self.write_vgg()
        output = main.run(self.folder, self.path('runs', ''), epochs=1)
        self.assertEqual(sorted(re.sub('tfevents.*', 'tfevents', name) for name in os.listdir(output)),
                         ['checkpoints', 'events.out.tfevents', 'history.jsonl', 'index.html', 'model', 'settings.json',
                          'um_000000.png', 'um_000001.png'])
        self.assertEqual(os.readlink(self.path('runs', 'latest')), os.path.basename(output))
        self.assertEqual(imageio.imread(os.path.join(output, 'um_000000.png')).shape, main.IMAGE_SHAPE + (3,))
        self.assertRegex(self.printed.getvalue(), r'\ntest( +[01]\.\d{4}){9}\n')
        shutil.rmtree(os.path.join(testing, 'gt_image_2'))
        self.printed.truncate(0)
        main.run(self.folder, self.path('runs', ''), epochs=1)
        self.assertNotIn('IoU', self.printed.getvalue())

    def test_run_passes_its_settings_on_and_finishes_the_graph_first(self):
        self.write_kitti()
        self.write_kitti('data_road/testing', count=1)
        self.write_vgg()
        settings = dict(epochs=7, batch_size=3, learning_rate=0.1, keep_prob=0.2)
        with mock.patch.object(main, 'train_nn') as train_nn, \
                mock.patch.object(main, 'layers', wraps=main.layers) as layers:
            def stop(sess, *args, **kwargs):
                self.assertTrue(sess.graph.finalized)
                raise KeyboardInterrupt
            train_nn.side_effect = stop
            with self.assertRaises(KeyboardInterrupt):
                main.run(self.folder, self.path('runs', ''), l2=0.3, **settings)
        (_, epochs, batch_size), (keep_prob, learning_rate) = train_nn.call_args[0][:3], train_nn.call_args[0][-2:]
        self.assertEqual(dict(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, keep_prob=keep_prob),
                         settings)
        self.assertEqual(layers.call_args[1]['l2'], 0.3)


class FrozenEncoder(Case):
    def setUp(self):
        super().setUp()
        batch_size = mock.patch.object(helper, 'INFERENCE_BATCH', 3)  # of 4 pictures: more than one batch
        batch_size.start()
        self.addCleanup(batch_size.stop)
        self.training = self.write_kitti()
        self.write_kitti('data_road/testing', count=2)
        self.write_vgg()

    def features(self, precision='float32', **settings):
        return main.compute_features(self.folder, tf.ConfigProto(), precision, **settings)

    def compute_calls(self, precision='float32', **settings):
        """How many pictures are read until the features are there."""
        with mock.patch.object(helper, 'read_picture', wraps=helper.read_picture) as read:
            self.features(precision, **settings)
        return read.call_count

    def kept(self):
        return [name for name in os.listdir(self.folder) if 'features' in name]

    def test_the_decoder_gives_the_same_logits_in_the_full_graph(self):
        pictures = np.concatenate(list(helper.read_batches(helper.list_pictures(self.training), main.IMAGE_SHAPE)))
        with tf.Session() as sess:
            vgg, vgg_features = main.load_vgg(sess, self.path('vgg')), self.features()
            before = sess.run(tf.global_variables())
            get_batches_fn = helper.gen_batch_function(self.training, main.IMAGE_SHAPE, seed=0)
            get_batches_fn.features = [vgg_features]
            decoder = main.train_decoder(get_batches_fn, recorder.Progress(), l2=1e-3, seed=0, epochs=2, batch_size=3,
                                         learning_rate=0.01, keep_prob=0.5)
            vgg_variables = tf.global_variables()
            logits = main.layers(*vgg[2:], num_classes=2)
            main.initialize_new_variables(sess, decoder)
            np.testing.assert_array_equal(np.concatenate([value.ravel() for value in before]),
                                          np.concatenate([v.ravel() for v in sess.run(vgg_variables)]))
            full = sess.run(logits, {vgg[0]: pictures, vgg[1]: 1.0})
        with tf.Graph().as_default(), tf.Session() as sess:
            frozen = main.layers(*[tf.constant(rows) for rows in vgg_features], num_classes=2)
            main.initialize_new_variables(sess, decoder)
            np.testing.assert_allclose(sess.run(frozen), full, atol=1e-5 * np.abs(full).max())
        self.assertGreater(np.ptp(full), 0)

    def test_gradients_of_few_channels(self):
        """They are those of TensorFlow, for the kernels and for the inputs, also of one that is not square."""
        random = np.random.RandomState(0)
        arrays = [random.normal(size=(2, 2 * f, 3 * f, depth)) for f, depth in ((4, 5), (2, 6), (1, 7))]
        upstream = random.normal(size=(2, 64, 96, 3))

        def gradients_with(overrides):
            with tf.Graph().as_default() as graph, tf.Session() as sess:
                tf.set_random_seed(0)
                inputs = [tf.constant(array, tf.float32) for array in arrays]
                with graph.gradient_override_map(overrides):
                    scores = main.layers(*inputs, num_classes=3)
                sess.run(tf.global_variables_initializer())
                return sess.run(tf.gradients(scores, inputs + tf.trainable_variables(),
                                             tf.constant(upstream, tf.float32)))

        expected = gradients_with({})
        self.assertEqual(len(expected), 3 + 12)
        for ours, theirs in zip(gradients_with(gradients.OF_FEW_CHANNELS), expected):
            self.assertEqual(ours.shape, theirs.shape)
            np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())

    def test_features_are_computed_again_only_when_something_has_changed(self):
        self.assertEqual(self.compute_calls(), 4)
        self.assertEqual(self.compute_calls(), 0)
        self.assertEqual(len(self.kept()), 1)

        def other_weights():
            shutil.rmtree(self.path('vgg'))
            vgg16.write_slim(self.path('vgg'), seed=2, width=1 / 64)

        def other_picture():
            picture = os.path.join(self.training, 'image_2', 'um_000001.png')
            Image.fromarray(imageio.imread(picture)[::-1]).save(picture)

        def not_whole():
            with open(self.path(*self.kept()), 'r+b') as file:
                file.truncate(100000)

        def replaced_by(content):
            def replace():
                with open(self.path(*self.kept()), 'wb') as file:
                    file.write(content)
            return replace

        def other_array():
            with open(self.path(*self.kept()), 'wb') as file:
                np.save(file, np.zeros((4, 2)))

        for change in (other_weights, other_picture, not_whole, other_array, replaced_by(b'something else'),
                       replaced_by(b''), replaced_by(b'PK'), replaced_by(b'\x93NUMPY\x01\x00\x02\x00{(')):
            with self.subTest(change.__name__):
                change()
                self.assertEqual(self.compute_calls(), 4)
                self.assertEqual(self.compute_calls(), 0)
                self.assertEqual(len(self.kept()), 1)
        self.assertEqual(self.compute_calls('bfloat16'), 4)
        self.assertEqual(self.compute_calls('float32'), 0)
        with open(self.path('features-float32-mine.npy'), 'w'):
            pass
        self.assertEqual(self.compute_calls(image_shape=(64, 64)), 4)
        self.assertEqual(len(self.kept()), 3)

    def test_features_are_those_of_the_pictures_in_order(self):
        with tf.Session() as sess:
            vgg, vgg_features = main.load_vgg(sess, self.path('vgg')), self.features()
            for number, path in enumerate(helper.list_pictures(self.training)):
                picture = helper.read_picture(path, main.IMAGE_SHAPE)
                for layer, rows in zip(sess.run(vgg[2:], {vgg[0]: [picture], vgg[1]: 1.0}), vgg_features):
                    np.testing.assert_allclose(rows[number], layer[0], atol=1e-5 * np.abs(layer).max())

    def test_features_are_kept_whole_or_not_at_all(self):
        def stop():
            yield [np.zeros((2, 3), np.float32)]
            raise KeyboardInterrupt

        def large():
            yield [np.zeros((2, 100000), np.float32)]

        with self.assertRaises(KeyboardInterrupt):
            features.compute_once(self.folder, 'x', [], '', 4, stop, distributed.ALONE)
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100000, limit[1]))
        try:
            with self.assertRaisesRegex(safety.UserError, 'features-.*cannot be written .File too large'):
                features.compute_once(self.folder, 'x', [], '', 2, large, distributed.ALONE)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        self.assertEqual(self.kept(), [])

    def test_gradients_of_other_convolutions_are_refused(self):
        x = tf.zeros([1, 8, 8, 2])
        with tf.get_default_graph().gradient_override_map(gradients.OF_FEW_CHANNELS):
            for convolution in (lambda: tf.layers.conv2d(x, 2, 3), lambda: tf.layers.conv2d(x, 2, 1, strides=2),
                                lambda: tf.layers.conv2d_transpose(x, 2, 3, strides=2, padding='same'),
                                lambda: tf.layers.conv2d_transpose(x, 2, 4, strides=2)):
                scores = convolution()
                with self.assertRaisesRegex(ValueError, 'OF_FEW_CHANNELS is for'):
                    tf.gradients(scores, tf.trainable_variables()[-2:])

    def test_run(self):
        outputs = []
        for write in (features._write, None):  # the second run finds what the first has kept
            with mock.patch.object(features, '_write', write):
                output = main.run(self.folder, self.path('runs', ''), epochs=12, batch_size=2, learning_rate=0.01,
                                  freeze_encoder=True)
            outputs.append([imageio.imread(path) for path in sorted(glob.glob(os.path.join(output, '*.png')))])
        self.assertEqual([len(output) for output in outputs], [2, 2])
        losses = [float(loss) for loss in re.findall(r'Epoch .*: cross entropy ([\d.]+)', self.printed.getvalue())]
        self.assertEqual(len(losses), 24)
        self.assertLess(losses[11], losses[0] / 1.5)
        np.testing.assert_allclose(losses[:12], losses[12:], atol=2e-4)


class Precision(Case):
    def choose(self, gpus=(), tensor_cores=False, bfloat16=False, image_shape=main.IMAGE_SHAPE):
        self.printed.truncate(0)
        with mock.patch.object(tf.config.experimental, 'list_physical_devices', return_value=list(gpus)), \
                mock.patch.object(tf.test, 'is_gpu_available', return_value=tensor_cores), \
                mock.patch.object(device, 'cpu_has_bfloat16', return_value=bfloat16):
            config, precision = device.choose_precision(True, image_shape)
        self.assertEqual('--amp has no effect' in self.printed.getvalue(), precision == 'float32')
        return config.graph_options.rewrite_options, precision

    def test_the_best_that_the_device_has(self):
        self.assertEqual(self.choose()[1], 'float32')
        self.assertEqual(self.choose(['GPU'])[1], 'float32')
        rewriter, precision = self.choose(['GPU'], tensor_cores=True)
        self.assertEqual((rewriter.auto_mixed_precision, precision), (rewriter.ON, 'float16'))
        rewriter, precision = self.choose(bfloat16=True)
        if tf.__version__.startswith('1.'):
            self.assertEqual(precision, 'float32')
        else:
            self.assertEqual((rewriter.auto_mixed_precision_onednn_bfloat16, precision), (rewriter.ON, 'bfloat16'))
            self.assertEqual(self.choose(bfloat16=True, image_shape=(96, 320))[1], 'float32')

    def test_nothing_without_amp(self):
        self.assertEqual(device.choose_precision(False, main.IMAGE_SHAPE), (tf.ConfigProto(), 'float32'))

    def test_run(self):
        self.write_kitti()
        self.write_kitti('data_road/testing')
        self.write_vgg()

        def losses(amp):
            self.printed.truncate(0)
            main.run(self.folder, self.path('runs', ''), epochs=2, batch_size=2, learning_rate=1e-2, amp=amp)
            return [float(loss) for loss in re.findall(r'Epoch .*: cross entropy ([\d.]+)', self.printed.getvalue())]

        np.testing.assert_allclose(losses(amp=True), losses(amp=False), rtol=0.1)

    def test_the_choice_reaches_the_session_and_the_optimizer(self):
        self.write_kitti()
        self.write_kitti('data_road/testing')
        self.write_vgg()
        config = tf.ConfigProto()
        with mock.patch.object(device, 'choose_precision', return_value=(config, 'float16')), \
                mock.patch.object(tf, 'Session', wraps=tf.Session) as session, \
                mock.patch.object(main, 'optimize', wraps=main.optimize) as optimize:
            main.run(self.folder, self.path('runs', ''), epochs=1, amp=True)
        self.assertIn(mock.call(config=config), session.call_args_list)
        self.assertIs(optimize.call_args_list[0][0][-2], True)
        self.assertIn('in float16', self.printed.getvalue())


class Duration(Case):
    def say(self, seconds_per_step, batches):
        """What is printed for 50 epochs of 20 pictures in so many batches, when the first step takes 99 seconds."""
        clock = iter([0, 99] + [99 + seconds_per_step * step for step in range(1, 999)])

        def get_batches_fn(batch_size):
            return iter(batches)
        get_batches_fn.pictures = 20
        timed = main.tell_duration(get_batches_fn, recorder.Progress(), 50)
        with mock.patch.object(main.time, 'time', lambda: next(clock)):
            epochs = [batch for _ in range(50) for batch in timed(20 // len(batches))]
        self.assertEqual(epochs, batches * 50)
        self.assertEqual(timed.pictures, 20)
        return self.printed.getvalue()

    def test_a_long_training_says_so_once_and_names_the_way_out(self):
        said = self.say(18., list('abcd'))
        self.assertEqual(said.count('1.0 hours'), 1)
        self.assertIn('--freeze-encoder', said)

    def test_epochs_of_one_step(self):
        self.assertIn('1.0 hours', self.say(72., ['a']))

    def test_a_short_training_does_not(self):
        self.assertEqual(self.say(2., list('abcd')), '')

    def test_run_says_it_without_a_gpu_where_the_encoder_is_trained(self):
        self.write_kitti()
        self.write_kitti('data_road/testing', count=1)
        self.write_vgg()
        for gpu, freeze_encoder, expected in ((False, False, 1), (False, True, 0), (True, False, 0)):
            self.printed.truncate(0)
            with mock.patch.object(main, 'LONG_TRAINING', 0), \
                    mock.patch.object(device, 'report_device', return_value=gpu):
                main.run(self.folder, self.path('runs', ''), epochs=2, batch_size=2, freeze_encoder=freeze_encoder)
            self.assertEqual(self.printed.getvalue().count('--freeze-encoder'), expected)


class Benchmarks(Case):
    def bench(self):
        sys.path.insert(0, os.path.join(HERE, 'benchmarks'))
        self.addCleanup(sys.path.remove, os.path.join(HERE, 'benchmarks'))
        import bench
        arguments = ['bench.py', '--vgg', self.path('vgg'), '--data', self.path('data_road'), '--rounds', '1']
        with mock.patch.object(sys, 'argv', arguments), mock.patch.object(bench, 'GPU_STEP', 0), \
                mock.patch.object(main, 'IMAGE_SHAPE', SHAPE), \
                mock.patch.object(bench, 'in_a_process', lambda function, *args: (function(*args), 1.)):
            bench.bench()

    def test_what_is_wrong_is_said_before_the_tables(self):
        self.assert_user_error(self.bench)
        self.write_kitti()
        self.write_kitti('data_road/testing', count=3)
        self.assertIn('not the VGG-16 model', self.assert_user_error(self.bench))
        self.write_vgg()
        os.remove(self.path('data_road/training/gt_image_2/um_road_000001.png'))
        self.assertIn('um_road_000001.png is missing', self.assert_user_error(self.bench))
        self.assertEqual(self.printed.getvalue(), '')

    def test_every_table_is_printed(self):
        self.write_kitti()
        testing = self.write_kitti('data_road/testing', count=3)
        os.rename(os.path.join(testing, 'image_2', 'um_000002.png'), os.path.join(testing, 'image_2', 'street.png'))
        self.write_vgg()
        self.bench()
        rows = [line.split('|')[1].strip() for line in self.printed.getvalue().splitlines() if line.startswith('|')]
        for name in ('batches, later epochs', 'inference, from file to file', 'fine-tuning step',
                     'decoder step, VGG-16 frozen', '4', '10'):
            self.assertIn(name, rows)
        self.assertRegex(self.printed.getvalue(), r'forward pass takes [\d.]+ GFLOP')
        self.assertIn('Of the pixels of the overlays 0 differ', self.printed.getvalue())


class Batches(Case):
    def one_label(self, label, shape=None):
        """The one-hot label that comes of a label picture."""
        label = np.array(label, np.uint8)
        self.write_pair(Image.new('RGB', label.shape[1::-1], (9, 9, 9)), Image.fromarray(label))
        batches = helper.gen_batch_function(self.path('d'), shape or label.shape[:2])(1)
        (one_hot,) = [labels[0] for images, labels in batches if images.max() == 9]
        return one_hot

    def write_pair(self, picture, label, name='um_000000.png'):
        """Write a picture and its label, and beside them another black pair with labels of both classes."""
        picture.save(self.path('d', 'image_2', name))
        label.save(self.path('d', 'gt_image_2', 'um_road_000000.png'))
        Image.new('RGB', (64, 64)).save(self.path('d', 'image_2', 'uu_000000.png'))
        both = np.full((64, 64, 3), palettes.BACKGROUND, np.uint8)
        both[:, 32:] = (255, 0, 255)
        imageio.imwrite(self.path('d', 'gt_image_2', 'uu_road_000000.png'), both)

    def picture_as_read(self, image, name='um_000000.png'):
        """What a picture comes back as, at its own size."""
        self.write_pair(image, Image.new('RGB', image.size, palettes.BACKGROUND), name)
        batches = helper.gen_batch_function(self.path('d'), image.size[::-1])(1)
        (picture,) = [images[0] for images, _ in batches if images.any()]
        return picture

    def test_shapes_types_and_a_short_last_batch(self):
        get_batches_fn = helper.gen_batch_function(self.write_kitti(count=5), (32, 48))
        self.assertEqual(get_batches_fn.pictures, 5)
        batches = list(get_batches_fn(2))
        self.assertEqual([images.shape for images, _ in batches], [(n, 32, 48, 3) for n in (2, 2, 1)])
        self.assertEqual([labels.shape for _, labels in batches], [(n, 32, 48, 2) for n in (2, 2, 1)])
        self.assertEqual(batches[0][0].dtype, np.uint8)

    def test_picture_and_label_belong_together(self):
        for images, labels in helper.gen_batch_function(self.write_kitti(), SHAPE)(3):
            bright = images.min(axis=-1) >= 150
            np.testing.assert_array_equal(bright, labels[..., 1])

    def test_each_epoch_has_a_new_order_fixed_by_the_seed(self):
        folder = self.write_kitti(count=8)

        def epochs(seed):
            get_batches_fn = helper.gen_batch_function(folder, (8, 12), seed)
            return [np.concatenate([images for images, _ in get_batches_fn(3)]) for _ in range(2)]

        first, second = epochs(1)
        self.assertFalse(np.array_equal(first, second))
        by_content = np.lexsort(first.reshape(8, -1).T), np.lexsort(second.reshape(8, -1).T)
        np.testing.assert_array_equal(first[by_content[0]], second[by_content[1]])
        np.testing.assert_array_equal(epochs(1), [first, second])
        self.assertFalse(np.array_equal(epochs(2)[0], first))

    def test_the_order_is_the_same_for_any_number_of_threads(self):
        def read_slowly(path, image_shape):
            time.sleep(0.05 if path.endswith(('1.png', '4.png')) else 0)  # so that others are ready before
            return read_picture(path, image_shape)
        read_picture, folder, epochs = helper.read_picture, self.write_kitti(count=8), []
        for threads in (1, 7):
            with mock.patch.object(helper, 'THREADS', threads), mock.patch.object(helper, 'read_picture', read_slowly):
                get_batches_fn = helper.gen_batch_function(folder, (8, 12), seed=3, cache_mb=0)
                epochs.append([images for images, _ in get_batches_fn(1)])
        np.testing.assert_array_equal(*epochs)

    def test_what_the_cache_does_not_hold_is_read_again(self):
        shape = (256, 256)
        folder = self.write_kitti(count=8, shape=shape)
        for cache_mb, cached in ((0, 0), (1, 3), (100, 8)):  # a picture with its label takes 5/16 MiB
            get_batches_fn = helper.gen_batch_function(folder, shape, seed=0, cache_mb=cache_mb)
            for _ in range(2):
                with mock.patch.object(helper, 'read_picture', wraps=helper.read_picture) as read:
                    for images, labels in get_batches_fn(3):
                        np.testing.assert_array_equal(images.min(axis=-1) >= 150, labels[..., 1])
                self.assertEqual(read.call_count, 8 - cached)

    def test_the_cache_stays_within_its_limit(self):
        folder = self.write_kitti(count=16)
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            get_batches_fn = helper.gen_batch_function(folder, (256, 256), cache_mb=2)
            for _ in get_batches_fn(1):
                pass
            del _
            used = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        self.assertLess(used, 2.05 * 2 ** 20)
        self.assertGreater(used, 1.8 * 2 ** 20)

    def test_the_next_batches_are_read_while_the_caller_works(self):
        get_batches_fn = helper.gen_batch_function(self.write_kitti(), SHAPE, cache_mb=0)
        with mock.patch.object(helper, 'read_picture', wraps=helper.read_picture) as read:
            batches = get_batches_fn(1)
            next(batches)
            deadline = time.time() + 30
            while read.call_count < 2 and time.time() < deadline:
                time.sleep(0.01)
            self.assertGreaterEqual(read.call_count, 2)
            batches.close()

    def test_an_error_in_a_later_epoch_names_the_file(self):
        folder = self.write_kitti()
        get_batches_fn = helper.gen_batch_function(folder, SHAPE, cache_mb=0)
        path = os.path.join(folder, 'image_2', 'um_000002.png')
        with open(path, 'w') as file:
            file.write('damaged meanwhile')
        self.assertIn(path, self.assert_user_error(lambda: list(get_batches_fn(2))))

    def test_features_take_the_place_of_the_pictures(self):
        get_batches_fn = helper.gen_batch_function(self.write_kitti(), SHAPE)
        number = np.arange(4)
        get_batches_fn.features = [(number, number * 10.)]
        for (first, second), labels in get_batches_fn(3):
            np.testing.assert_array_equal(second, first * 10.)
            # write_kitti's road begins further to the right in each picture
            np.testing.assert_array_equal(labels[:, -1, :, 1].argmax(axis=1), first * SHAPE[1] // 8)

    def test_red_is_background_magenta_is_road_and_black_does_not_count(self):
        label = np.repeat(np.repeat([[(255, 0, 0), (0, 0, 0), (255, 0, 255)]], 32, axis=0), 32, axis=1)
        label = self.one_label(label, (1, 3))
        np.testing.assert_array_equal(label, [[(True, False), (False, False), (False, True)]])

    def test_labels_are_not_blended(self):
        """Between background and nothing there is no road, however the label is resized."""
        label = np.zeros((60, 90, 3), np.uint8)
        label[:, 37:] = palettes.BACKGROUND
        self.assertFalse(self.one_label(label, (32, 32))[..., 1].any())

    def test_pictures_of_different_sizes(self):
        self.write_kitti(count=2)
        self.write_kitti('other', count=3, shape=(70, 90))
        os.rename(self.path('other', 'image_2', 'um_000002.png'), self.path('data_road/training/image_2/uu_000002.png'))
        os.rename(self.path('other', 'gt_image_2', 'um_road_000002.png'),
                  self.path('data_road/training/gt_image_2/uu_road_000002.png'))
        (images, _), = helper.gen_batch_function(self.path('data_road/training'), SHAPE)(3)
        self.assertEqual(images.shape, (3,) + SHAPE + (3,))

    def test_pictures_of_other_cameras(self):
        grey = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6).repeat(8, axis=0).repeat(8, axis=1)
        rgb = np.stack([grey, grey[::-1], grey[:, ::-1]], axis=-1)
        for name, image, expected in (
                ('grey', Image.fromarray(grey), np.stack([grey] * 3, axis=-1)),
                ('16-bit grey', Image.fromarray(grey.astype(np.uint16) * 256 + 77), np.stack([grey] * 3, axis=-1)),
                ('RGBA', Image.fromarray(np.dstack([rgb, grey])), rgb),
                ('palette', Image.fromarray(rgb).quantize(256), rgb)):
            with self.subTest(name):
                np.testing.assert_array_equal(self.picture_as_read(image), expected)

    def test_jpeg(self):
        for mode, colour in (('RGB', (200, 200, 200)), ('CMYK', (55, 55, 55, 0))):
            np.testing.assert_array_equal(
                self.picture_as_read(Image.new(mode, (48, 32), colour), 'um_000000.JPG'), np.full((32, 48, 3), 200))


class Overlays(Case):
    def setUp(self):
        super().setUp()
        self.data_folder = self.write_kitti('data_road/testing', count=6, shape=(80, 120))
        # A network that finds road where a picture is bright: by red, from 100 on, and nowhere under dropout.
        self.image, self.keep_prob = tf.placeholder(tf.float32, [None, None, None, 3]), tf.placeholder(tf.float32)
        red = tf.reshape(self.image[..., 0], [-1])
        self.logits = tf.stack([tf.fill(tf.shape(red), 100.) / self.keep_prob ** 9, red], axis=1)

    def pictures(self):
        return [(name, np.asarray(Image.open(os.path.join(self.data_folder, 'image_2', name)).resize(
            SHAPE[::-1], Image.BILINEAR))) for name in sorted(os.listdir(os.path.join(self.data_folder, 'image_2')))]

    def test_road_is_half_green_and_the_rest_untouched(self):
        with tf.Session() as sess:
            outputs = list(helper.gen_test_output(
                sess, self.logits, self.keep_prob, self.image, self.data_folder, SHAPE))
        self.assertEqual(len(outputs), 6)
        for (name, painted), (expected_name, picture) in zip(outputs, self.pictures()):
            self.assertEqual(name, expected_name)
            road = picture[..., 0] > 100
            self.assertTrue(road.any() and not road.all())
            np.testing.assert_array_equal(painted[~road], picture[~road])
            expected = (picture[road] * 128. + np.array([0, 255, 0]) * 127.) / 255
            np.testing.assert_allclose(painted[road], expected, atol=1)

    def test_batches_of_pictures(self):
        with tf.Session() as sess, mock.patch.object(helper, 'INFERENCE_BATCH', 4):
            arguments = sess, self.logits, self.keep_prob, self.image, self.data_folder, SHAPE
            four = list(helper.gen_test_output(*arguments))
            with mock.patch.object(helper, 'INFERENCE_BATCH', 1):
                one = list(helper.gen_test_output(*arguments))
        self.assertEqual([name for name, _ in four], ['um_{:06d}.png'.format(number) for number in range(6)])
        self.assertEqual([name for name, _ in four], [name for name, _ in one])
        np.testing.assert_array_equal([picture for _, picture in four], [picture for _, picture in one])

    def test_reading_and_painting_go_on_while_a_picture_is_written_but_not_without_end(self):
        self.write_kitti('data_road/testing', count=20)
        written = threading.Event()

        def write_slowly(*args, **kwargs):
            written.wait(60)
            return imwrite(*args, **kwargs)
        imwrite = imageio.imwrite
        with tf.Session() as sess, mock.patch.multiple(helper, INFERENCE_BATCH=1, THREADS=2), \
                mock.patch.object(imageio, 'imwrite', write_slowly), \
                mock.patch.object(helper, 'read_picture', wraps=helper.read_picture) as read:
            thread = threading.Thread(target=helper.save_inference_samples, args=(
                self.path('runs', ''), self.folder, sess, SHAPE, self.logits, self.keep_prob, self.image))
            thread.start()
            deadline = time.time() + 60
            while read.call_count < 4 and time.time() < deadline:
                time.sleep(0.01)
            time.sleep(0.3)
            self.assertTrue(4 <= read.call_count <= 8, read.call_count)
            written.set()
            thread.join()
        run, = os.listdir(self.path('runs', ''))
        self.assertEqual(len(os.listdir(self.path('runs', run))), 20)

    def test_files(self):
        os.rename(self.path('data_road/testing/image_2/um_000003.png'), self.path('data_road/testing/image_2/a b.PNG'))
        Image.new('RGB', (120, 80)).save(self.path('data_road/testing/image_2/c.jpg'))
        with tf.Session() as sess:
            output = helper.save_inference_samples(self.path('runs', ''), self.folder, sess, SHAPE, self.logits,
                                                   self.keep_prob, self.image)
        self.assertEqual(sorted(os.listdir(output)),
                         ['a b.png', 'c.png'] + ['um_{:06d}.png'.format(n) for n in (0, 1, 2, 4, 5)])
        self.assertEqual(os.path.dirname(output), self.path('runs', '').rstrip('/'))
        self.assertEqual(imageio.imread(os.path.join(output, 'c.png')).shape, SHAPE + (3,))

    def test_a_write_error_names_the_file_and_leaves_nothing(self):
        def disk_full(*args, **kwargs):
            raise OSError(28, 'No space left on device')
        with tf.Session() as sess, mock.patch.object(imageio, 'imwrite', disk_full):
            self.assertRegex(self.assert_user_error(
                helper.save_inference_samples, self.path('runs', ''), self.folder, sess, SHAPE, self.logits,
                self.keep_prob, self.image), 'um_000000.png: cannot be written .*No space left')
        run, = os.listdir(self.path('runs', ''))
        self.assertEqual(os.listdir(self.path('runs', run)), [])

    def test_the_softmax_is_built_once(self):
        softmax = helper.softmax_of(self.logits)
        self.assertIs(helper.softmax_of(self.logits), softmax)


class Vgg16(Case):
    def write_keras_file(self, leave_out=None):
        """A VGG-16 of Keras, slim and with random weights, and its weights in a file like the public one."""
        keras = tf.keras
        model = keras.Sequential([keras.layers.InputLayer(input_shape=(224, 224, 3))])
        for block, count in enumerate(vgg16.CONVOLUTIONS_OF_BLOCK, start=1):
            for number in range(1, count + 1):
                model.add(keras.layers.Conv2D(4, 3, padding='same', activation='relu',
                                              name='block{}_conv{}'.format(block, number)))
            model.add(keras.layers.MaxPooling2D(name='block{}_pool'.format(block)))
        model.add(keras.layers.Flatten(name='flatten'))
        for name, units in (('fc1', 6), ('fc2', 5)):
            model.add(keras.layers.Dense(units, activation='relu', name=name))
        random = np.random.RandomState(0)
        model.set_weights([random.normal(0.02, np.sqrt(2 / max(np.prod(w.shape[:-1]), 50)), w.shape)
                           for w in model.get_weights()])
        with h5py.File(self.path('weights.h5'), 'w') as file:
            for layer in model.layers:
                group = file.create_group(layer.name)
                if layer.name != leave_out:
                    for part, value in zip('Wb', layer.get_weights()):
                        group['{0}_{1}_1:0'.format(layer.name, part)] = value
        return model, self.path('weights.h5')

    def test_gives_the_numbers_of_the_dense_model(self):
        picture = np.random.RandomState(0).uniform(0, 255, size=(1, 224, 224, 3)).astype(np.float32)
        model, weights_file = self.write_keras_file()
        expected = model.predict(picture[..., ::-1] - np.array(vgg16.MEAN_BGR))
        vgg16.write_from_keras(self.path('vgg'), weights_file)
        with tf.Graph().as_default(), tf.Session() as sess:
            image_input, keep_prob, _, _, layer7_out = main.load_vgg(sess, self.path('vgg'))
            got = sess.run(layer7_out, {image_input: picture, keep_prob: 1})
        self.assertEqual(got.shape, (1, 7, 7, 5))
        self.assertTrue(expected.any())
        # In the middle the 7x7 window covers just the picture, as the dense layer does.
        np.testing.assert_allclose(got[:, 3, 3], expected, rtol=1e-4, atol=1e-4)

    def test_not_that_file(self):
        _, weights_file = self.write_keras_file(leave_out='block3_conv2')
        with self.assertRaisesRegex(ValueError, 'block3_conv2'):
            vgg16.write_from_keras(self.path('vgg'), weights_file)
        with open(weights_file, 'w') as file:
            file.write('not HDF5')
        with self.assertRaises(OSError):
            vgg16.write_from_keras(self.path('vgg'), weights_file)
        self.assertEqual(os.listdir(self.folder), ['weights.h5'])

    def test_slim_has_the_strides_of_vgg_16_and_dropout(self):
        with tf.Session() as sess:
            image_input, keep_prob, *outputs = main.load_vgg(sess, self.write_vgg())
            feed = {image_input: np.random.RandomState(0).uniform(0, 255, size=(2, 64, 96, 3))}
            plain = sess.run(outputs, {**feed, keep_prob: 1})
            dropped = sess.run(outputs, {**feed, keep_prob: 0.5})
        self.assertEqual([values.shape for values in plain], [(2, 8, 12, 4), (2, 4, 6, 8), (2, 2, 3, 64)])
        np.testing.assert_array_equal(plain[1], dropped[1])
        self.assertGreater((dropped[2] == 0).sum(), (plain[2] == 0).sum())


class Server(http.server.BaseHTTPRequestHandler):
    """Serves the bytes in `files` by path, with ranges; `cut` maps a path to the bytes after which each answer ends.

    In place of bytes an error status may stand.
    """
    files, cut, ranges = {}, {}, []

    def do_GET(self):
        content = self.files.get(self.path, 404)
        if isinstance(content, int):
            self.send_error(content)
            return
        wanted = re.match(r'bytes=(\d+)-', self.headers.get('Range', ''))
        start = int(wanted.group(1)) if wanted else 0
        self.ranges.append(start)
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header('Content-Length', str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][:self.cut.get(self.path)])

    def log_message(self, *args):
        pass


class Downloads(Case):
    def setUp(self):
        super().setUp()
        Server.files, Server.cut, Server.ranges = {}, {}, []
        server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        base = 'http://127.0.0.1:{}/'.format(server.server_port)
        for name in ('vgg', 'keras', 'kitti'):
            patch = mock.patch.object(helper, name.upper() + '_URL', base + name)
            patch.start()
            self.addCleanup(patch.stop)

    def zip(self, names):
        content = io.BytesIO()
        with zipfile.ZipFile(content, 'w', zipfile.ZIP_DEFLATED) as file:
            for name in names:
                file.writestr(name, np.random.RandomState(0).bytes(5000))
        return content.getvalue()

    def damaged_zip(self):
        content = bytearray(self.zip(self.KITTI))
        content[100:200] = bytes(100)
        return bytes(content)

    VGG = ('vgg/saved_model.pb', 'vgg/variables/variables.index', 'vgg/variables/variables.data-00000-of-00001')
    KITTI = ('data_road/training/image_2/a.png', 'data_road/training/gt_image_2/a.png',
             'data_road/testing/image_2/a.png')

    def assert_fetched(self, names):
        self.assertEqual(os.listdir(self.folder), [names[0].split('/')[0]])
        for name in names:
            self.assertEqual(open(self.path(name), 'rb').read(), np.random.RandomState(0).bytes(5000))

    def test_whole(self):
        Server.files = {'/vgg': self.zip(self.VGG)}
        helper.maybe_download_pretrained_vgg(self.folder)
        self.assert_fetched(self.VGG)
        Server.files = {}
        helper.maybe_download_pretrained_vgg(self.folder)  # it is there: nothing is fetched

    def test_kitti(self):
        Server.files = {'/kitti': self.zip(self.KITTI)}
        helper.maybe_download_kitti_road(self.folder)
        self.assert_fetched(self.KITTI)
        self.assertIn('CC BY-NC-SA', self.printed.getvalue())
        self.printed.truncate(0)
        helper.maybe_download_kitti_road(self.folder)
        self.assertEqual(self.printed.getvalue().strip('\0'), '')

    def test_a_cut_off_download_is_continued_at_once(self):
        Server.files, Server.cut = {'/kitti': self.zip(self.KITTI)}, {'/kitti': 9000}
        helper.maybe_download_kitti_road(self.folder)
        self.assert_fetched(self.KITTI)
        self.assertEqual(Server.ranges, [0, 8999])

    def test_a_cut_off_download_is_continued_by_the_next_start(self):
        Server.files, Server.cut = {'/kitti': self.zip(self.KITTI)}, {'/kitti': 1000}
        self.assertIn('cut off after 2,998 of', self.assert_user_error(helper.maybe_download_kitti_road, self.folder))
        self.assertEqual(os.listdir(self.folder), ['data_road.zip.part'])
        Server.cut = {}
        helper.maybe_download_kitti_road(self.folder)
        self.assert_fetched(self.KITTI)
        self.assertEqual(Server.ranges[-1], 2997)

    def test_a_complete_part_file_is_used(self):
        Server.files = {'/kitti': self.zip(self.KITTI)}
        with open(self.path('data_road.zip.part'), 'wb') as file:
            file.write(Server.files['/kitti'])
        helper.maybe_download_kitti_road(self.folder)
        self.assert_fetched(self.KITTI)

    def test_a_part_file_longer_than_the_servers(self):
        Server.files = {'/kitti': self.zip(self.KITTI)}
        with open(self.path('data_road.zip.part'), 'wb') as file:
            file.write(bytes(20000))
        self.assert_user_error(helper.maybe_download_kitti_road, self.folder)
        helper.maybe_download_kitti_road(self.folder)
        self.assert_fetched(self.KITTI)

    def test_an_archive_is_kept_when_unpacking_is_interrupted(self):
        Server.files = {'/kitti': self.zip(self.KITTI)}
        for problem in (KeyboardInterrupt, OSError(28, 'No space left on device')):
            with mock.patch.object(zipfile.ZipFile, 'extract', side_effect=problem):
                with self.assertRaises((KeyboardInterrupt, safety.UserError)):
                    helper.maybe_download_kitti_road(self.folder)
            self.assertEqual(os.listdir(self.folder), ['data_road.zip'])
        Server.files = {}
        helper.maybe_download_kitti_road(self.folder)
        self.assert_fetched(self.KITTI)

    def test_errors_of_the_server(self):
        for status in (404, 500):
            Server.files = {'/kitti': status}
            message = self.assert_user_error(helper.maybe_download_kitti_road, self.folder)
            for part in (str(status), helper.KITTI_URL, self.path('data_road'), '--demo'):
                self.assertIn(part, message)
            self.assertEqual(os.listdir(self.folder), [])

    def test_no_answer(self):
        with mock.patch.object(Server, 'do_GET', lambda server: None):
            self.assertIn('closed connection', self.assert_user_error(helper.maybe_download_kitti_road, self.folder))
        with mock.patch.object(Server, 'do_GET', lambda server: server.send_response(200) or server.end_headers()):
            self.assertIn('not a zip', self.assert_user_error(helper.maybe_download_kitti_road, self.folder))
        self.assertEqual(os.listdir(self.folder), [])

    def test_redirects(self):
        Server.files = {'/moved': self.zip(self.KITTI)}

        def redirect(server):
            if server.path == '/moved':
                return do_get(server)
            server.send_response(302)
            server.send_header('Location', '/moved')
            server.end_headers()
        do_get = Server.do_GET
        with mock.patch.object(Server, 'do_GET', redirect):
            helper.maybe_download_kitti_road(self.folder)
        self.assert_fetched(self.KITTI)
        handler = helper._NoRedirectToHttp()
        for url in ('http://example.com/x', 'ftp://example.com/x', 'file:///etc/passwd'):
            with self.assertRaisesRegex(OSError, 'redirects to {}, which is not https'.format(url)):
                handler.redirect_request(urllib.request.Request('https://example.com'), None, 302, '', {}, url)

    def test_built_in_addresses_are_https(self):
        with open(helper.__file__) as file:
            addresses = re.findall(r"_URL = \(?'(\w+)://", file.read())
        self.assertEqual(addresses, ['https'] * 3)

    def test_links_and_bombs_in_archives(self):
        link = zipfile.ZipInfo('data_road/link')
        link.external_attr = 0o120777 << 16
        content = io.BytesIO()
        with zipfile.ZipFile(content, 'w') as file:
            file.writestr(link, '/etc/passwd')
        Server.files = {'/kitti': content.getvalue()}
        self.assertIn('holds a link: data_road/link', self.assert_user_error(
            helper.maybe_download_kitti_road, self.folder))
        content = io.BytesIO()
        with zipfile.ZipFile(content, 'w', zipfile.ZIP_DEFLATED) as file:
            file.writestr('data_road/zeros', bytes(2 * 10 ** 6))
        Server.files = {'/kitti': content.getvalue()}
        with mock.patch.object(helper, 'UNPACKED_MB', 1):
            self.assertIn('unpack to 2 MB, more than the limit of 1 MB', self.assert_user_error(
                helper.maybe_download_kitti_road, self.folder))
        with mock.patch.object(shutil, 'disk_usage', return_value=mock.Mock(free=1e6)):
            self.assertIn('1.0 MB are free, and the archive unpacks to 2.0 MB', self.assert_user_error(
                helper.maybe_download_kitti_road, self.folder))
        self.assertEqual(os.listdir(self.folder), ['data_road.zip'])  # for the next start

    def test_no_zip_and_zips_of_something_else(self):
        for content, expected in ((b'<html>' + bytes(1000), 'not a zip'), (self.damaged_zip(), 'cannot be had'),
                                  (self.zip(['other/file']), 'no folder data_road'),
                                  (self.zip(['data_road/training/../../../escaped']), 'outside'),
                                  (self.zip(['/tmp/escaped']), 'outside')):
            with self.subTest(expected):
                Server.files = {'/kitti': content}
                self.assertIn(expected, self.assert_user_error(helper.maybe_download_kitti_road, self.folder))
                self.assertEqual(os.listdir(self.folder), [])
                self.assertFalse(os.path.exists(os.path.join(os.path.dirname(self.folder), 'escaped')))

    def test_vgg_is_built_from_the_weights_of_keras_where_the_archive_fails(self):
        with open(Vgg16.write_keras_file(self)[1], 'rb') as file:
            Server.files = {'/keras': file.read(), '/vgg': self.zip(self.VGG)}
        Server.cut = {'/vgg': 1000}
        os.remove(self.path('weights.h5'))
        helper.maybe_download_pretrained_vgg(self.folder)
        self.assertEqual(os.listdir(self.folder), ['vgg'])
        with tf.Graph().as_default(), tf.Session() as sess:
            self.assertEqual(main.load_vgg(sess, self.path('vgg'))[4].shape.as_list()[-1], 5)

    def test_vgg_where_both_fail(self):
        Server.files = {'/keras': b'not HDF5'}
        message = self.assert_user_error(helper.maybe_download_pretrained_vgg, self.folder)
        for part in (helper.VGG_URL, helper.KERAS_URL, self.path('vgg'), '--demo'):
            self.assertIn(part, message)
        self.assertEqual(os.listdir(self.folder), [])

    def test_an_empty_folder_in_its_place(self):
        os.makedirs(self.path('data_road'))
        Server.files = {'/kitti': self.zip(self.KITTI)}
        helper.maybe_download_kitti_road(self.folder)
        self.assert_fetched(self.KITTI)

    def test_something_else_in_its_place(self):
        os.makedirs(self.path('vgg', 'variables'))
        os.makedirs(self.path('data_road', 'training', 'image_2'))
        self.assertIn('saved_model.pb', self.assert_user_error(helper.maybe_download_pretrained_vgg, self.folder))
        self.assertIn('gt_image_2', self.assert_user_error(helper.maybe_download_kitti_road, self.folder))
        self.assertIn('no such folder', self.assert_user_error(helper.maybe_download_kitti_road, self.path('no')))


class Demo(Case):
    def test_scenes_have_kittis_layout_and_colours(self):
        demo.write_scenes(self.path('data_road'), seed=5, training=4, testing=3)
        for split, names in (('training', ['um_000000', 'um_000001', 'umm_000000', 'uu_000000']),
                             ('testing', ['um_000000', 'umm_000000', 'uu_000000'])):
            self.assertEqual(sorted(os.listdir(self.path('data_road', split, 'image_2'))),
                             [name + '.png' for name in names])
            labels = [name.replace('_', '_road_') for name in names] + [
                name.replace('_', '_lane_') for name in names if name.startswith('um_')]
            self.assertEqual(sorted(os.listdir(self.path('data_road', split, 'gt_image_2'))),
                             sorted(label + '.png' for label in labels))
            for name in names:
                picture = imageio.imread(self.path('data_road', split, 'image_2', name + '.png'))
                label = imageio.imread(self.path('data_road', split, 'gt_image_2',
                                                 name.replace('_', '_road_') + '.png'))
                self.assertEqual(picture.shape, label.shape)
                self.assertTrue(370 <= picture.shape[0] <= 376 and 1224 <= picture.shape[1] <= 1242)
                colours = {tuple(colour) for colour in np.unique(label.reshape(-1, 3), axis=0)}
                self.assertLessEqual(colours, {(255, 0, 255), (255, 0, 0), (0, 0, 0)})
                self.assertTrue(0.03 < (label[..., 2] == 255).mean() < 0.5)

    def test_a_scene_is_fixed_by_seed_and_name(self):
        def scenes(seed, training):
            folder = tempfile.mkdtemp(dir=self.folder)
            demo.write_scenes(os.path.join(folder, 'd'), seed, training=training, testing=1)
            return [imageio.imread(os.path.join(folder, 'd', name, 'image_2', 'um_000000.png'))
                    for name in ('training', 'testing')]
        first, again, other = scenes(1, 1), scenes(1, 2), scenes(2, 1)
        np.testing.assert_array_equal(first[0], again[0])
        self.assertFalse(np.array_equal(first[0], other[0]))
        self.assertFalse(np.array_equal(first[0], first[1]))


    def test_two_runs_may_draw_at_once(self):
        def faster(folder, *args):
            write_scenes(folder, *args)
            write_scenes(folder, *args)
        write_scenes = demo.write_scenes
        with mock.patch.object(demo, 'write_scenes', faster), \
                mock.patch.multiple(main, DEMO_TRAINING=1, DEMO_TESTING=1):
            folder = main.prepare_demo(self.folder, 0)
        self.assertEqual(sorted(os.listdir(folder)), ['data_road', 'vgg'])


class CommandLine(Case):
    def run_main(self, *arguments, **environment):
        """Run main.py; returns its exit status and all that it printed, its bars as lines."""
        process = subprocess.run([sys.executable, os.path.join(HERE, 'main.py')] + list(arguments), cwd=self.folder,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True,
                                 env={**os.environ, **environment})
        return process.returncode, process.stdout

    def assert_ends_in_one_line(self, result, expected):
        status, output = result
        self.assertEqual(status, 2, output)
        self.assertNotIn('Traceback', output)
        self.assertRegex(output.splitlines()[-1], '^(main.py: )?error: .*' + expected)

    def test_values_that_make_no_sense(self):
        for option, values in (('--epochs', ('0', '-1', '1.5', 'many', str(2 ** 31), '9' * 5000)),
                               ('--batch-size', ('0', '-5', str(2 ** 31))),
                               ('--learning-rate', ('-1', '0', 'nan', 'inf', '1e300', '1e-300')),
                               ('--keep-prob', ('0', '1.1', '1e-300')),
                               ('--l2', ('-1', 'nan', '1e300')), ('--cache-mb', ('-1', '0.5')),
                               ('--seed', ('-1', str(2 ** 32)))):
            for value in values:
                with self.subTest(option + ' ' + value), mock.patch.object(sys, 'argv', ['main.py', option, value]):
                    errors = io.StringIO()
                    with self.assertRaises(SystemExit) as ended, contextlib.redirect_stderr(errors):
                        main.main()
                    self.assertEqual(ended.exception.code, 2)
                    self.assertIn('argument {}: invalid'.format(option), errors.getvalue())

    def test_user_errors(self):
        self.assert_ends_in_one_line(self.run_main('--data-dir', 'nowhere'), 'nowhere: no such folder')

    def test_what_the_end_needs_is_looked_for_before_the_training(self):
        self.write_vgg()
        self.write_kitti()
        testing = self.write_kitti('data_road/testing')
        open(self.path('file'), 'w').close()
        with mock.patch.object(main, 'train_nn') as train_nn:
            self.assertRegex(self.assert_user_error(main.run, self.folder, self.path('file')), 'file: .*--runs-dir')
            os.remove(os.path.join(testing, 'gt_image_2', 'um_road_000002.png'))
            self.assertIn('um_road_000002', self.assert_user_error(main.run, self.folder, self.path('runs')))
            shutil.rmtree(os.path.join(testing, 'gt_image_2'))
            with open(os.path.join(testing, 'image_2', 'um_000001.png'), 'r+b') as file:
                file.truncate(300)
            self.assertIn('um_000001.png', self.assert_user_error(main.run, self.folder, self.path('runs')))
            shutil.rmtree(os.path.join(testing, 'image_2'))
            self.assertIn('image_2', self.assert_user_error(main.run, self.folder, self.path('runs')))
            self.assertFalse(train_nn.called)

    def test_out_of_memory(self):
        errors = io.StringIO()
        with mock.patch.object(main, 'run', side_effect=tf.errors.ResourceExhaustedError(None, None, 'OOM\nwhen')):
            with mock.patch.object(sys, 'argv', ['main.py', '--batch-size', '77']), mock.patch.object(sys, 'stdout'):
                with self.assertRaises(SystemExit) as ended, contextlib.redirect_stderr(errors):
                    main.main()
        self.assertEqual(ended.exception.code, 2)
        self.assertRegex(errors.getvalue(), '^error: out of memory.*--batch-size or --amp or --freeze-encoder\n$')

    def test_the_demo_has_settings_of_its_own_that_options_change(self):
        for arguments, expected in ((['--demo'], main.DEMO_SETTINGS),
                                    (['--demo', '--epochs', '3'], dict(main.DEMO_SETTINGS, epochs=3)),
                                    ([], dict(epochs=50, batch_size=5, learning_rate=9e-4, keep_prob=0.5, l2=1e-3))):
            with mock.patch.object(sys, 'argv', ['main.py'] + arguments):
                settings = main.parse_arguments()
            self.assertEqual({name: settings[name] for name in expected}, expected)

    def test_chatter_of_tensorflow_is_kept_back_and_warnings_are_not(self):
        chatter = ['I0000 00:00:1.2 3 port.cc:153] oneDNN', '2026-11-22 16:55:07.5: I tensorflow/core/x.cc:1] info']
        warnings = ['2026-11-22 16:55:07.5: W tensorflow/x.cc:55] Could not load dynamic library \'libcudnn.so.7\'',
                    'F0000 00:00:1.2 3 cpu_feature_guard.cc:37] compiled to use AVX']
        for end in ('raise ImportError("no")', 'os.abort()'):
            with open(self.path('modules', 'tensorflow.py'), 'w') as file:
                file.write('import os\nos.write(2, {!r}.encode())\n{}\n'.format(
                    '\n'.join(chatter + warnings + ['']), end))
            lines = self.run_main(PYTHONPATH=self.path('modules'), TF_CPP_MIN_LOG_LEVEL='1')[1].splitlines()
            self.assertEqual(lines[:2], warnings)

    def test_tensorflow_missing_or_broken(self):
        with open(self.path('modules', 'tensorflow.py'), 'w') as file:
            file.write('raise TypeError("Descriptors cannot not be created directly.\\nmore lines")')
        self.assert_ends_in_one_line(self.run_main(PYTHONPATH=self.path('modules')),
                                     r'Descriptors cannot not be created directly\. Needed: Python 3\.7 with')

    def test_demo(self):
        """The whole program, on few scenes."""
        with mock.patch.object(main, 'DEMO_TRAINING', 6), mock.patch.object(main, 'DEMO_TESTING', 3):
            main.prepare_demo(self.folder, seed=0)
        status, output = self.run_main('--demo', '--data-dir', '.', '--epochs', '2', '--batch-size', '6')
        self.assertEqual(status, 0, output)
        lines = [line.split('\r')[-1] for line in output.splitlines()]
        self.assertEqual(len(re.findall(r'^Epoch ./2: cross entropy', '\n'.join(lines), re.MULTILINE)), 2, output)
        self.assertRegex(lines[-2], r'^test( +[01]\.\d{4}){9}$')
        self.assertRegex(lines[-1], r'^Page: runs/[\d.]+/index.html$')
        self.assertNotIn('deprecated', output)
        self.assertNotIn('WARNING', output)
        self.assertEqual(sorted(os.path.basename(path) for path in glob.glob(self.path('runs', 'latest', '*.png'))),
                         ['um_000000.png', 'umm_000000.png', 'uu_000000.png'])

    def test_ctrl_c_in_an_import(self):
        with open(self.path('modules', 'tensorflow.py'), 'w') as file:
            file.write('import os\ntry:\n    os.kill(os.getpid(), 2)\nexcept KeyboardInterrupt:\n    pass\n')
        self.assertEqual(self.run_main(PYTHONPATH=self.path('modules')), (-signal.SIGINT, ''))
