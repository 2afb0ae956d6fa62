"""The network and its training: load_vgg, layers, optimize, train_nn and run."""
from fcn8.tf1 import tf

import os
import re
import shutil
from unittest import mock

import imageio.v2 as imageio
import numpy as np

import helper
import main
from fcn8.data import vgg16
from fcn8.settings import Settings
from fcn8.training.callback import Callback
from tests.support import SHAPE, Case, RunCase, build_fcn, cut


class LoadVgg(Case):
    def test_weights_are_those_of_the_saved_model_bit_for_bit(self):
        vgg_path = self.write_vgg()
        saved = tf.train.load_checkpoint(os.path.join(vgg_path, 'variables', 'variables'))
        with tf.Session() as sess:
            build_fcn(sess, vgg_path)
            values = sess.run({variable.op.name: variable for variable in tf.global_variables()})
        names = saved.get_variable_to_shape_map()
        self.assertEqual(len(names), 2 * len(vgg16.LAYERS))
        for name in names:
            np.testing.assert_array_equal(values[name], saved.get_tensor(name), name)

    def test_a_folder_without_a_sound_model_is_named(self):
        for part, damage, expected in (('', shutil.rmtree, 'does not exist'),
                                       ('saved_model.pb', cut, 'saved_model.pb'),
                                       ('variables/variables.data-00000-of-00001', cut, '')):
            vgg_path = self.write_vgg()
            damage(os.path.join(vgg_path, part))
            with self.subTest(part), tf.Graph().as_default(), tf.Session() as sess:
                self.assertRegex(self.assert_user_error(main.load_vgg, sess, vgg_path),
                                 f'^{re.escape(vgg_path)}: not the VGG-16 model, or damaged: .*{expected}')
            shutil.rmtree(vgg_path, ignore_errors=True)


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

    def test_kernels_start_small_and_biases_at_zero(self):
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
        self.labels[0, :2] = 0  # ignored

    def step(self, steps=1, labels=None, label_type=tf.float32, learning_rate=0.01, loss_scaling=False,
             head=lambda scores: scores):
        """Run training steps; returns the loss before and the scores after them.

        head: what is between the scores, a variable, and the network's last layer.
        """
        scores = tf.Variable(self.scores)
        correct_label, rate = tf.placeholder(label_type, [None] * 3 + [2]), tf.placeholder(tf.float32)
        _, train_op, loss = main.optimize(head(scores), correct_label, rate, 2, loss_scaling)
        feed = {correct_label: self.labels if labels is None else labels, rate: learning_rate}
        with tf.Session() as sess:
            sess.run(tf.global_variables_initializer())
            before = sess.run(loss, feed)
            for _ in range(steps):
                sess.run(train_op, feed)
            return before, sess.run(scores)

    def test_loss_is_the_mean_cross_entropy_of_the_pixels_that_are_not_ignored(self):
        probability = np.exp(self.scores) / np.exp(self.scores).sum(axis=-1, keepdims=True)
        expected = -np.log(probability[self.labels == 1]).mean()
        for label_type in (tf.float32, tf.bool, tf.int32, tf.float64):
            self.assertAlmostEqual(self.step(label_type=label_type)[0], expected, places=5)

    def test_ignored_pixels_are_left_alone(self):
        _, after = self.step(steps=5)
        np.testing.assert_array_equal(after[0, :2], self.scores[0, :2])
        self.assertTrue((after[1] != self.scores[1]).all())
        loss, after = self.step(labels=np.zeros_like(self.labels))  # of all pixels
        self.assertEqual(loss, 0)
        np.testing.assert_array_equal(after, self.scores)

    def test_labels_that_are_not_one_hot(self):
        """The minimum for the label (3, 1) is the probability 3/4, and nothing diverges."""
        _, after = self.step(steps=500, labels=np.full((2, 3, 4, 2), [3, 1]), learning_rate=0.05)
        probability = 1 / (1 + np.exp(after[..., 1] - after[..., 0]))
        np.testing.assert_allclose(probability, 0.75, atol=0.01)

    def test_regularisation_is_minimised_but_not_reported(self):
        alone, _ = self.step()
        kernel = tf.Variable([3., -4.])
        tf.add_to_collection(tf.GraphKeys.REGULARIZATION_LOSSES, tf.nn.l2_loss(kernel))
        _, train_op, loss = main.optimize(tf.constant(self.scores), tf.constant(self.labels), 0.01, 2)
        with tf.Session() as sess:
            sess.run(tf.global_variables_initializer())
            self.assertAlmostEqual(sess.run(loss), alone, places=6)
            sess.run(train_op)
            # Adam's first step is the learning rate.
            np.testing.assert_allclose(sess.run(kernel), [2.99, -3.99], rtol=1e-5)

    @mock.patch.object(main, 'EPSILON', 1e-8)  # with which the steps of tiny gradients show
    def test_loss_scaling_keeps_gradients_that_vanish_in_float16(self):
        def head(scores):
            return tf.cast(tf.cast(scores, tf.float16), tf.float32) * 1e-7

        _, plain = self.step(head=head)
        _, scaled = self.step(head=head, loss_scaling=True)
        np.testing.assert_array_equal(plain, self.scores)
        self.assertTrue((scaled[1] != self.scores[1]).all())

    @mock.patch.object(main, 'EPSILON', 1e-8)
    def test_loss_scaling_follows_the_gradients(self):
        """Large ones first, which only a low scale keeps finite, and then small ones, which need a high one."""
        scores, factor = tf.Variable(self.scores), tf.placeholder(tf.float32)
        last_layer = tf.cast(tf.cast(scores, tf.float16), tf.float32) * factor
        _, train_op, _ = main.optimize(last_layer, self.labels, 0.01, 2, loss_scaling=True)
        with tf.Session() as sess:
            sess.run(tf.global_variables_initializer())
            for _ in range(10):
                sess.run(train_op, {factor: 100.})
            before = sess.run(scores)
            for _ in range(400):
                sess.run(train_op, {factor: 1e-11})
            self.assertTrue((sess.run(scores)[1] != before[1]).all())

    def test_loss_scaling_changes_nothing_where_nothing_vanishes(self):
        plain, scaled = self.step(steps=3), self.step(steps=3, loss_scaling=True)
        self.assertAlmostEqual(plain[0], scaled[0], places=6)
        np.testing.assert_allclose(plain[1], scaled[1], atol=1e-4)

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
                expected -= 0.01 * np.sqrt(1 - 0.999 ** step) / (1 - 0.9 ** step) * m / (np.sqrt(v) + main.EPSILON)
            np.testing.assert_allclose(moved, expected, rtol=1e-3)


class TrainNn(Case):
    def train(self, batches, epochs=1, **settings):
        """train_nn where the loss is the mean of the pictures, plus keep_prob and the learning rate."""
        image, label, keep_prob, learning_rate = [tf.placeholder(tf.float32) for _ in range(4)]
        callback = Callback(Settings(epochs=epochs, **settings)) if settings else None
        with tf.Session() as sess:
            return main.train_nn(sess, epochs, 7, lambda batch_size: batches, tf.no_op(),
                                 tf.reduce_mean(image) + keep_prob + learning_rate, image, label, keep_prob,
                                 learning_rate, callback)

    def test_returns_the_mean_over_the_pictures_of_each_epoch(self):
        batches = [(np.full((n, 2, 2, 3), loss), np.zeros((n, 2, 2, 2))) for n, loss in ((3, 1.), (1, 5.))]
        np.testing.assert_allclose(self.train(batches, epochs=2, keep_prob=0.25, learning_rate=0.5), [2.75, 2.75])
        np.testing.assert_allclose(self.train(batches), [2.5009], rtol=1e-6)  # as published

    def test_a_step_changes_every_variable_and_training_adds_nothing_to_the_graph(self):
        self.write_kitti('data_road/testing', count=1)
        get_batches_fn = helper.gen_batch_function(self.write_kitti(), SHAPE)
        with tf.Session() as sess:
            feeds, (logits, train_op, loss) = build_fcn(sess, self.write_vgg())
            helper.save_inference_samples(self.path('runs'), self.folder, sess, SHAPE, logits, feeds[2], feeds[0])
            sess.graph.finalize()
            before = sess.run(tf.trainable_variables())
            main.train_nn(sess, 1, 4, get_batches_fn, train_op, loss, *feeds)
            after = sess.run(tf.trainable_variables())
            helper.save_inference_samples(self.path('runs'), self.folder, sess, SHAPE, logits, feeds[2], feeds[0])
            self.assertEqual(len(before), 2 * len(vgg16.LAYERS) + 12)
            for variable, old, new in zip(tf.trainable_variables(), before, after):
                self.assertTrue((old != new).any(), variable.name)


class Run(RunCase):
    def test_learns_the_road_and_paints_and_scores_the_test_pictures(self):
        folder = self.new_run(epochs=60, keep_prob=1., learning_rate=5e-3)
        losses = [entry['cross_entropy'] for entry in self.history(folder)]
        self.assertEqual(len(losses), 60)
        self.assertLess(min(losses), losses[0] / 4)
        self.assertEqual(sorted(re.sub('tfevents.*', 'tfevents', name) for name in os.listdir(folder)),
                         ['.fcn8-lock', 'checkpoints', 'events.out.tfevents', 'history.jsonl', 'index.html', 'model',
                          'scores.json', 'settings.json', 'um_000000.png', 'um_000001.png'])
        self.assertEqual(os.readlink('runs/latest'), os.path.basename(folder))
        for number in range(2):
            name = f'um_{number:06d}.png'
            picture = imageio.imread(os.path.join('data/data_road/testing/image_2', name)).astype(int)
            overlay = imageio.imread(os.path.join(folder, name)).astype(int)
            road = picture.min(axis=-1) >= 150
            painted = overlay[..., 1] - picture[..., 1] > 20
            self.assertEqual(overlay.shape, SHAPE + (3,))
            self.assertGreater((road & painted).sum() / (road | painted)[8:].sum(), 0.7)
        table = re.search(r'\n +MaxF .* road IoU +accuracy\ntest +([\d. ]+)\n', self.printed.getvalue())
        scores = table.group(1).split()
        self.assertEqual(len(scores), 9)
        self.assertGreater(float(scores[-2]), 0.7)

    def test_its_settings_reach_every_step_and_the_seed_repeats_it(self):
        settings = dict(epochs=3, batch_size=3, learning_rate=0.02, keep_prob=0.2, l2=2e-3, seed=3)
        steps = []

        def train_and_observe(sess, *args):
            train_op, feeds = args[3], args[5:9]
            self.assertTrue(sess.graph.finalized)

            def run(fetches, feed):
                self.assertIs(fetches[0], train_op)
                images, labels, keep_prob, learning_rate = [feed[placeholder] for placeholder in feeds]
                self.assertEqual(labels.shape, images.shape[:3] + (2,))
                steps.append((len(images), learning_rate, keep_prob))
                return sess.run(fetches, feed)
            return train_nn(mock.Mock(run=run), *args)

        train_nn = main.train_nn
        with mock.patch.object(main, 'train_nn', train_and_observe):
            folder = self.new_run(**settings)
        self.assertEqual(steps, [(3, 0.02, 0.2), (1, 0.02, 0.2)] * 3)
        history = self.history(folder)
        best = next(entry for entry in reversed(history) if entry['best'])
        with np.load(os.path.join(folder, 'checkpoints', 'best.npz')) as weights:
            kernels = [weights[name] for name in weights if name.startswith('decoder/') and weights[name].ndim == 4]
        self.assertEqual(len(kernels), 6)
        squared = sum((kernel ** 2).sum() for kernel in kernels)
        self.assertAlmostEqual(best['regularisation'] / (squared / 2) / settings['l2'], 1, places=4)

        shutil.rmtree('data/data_road/testing/gt_image_2')
        self.printed.truncate(0)
        again, other = (self.history(self.new_run(**dict(settings, seed=seed))) for seed in (3, 4))
        self.assertNotIn('IoU', self.printed.getvalue())  # without labels there are no scores
        losses, losses_again, losses_of_other = ([entry['cross_entropy'] for entry in entries]
                                                 for entries in (history, again, other))
        np.testing.assert_allclose(losses_again, losses, atol=2e-4)
        self.assertGreater(np.abs(np.subtract(losses_of_other, losses)).max(), 1e-3)

    def test_labels_are_fed_without_conversion(self):
        """A conversion, in the main thread, would keep a GPU waiting."""
        for settings in (dict(), dict(freeze_encoder=True)):
            with mock.patch.object(main, 'train_nn', wraps=main.train_nn) as train_nn:
                self.new_run(**settings)
            _, _, _, get_batches_fn, _, _, _, correct_label, *_ = train_nn.call_args_list[0][0]
            self.assertEqual(correct_label.dtype.as_numpy_dtype, next(get_batches_fn(1))[1].dtype)
