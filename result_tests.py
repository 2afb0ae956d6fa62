"""The checks of what a training comes to: scores, validation, events, page, model and its use; run by project_tests.py.

Each of the two TensorFlow versions wrote one of the models in the folder `fixtures`. To write that of the one in use:
python -c "import result_tests; result_tests.write_fixture()"
"""
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import unittest
from html.parser import HTMLParser
from unittest import mock

from tf1 import tf

import imageio.v2 as imageio
import imageio_ffmpeg
import numpy as np
from PIL import Image

import augment
import failure_tests
import helper
import inference
import main
import metrics
import page
import palettes
import recorder
import vgg16
from failure_tests import Run
from unit_tests import HERE, SHAPE, Case

try:
    from sklearn import metrics as sklearn_metrics
except ImportError:
    sklearn_metrics = None

FIXTURES = os.path.join(HERE, 'fixtures')


def write_fixture():
    """Export a network with few and fixed weights, as this version of TensorFlow does it."""
    random = np.random.RandomState(0)
    channels = {'conv1': 3, 'conv2': 3, 'conv3': 4, 'conv4': 4, 'conv5': 4, 'fc6': 6, 'fc7': 6}
    weights, depth_in = {}, 3
    for name in vgg16.LAYERS:
        size, depth_out = {'fc6': 7, 'fc7': 1}.get(name, 3), channels[name.split('_')[0]]
        kernel = np.abs(random.normal(size=(size, size, depth_in, depth_out))) / (size * size * depth_in)
        weights[name], depth_in = (kernel, np.zeros(depth_out)), depth_out
    target = os.path.join(FIXTURES, 'TensorFlow-' + tf.__version__)
    os.makedirs(target, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, tf.Graph().as_default(), tf.Session() as sess:
        vgg16.write(os.path.join(folder, 'vgg'), weights)
        vgg = main.load_vgg(sess, os.path.join(folder, 'vgg'))
        logits = tf.reshape(main.layers(*vgg[2:], num_classes=2), [-1, 2])
        main.initialize_new_variables(sess)
        for variable in tf.trainable_variables()[-12:]:
            variable.load(random.normal(size=variable.shape.as_list()) / 8, sess)
        inference.export(sess, vgg[0], vgg[1], logits, os.path.join(target, 'model'), SHAPE)


def chance(*shape):
    """Pictures, uint8, or probabilities that lie on thresholds and between, with labels of all three kinds."""
    random = np.random.RandomState(1)
    probability = random.choice(np.append(np.arange(0, 1025, 32) / 1024, random.rand(30)), shape).astype(np.float32)
    kind = random.choice([0, 0, 1, 1, 2], shape)
    road = (kind == 1) & (random.rand(*shape) < probability + 0.2)
    return probability, np.stack([(kind < 2) & ~road, road], axis=-1)


class Scores(unittest.TestCase):
    def scores(self, probability, labels):
        scores = metrics.RoadScores()
        scores.add(probability, labels)
        return scores

    def test_equal_sums_done_the_slow_way(self):
        probability, labels = chance(4, 20, 30)
        scores = self.scores(probability, labels)
        rows = []
        for threshold in np.arange(metrics.THRESHOLDS) / metrics.THRESHOLDS:
            road = probability > threshold if threshold else np.ones_like(probability, bool)
            tp, fp = (road & labels[..., 1]).sum(), (road & labels[..., 0]).sum()
            fn, tn = (~road & labels[..., 1]).sum(), (~road & labels[..., 0]).sum()
            rows.append((threshold, tp / (tp + fp) if tp + fp else np.nan, tp / (tp + fn), 2 * tp / (2 * tp + fp + fn),
                         fp / (fp + tn), fn / (tp + fn), tp / (tp + fp + fn), (tp + tn) / (tp + fp + fn + tn)))
        expected = dict(zip(('threshold', 'precision', 'recall', 'f1', 'false_positive_rate', 'false_negative_rate',
                             'road_iou', 'pixel_accuracy'), np.transpose(rows)))
        curves = scores.curves()
        self.assertEqual(set(curves), set(expected))
        for name, curve in expected.items():
            np.testing.assert_allclose(curves[name], curve, rtol=1e-12, err_msg=name)
        summary, best = scores.summary(), expected['f1'].argmax()
        self.assertEqual(summary['max_f'], expected['f1'].max())
        self.assertEqual((summary['threshold'], summary['recall']), (best / 1024, expected['recall'][best]))
        self.assertEqual(summary['road_iou'], expected['road_iou'][512])
        highest = [np.nanmax(expected['precision'][expected['recall'] >= recall])
                   for recall in (0, .1, .2, .3, .4, .5, .6, .7, .8, .9, 1)]
        self.assertAlmostEqual(summary['average_precision'], np.mean(highest), places=12)

    def test_parts_add_up(self):
        probability, labels = chance(6, 20, 30)
        parts = [self.scores(probability[part], labels[part]) for part in (slice(0, 1), slice(1, 6))]
        self.assertEqual(sum(parts, metrics.RoadScores()).summary(), self.scores(probability, labels).summary())

    def test_a_perfect_and_an_inverted_prediction(self):
        _, labels = chance(1, 20, 30)
        perfect = self.scores(labels[..., 1].astype(np.float32), labels).summary()
        for name in ('road_iou', 'pixel_accuracy', 'max_f', 'average_precision'):
            self.assertEqual(perfect[name], 1, name)
        self.assertEqual(self.scores(1 - labels[..., 1].astype(np.float32), labels).summary()['road_iou'], 0)

    def test_what_is_not_defined_is_none(self):
        """Without road, and without any pixel that counts; JSON has no nan."""
        background = self.scores(np.zeros(2, np.float32), np.array([[True, False]] * 2)).summary()
        self.assertEqual([background[name] for name in ('pixel_accuracy', 'road_iou', 'max_f', 'threshold')],
                         [1, None, None, None])
        self.assertEqual(set(metrics.RoadScores().summary().values()), {None})
        self.assertIn(' -', metrics.format_table([('all', background)]))

    @unittest.skipIf(sklearn_metrics is None, 'scikit-learn is not installed')
    def test_equal_those_of_scikit_learn(self):
        probability, labels = chance(4, 20, 30)
        counted = labels.any(axis=-1)
        actual, road = labels[..., 1][counted], probability[counted] > 0.5
        curves, summary = self.scores(probability, labels).curves(), self.scores(probability, labels).summary()
        self.assertAlmostEqual(summary['road_iou'], sklearn_metrics.jaccard_score(actual, road))
        self.assertAlmostEqual(summary['pixel_accuracy'], sklearn_metrics.accuracy_score(actual, road))
        self.assertAlmostEqual(curves['f1'][512], sklearn_metrics.f1_score(actual, road))
        bins = np.maximum(np.ceil(probability[counted] * 1024) - 1, 0)
        precision, recall, thresholds = sklearn_metrics.precision_recall_curve(actual, bins)
        thresholds = thresholds.astype(int)
        np.testing.assert_allclose(curves['precision'][thresholds], precision[:-1])
        np.testing.assert_allclose(curves['recall'][thresholds], recall[:-1])


class Variants(Case):
    def varied(self, seed):
        """A picture whose every pixel tells its place, and a label that is road where it is bright, varied alike."""
        picture = np.broadcast_to(np.arange(0, 192, 2, dtype=np.uint8)[np.newaxis, :, np.newaxis], SHAPE + (3,))
        label = np.stack([picture[..., 0] < 96, picture[..., 0] >= 96], axis=-1)
        return (picture, label) + augment.vary(picture, label, np.random.RandomState(seed))

    def test_picture_and_label_move_together(self):
        """In whatever light and shadow, the road is the brighter side of each row, and its border the middle."""
        with mock.patch.object(augment, 'SHADOW', (1, 1)):
            for seed in range(40):
                _, _, picture, label = self.varied(seed)
                self.assertEqual((picture.shape, picture.dtype), (SHAPE + (3,), np.uint8))
                self.assertEqual((label.shape, label.dtype), (SHAPE + (2,), bool))
                road, background = picture[label[..., 1]], picture[label[..., 0]]
                self.assertGreater(road.min(), background.max())

    def test_each_kind_happens(self):
        mirrored, moved, levels, shadows = set(), set(), set(), 0
        for seed in range(40):
            random = np.random.RandomState(seed)
            picture, label, new_picture, new_label = self.varied(seed)
            counted = new_label.any(axis=-1)
            rows, columns = np.flatnonzero(counted.any(axis=1)), np.flatnonzero(counted.any(axis=0))
            moved.add((SHAPE[0] - len(rows), SHAPE[1] - len(columns)))
            self.assertLessEqual(SHAPE[0] - len(rows), augment.SHIFT * SHAPE[0])
            self.assertLessEqual(SHAPE[1] - len(columns), augment.SHIFT * SHAPE[1])
            mirrored.add(augment.is_mirrored(random))
            levels.add(int(new_picture[rows[0]].max()))
            # Without a shadow, all rows of this picture are equal.
            shadows += bool((new_picture != new_picture[:1]).any())
        self.assertEqual(mirrored, {True, False})
        self.assertGreater(len(moved), 20)
        self.assertGreater(len(levels), 20)
        self.assertTrue(10 <= shadows <= 30, shadows)

    def test_shift_repeats_the_edge_which_does_not_count(self):
        picture, label, _, _ = self.varied(0)
        random = mock.Mock(randint=mock.Mock(side_effect=[3, -5]))
        moved, moved_label = augment.shift(picture, label, random)
        np.testing.assert_array_equal(moved[3:, :-5], picture[:-3, 5:])
        np.testing.assert_array_equal(moved[:, -5:], picture[:, -1:].repeat(5, axis=1))
        np.testing.assert_array_equal(moved_label[3:, :-5], label[:-3, 5:])
        self.assertFalse(moved_label[:3].any() or moved_label[:, -5:].any())

    def test_batches_vary_by_the_seed_and_the_epoch_and_not_in_validation(self):
        folder = self.write_kitti(count=8)

        def epochs(seed, skip=0, threads=3):
            with mock.patch.object(helper, 'THREADS', threads):
                batches = helper.gen_batch_function(folder, SHAPE, seed, validation=0.25, augmented=True)
                batches.skip(skip, 0)
                return [list(batches(2)) for _ in range(2 - skip)], list(batches.validation_batches())

        (first, second), validation = epochs(5)
        (first_again, second_again), _ = epochs(5, threads=1)
        (second_alone,), _ = epochs(5, skip=1)
        for images, labels in first:
            self.assertEqual((images.shape, labels.dtype), ((2,) + SHAPE + (3,), bool))
        for some, same in ((first, first_again), (second, second_again), (second, second_alone)):
            for batch, other in zip(some, same):
                np.testing.assert_array_equal(batch[0], other[0])
                np.testing.assert_array_equal(batch[1], other[1])
        sums = [{int(picture.sum()) for images, _ in epoch for picture in images} for epoch in (first, second)]
        self.assertFalse(sums[0] & sums[1])
        (images, labels), = validation
        counted = labels.any(axis=-1)
        np.testing.assert_array_equal(images.min(axis=-1)[counted] >= 150, labels[counted][:, 1])

    def test_features_are_mirrored_with_their_labels(self):
        batches = helper.gen_batch_function(self.write_kitti(), SHAPE, seed=0, augmented=True)
        plain = dict(enumerate(helper.read_label(label, SHAPE) for _, label in batches.pairs))
        batches.features = [(np.arange(4),), (np.arange(4) + 10,)]
        seen = set()
        for _ in range(6):
            for (numbers,), labels in batches(3):
                for number, label in zip(numbers, labels):
                    expected = plain[number % 10]
                    np.testing.assert_array_equal(label, expected[:, ::-1] if number >= 10 else expected)
                    seen.add(int(number))
        self.assertEqual(seen, {0, 1, 2, 3, 10, 11, 12, 13})


class Decay(Run):
    def test_the_rate_rises_in_a_quarter_of_the_training_and_falls_to_0(self):
        rates = []

        def train_op_and_rate(sess, feeds):
            rates.append(feeds['rate'])
            return None, 1.
        sess = mock.Mock()
        sess.run.side_effect = lambda ops, feeds: train_op_and_rate(sess, feeds)

        def get_batches_fn(batch_size):
            return iter([([0], [0])] * 4)
        get_batches_fn.pictures = 4
        main.train_nn(sess, 2, 1, get_batches_fn, 'op', 'loss', 'image', 'label', 'keep', 'rate',
                      learning_rate_value=6., decay=True)
        np.testing.assert_allclose(rates, [0, 3, 6, 5, 4, 3, 2, 1])

    def test_a_resumed_run_goes_on_with_its_rate(self):
        settings = dict(epochs=4, decay=True, freeze_encoder=True)
        unbroken = self.history(self.new_run(**settings))
        with mock.patch.object(main, 'leave_results', side_effect=KeyboardInterrupt), \
                self.assertRaises(KeyboardInterrupt):
            self.new_run(**dict(settings, epochs=2))
        self.assertEqual(self.main('--resume', 'runs/latest', '--epochs', '4')[0], 0)
        rates = [[entry['learning_rate'] for entry in history] for history in (unbroken, self.history('runs/latest'))]
        np.testing.assert_allclose(rates[1][2:], rates[0][2:])
        self.assertLess(rates[0][3], rates[0][1])


class DecoderFirst(Run):
    def test_everything_starts_from_the_trained_decoder(self):
        trained, train_decoder, train_nn = [], main.train_decoder, main.train_nn

        def train_and_keep(*args, **kwargs):
            self.assertEqual((kwargs['epochs'], kwargs['learning_rate']), (3, main.LEARNING_RATE))
            trained.append(train_decoder(*args, **kwargs))
            return trained[0]

        def look(sess, *args, **kwargs):
            if not trained:
                return train_nn(sess, *args, **kwargs)
            values = sess.run({variable.op.name: variable for variable in tf.trainable_variables()})
            for name, value in trained[0].items():
                np.testing.assert_array_equal(values[name], value, name)
            raise KeyboardInterrupt

        with mock.patch.multiple(main, train_decoder=train_and_keep, train_nn=look), \
                self.assertRaises(KeyboardInterrupt):
            self.new_run(decoder_first=3)
        self.assertEqual(len(trained[0]), 12)

    def test_a_resumed_run_equals_an_unbroken_one(self):
        settings = dict(decoder_first=2, validation=0.25)
        unbroken = [entry['cross_entropy'] for entry in self.history(self.new_run(epochs=3, **settings))]
        folder = self.new_run(epochs=1, **settings)
        with mock.patch.object(main, 'train_decoder', side_effect=AssertionError):
            self.assertEqual(self.main('--resume', folder, '--epochs', '3')[0], 0)
        np.testing.assert_allclose([entry['cross_entropy'] for entry in self.history(folder)], unbroken, atol=1e-6)
        self.refused('leave out --decoder-first', '--freeze-encoder', '--decoder-first', '3')


class Validation(Run):
    def test_the_share_is_drawn_by_the_seed_and_balanced(self):
        paths = ['{}_{:06d}.png'.format(name, number) for name, count in (('um', 20), ('umm', 10), ('uu', 31))
                 for number in range(count)]
        drawn = helper.draw_validation(paths, 0.2, seed=1)
        self.assertEqual(np.bincount(np.digitize(drawn, [20, 30])).tolist(), [4, 2, 6])
        np.testing.assert_array_equal(drawn, helper.draw_validation(paths, 0.2, seed=1))
        self.assertFalse(np.array_equal(drawn, helper.draw_validation(paths, 0.2, seed=2)))
        self.assertEqual(len(helper.draw_validation(paths, 0., seed=1)), 0)
        self.refused('--validation 0.1: none of the 4 pictures', '--validation', '0.1')
        self.refused('--validation 0.99: all of the 4 pictures', '--validation', '0.99')

    def test_what_is_scored_is_not_trained_on(self):
        batches = helper.gen_batch_function('data/data_road/training', SHAPE, seed=0, validation=0.5)
        trained = {images.tobytes() for _ in range(3) for images, _ in batches(1)}
        scored = {picture.tobytes() for images, _ in batches.validation_batches() for picture in images}
        self.assertEqual((len(trained), len(scored), batches.pictures), (2, 2, 2))
        self.assertFalse(trained & scored)
        self.assertEqual({helper.read_picture(path, SHAPE).tobytes() for path in batches.validation_pictures}, scored)

    def test_the_interval_keeps_it_to_a_tenth_of_the_time(self):
        for trained, scored, cost, expected in ((80, 20, 1 / 3, 1), (50, 50, 1 / 3, 3), (80, 20, 1, 3), (99, 1, 1, 1)):
            batches = mock.Mock(pictures=trained, validation_pictures=[None] * scored)
            every = main.validation_interval(batches, cost)
            self.assertEqual(every, expected)
            self.assertLessEqual(scored * cost / (scored * cost + every * trained), 0.1)

    def scored(self, *ious):
        """Have the validations give these road IoU, one after the other."""
        ious, summary = iter(ious), metrics.RoadScores.summary
        return mock.patch.object(metrics.RoadScores, 'summary', lambda scores: dict(
            summary(scores), road_iou=next(ious)))

    def test_the_best_epoch_is_what_is_used(self):
        """Where the first is the best, overlays and model are those of a run of one epoch."""
        for freeze_encoder in (False, True):
            settings = dict(validation=0.25, freeze_encoder=freeze_encoder)
            one = self.new_run(**settings)
            with self.scored(0.9, 0.8, 0.7, *[0.5] * 9), mock.patch.object(main, 'VALIDATION_SHARE', 0.9):
                three = self.new_run(epochs=3, **settings)
            self.assertEqual(len(self.history(three)), 3)
            for name in ('um_000000.png', 'um_000001.png'):
                np.testing.assert_array_equal(imageio.imread(os.path.join(three, name)),
                                              imageio.imread(os.path.join(one, name)))
            pictures = np.array([helper.read_picture(failure_tests.PICTURE)])
            with inference.load(one) as (first, _), inference.load(three) as (best, _):
                np.testing.assert_allclose(best(pictures), first(pictures), atol=1e-5)
            self.assertRegex(self.printed.getvalue(), 'best epoch, epoch 1 of 3: .*, validation road IoU 0.900')
            self.assertEqual([entry['best'] for entry in self.history(three)], [True, False, False])
            with open(os.path.join(three, 'settings.json')) as file:
                best = json.load(file)['best']
            self.assertEqual((best['epoch'], best['validation']['road_iou']), (1, 0.9))
            self.assertEqual(best['cross_entropy'], self.history(three)[0]['cross_entropy'])

    def test_without_validation_the_best_epoch_is_the_one_with_the_lowest_cross_entropy(self):
        add_step = recorder.Progress.add_step
        one = self.new_run()
        with mock.patch.object(recorder.Progress, 'add_step', lambda progress, sess, loss, pictures: add_step(
                progress, sess, 1. + len(progress.history), pictures)):
            three = self.new_run(epochs=3)
        pictures = np.array([helper.read_picture(failure_tests.PICTURE)])
        with inference.load(one) as (first, _), inference.load(three) as (best, _):
            np.testing.assert_allclose(best(pictures), first(pictures), atol=1e-5)
        self.assertIn('best epoch, epoch 1 of 3: cross entropy 1.0000\n', self.printed.getvalue())
        with open(os.path.join(three, 'index.html'), encoding='utf-8') as page_file:
            self.assertIn('epoch 1 of 3: cross entropy 1.0000', page_file.read())

    def test_a_resumed_run_scores_as_an_unbroken_one(self):
        def stop_in_epoch(number):
            add_step = recorder.Progress.add_step

            def add_step_and_stop(progress, *args):
                if len(progress.history) == number:
                    os.kill(os.getpid(), signal.SIGINT)
                add_step(progress, *args)
            return mock.patch.object(recorder.Progress, 'add_step', add_step_and_stop)

        settings = dict(epochs=4, validation=0.25, augment=True)
        unbroken = self.history(self.new_run(**settings))
        with stop_in_epoch(2), self.assertRaises(KeyboardInterrupt):
            self.new_run(**settings)
        folder = os.path.join('runs', os.readlink('runs/latest'))
        self.assertEqual(self.main('--resume', 'runs/latest')[0], 0)
        history = self.history(folder)
        self.assertEqual(len(history), 4)
        for entry, expected in zip(history, unbroken):
            self.assertAlmostEqual(entry['cross_entropy'], expected['cross_entropy'], places=5)
            self.assertAlmostEqual(entry['validation']['max_f'], expected['validation']['max_f'], places=3)

    def test_damaged_best_weights_give_way_to_those_of_the_epochs_to_come(self):
        with self.scored(0.9, 0.8, *[0.5] * 9):
            folder = self.new_run(epochs=2, validation=0.25)
        best = os.path.join(folder, 'checkpoints', 'best.npz')
        whole = open(best, 'rb').read()
        for damage in (failure_tests.cut, os.remove, lambda path: failure_tests.write(path, b'PK nothing')):
            shutil.copytree(folder, 'runs/copy')
            damage('runs/copy/checkpoints/best.npz')
            with self.scored(0.6, *[0.5] * 9):
                self.assertEqual(self.main('--resume', 'runs/copy', '--epochs', '4')[0], 0)
            self.assertIn('best.npz: damaged', self.printed.getvalue())
            self.assertIn('best epoch, epoch 3 of 4', self.printed.getvalue())
            self.printed.truncate(0)
            with self.scored(*[0.7] * 9):  # a second time, from what the first has written
                self.assertEqual(self.main('--resume', 'runs/copy', '--epochs', '4')[0], 0)
            self.assertNotIn('damaged', self.printed.getvalue())
            self.assertIn('best epoch, epoch 3 of 4', self.printed.getvalue())
            shutil.rmtree('runs/copy')
        self.assertEqual(open(best, 'rb').read(), whole)
        os.remove(best)
        self.assertEqual(self.main('--resume', folder)[0], 0)
        self.assertIn('best epoch are lost. In use are those after the last, epoch 2 of 2', self.printed.getvalue())

    def test_best_weights_of_a_killed_attempt_are_written_anew(self):
        """Of an epoch that the resumed run repeats: where dropout has no seed, its weights are others."""
        with self.scored(0.5, *[0.4] * 9):
            folder = self.new_run(epochs=1, validation=0.25)
        path = os.path.join(folder, 'checkpoints', 'best.npz')
        with np.load(path) as arrays:
            first = dict(arrays)
        np.savez(path, **dict(first, epoch=2))
        with self.scored(0.9, *[0.4] * 9):
            self.assertEqual(self.main('--resume', folder, '--epochs', '2')[0], 0)
        with np.load(path) as arrays:
            self.assertTrue(any((arrays[name] != first[name]).any() for name in first if name != 'epoch'))

    def test_a_diverged_network(self):
        self.refused_while_training('probabilities became nan.*lower --learning-rate', '--validation', '0.25',
                                    '--batch-size', '10', '--learning-rate', '1e20', '--l2', '0', '--epochs', '2')

    def refused_while_training(self, expected, *arguments):
        status, errors = self.main(*arguments)
        self.assertEqual(status, 2)
        self.assertRegex(errors.splitlines()[-1], '^error: .*' + expected)

    def test_latest_may_lead_elsewhere_meanwhile(self):
        folder = self.new_run()
        leave_results = main.leave_results

        def another_run_begins(*args):
            os.mkdir('runs/other')
            os.remove('runs/latest')
            os.symlink('other', 'runs/latest')
            leave_results(*args)
        with mock.patch.object(main, 'leave_results', another_run_begins):
            self.assertEqual(self.main('--resume', 'runs/latest', '--epochs', '2')[0], 0)
        self.assertEqual(os.listdir('runs/other'), [])
        self.assertEqual(len(self.history(folder)), 2)


class Trained(Run):
    """A test with a run that has trained with validation; made once."""

    kept = None

    def setUp(self):
        super().setUp()
        if not Trained.kept:
            self.write_kitti('data/data_road/testing', count=1)
            os.rename('data/data_road/testing/image_2/um_000000.png', 'data/data_road/testing/image_2/<b>&_0.png')
            os.rename('data/data_road/testing/gt_image_2/um_road_000000.png',
                      'data/data_road/testing/gt_image_2/<b>&_road_0.png')
            Trained.kept = tempfile.mkdtemp()
            shutil.move(self.new_run(epochs=2, validation=0.25), os.path.join(Trained.kept, 'run'))
        self.run_folder = shutil.copytree(os.path.join(Trained.kept, 'run'), 'runs/1.5')


def tearDownModule():
    if Trained.kept:
        shutil.rmtree(Trained.kept)


class Events(Trained):
    def read(self):
        """{tag: {step: value}}, sizes of the pictures, number of operations of the graph."""
        scalars, pictures, operations = {}, {}, 0
        for path in sorted(glob.glob(os.path.join(self.run_folder, 'events.out.tfevents.*'))):
            for event in tf.train.summary_iterator(path):
                if event.graph_def:
                    operations = len(tf.GraphDef.FromString(event.graph_def).node)
                for value in event.summary.value:
                    if value.HasField('image'):
                        picture = imageio.imread(value.image.encoded_image_string)
                        pictures.setdefault(value.tag, {})[event.step] = picture.shape
                    else:
                        scalars.setdefault(value.tag, {})[event.step] = value.simple_value
        return scalars, pictures, operations

    def test_hold_the_history_the_overlays_and_the_graph(self):
        scalars, pictures, operations = self.read()
        for entry in self.history(self.run_folder):
            for name in ('cross_entropy', 'regularisation', 'learning_rate'):
                self.assertAlmostEqual(scalars[name][entry['epoch']], entry[name], places=5)
            for name, value in entry['validation'].items():
                self.assertAlmostEqual(scalars['validation/' + name][entry['epoch']], value, places=5)
        (tag, shapes), = pictures.items()
        self.assertRegex(tag, r'^validation/um_00000\d.png$')
        self.assertEqual(shapes, {1: SHAPE + (3,), 2: SHAPE + (3,)})
        self.assertGreater(operations, 100)

    def test_a_resumed_run_goes_on_with_them(self):
        self.assertEqual(self.main('--resume', self.run_folder, '--epochs', '3')[0], 0)
        self.assertEqual(sorted(self.read()[0]['cross_entropy']), [1, 2, 3])


class Pages(Trained):
    def html(self):
        with open(os.path.join(self.run_folder, 'index.html'), encoding='utf-8') as file:
            return file.read()

    def test_holds_everything_and_needs_nothing(self):
        found, pictures = [], []

        class Parser(HTMLParser):
            def handle_starttag(self, tag, attributes):
                attributes = dict(attributes)
                found.extend(attributes.get(name) for name in ('src', 'href') if attributes.get(name))
                if attributes.get('class') == 'picture':
                    pictures.append((attributes['data-name'], attributes['data-note']))

        Parser().feed(self.html())
        self.assertTrue(all(link.startswith('data:') for link in found))
        self.assertEqual(sum(link.startswith('data:image/jpeg') for link in found), 3 * len(pictures))
        names = [name for name, _ in pictures]
        self.assertEqual(len(names), 2 + 1)
        self.assertIn('<b>&_0.png', names)  # as text, not as an element
        for _, note in pictures:
            self.assertRegex(note, r'^road IoU [01]\.\d{3}$')
        for text in ('cross entropy', 'validation', 'learning_rate', 'those after the best epoch, epoch '):
            self.assertIn(text, self.html())

    def test_the_worst_come_first(self):
        gallery, picture = page.Page(), np.zeros((8, 8, 3), np.uint8)
        for name, iou in (('good', 0.9), ('bad', 0.1), ('middle', 0.5)):
            gallery.add('Some', name, picture, picture, picture[..., 0], iou and ('road IoU', iou))
        gallery.write('index.html', 'title', 'summary', {}, [dict(epoch=1, cross_entropy=1.)], {})
        with open('index.html') as file:
            self.assertEqual(re.findall('data-name="(.*?)"', file.read()), ['bad', 'middle', 'good'])

    @unittest.skipUnless(shutil.which('chromium'), 'chromium is not installed')
    def test_in_a_browser(self):
        """Opened with a click, and gone through with the keyboard; errors of the page end up in its title."""
        script = '''<script>
            const seen = [], key = name => dialog.dispatchEvent(new KeyboardEvent('keydown', {key: name}));
            const shown = () => [dialog.open, dialog.querySelector('b').textContent, view,
                                 dialog.querySelector('img').naturalWidth > 0].join(' ');
            setTimeout(() => { pictures[0].click(); setTimeout(() => { seen.push(shown());
            key('ArrowRight'); key('3'); setTimeout(() => { seen.push(shown());
            key('ArrowLeft'); key('ArrowLeft'); dialog.querySelector('[data-view=photo]').click();
            setTimeout(() => { seen.push(shown()); dialog.querySelector('[data-close]').click();
            seen.push(dialog.open); document.title = errors.concat(seen).join('; ');
            }, 100); }, 100); }, 100); }, 100);</script>'''
        catch = '''<script>const errors = []; addEventListener('error', event => errors.push(event.message));
            console.error = text => errors.push(text);</script>'''
        with open('index.html', 'w', encoding='utf-8') as file:
            file.write(self.html().replace('<title>', catch + '<title>').replace('</body>', script + '</body>'))
        dom = subprocess.run(
            ['chromium', '--headless=new', '--no-sandbox', '--disable-gpu', '--virtual-time-budget=4000', '--dump-dom',
             'file://' + os.path.abspath('index.html')], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            universal_newlines=True, timeout=100).stdout
        self.assertEqual(re.search('<title>(.*?)</title>', dom).group(1),
                         'true {} overlay true; true {} probability true; true {} photo true; false'.format(
                             *re.findall('data-name="(.*?)"', self.html())))


class Models(Trained):
    def test_gives_what_the_network_gives(self):
        pictures = np.random.RandomState(0).randint(0, 256, (2,) + SHAPE + (3,)).astype(np.uint8)
        with tf.Graph().as_default(), tf.Session() as sess:
            vgg = main.load_vgg(sess, 'data/vgg')
            logits = tf.reshape(main.layers(*vgg[2:], num_classes=2), [-1, 2])
            softmax = helper.softmax_of(logits)
            main.initialize_new_variables(sess)
            for variable in tf.trainable_variables()[-12:]:
                variable.load(np.random.RandomState(1).normal(size=variable.shape.as_list()) / 10, sess)
            expected = sess.run(softmax, {vgg[0]: pictures, vgg[1]: 1.})[:, 1].reshape((2,) + SHAPE)
            inference.export(sess, vgg[0], vgg[1], logits, 'runs/1.5/model', SHAPE)
        self.assertGreater(np.ptp(expected), 0.01)
        with inference.load('runs/1.5') as (model, _):
            np.testing.assert_allclose(model(pictures), expected, atol=1e-5)

    def export(self, probability):
        """A model of a network that gives this probability whatever it sees, and has no dropout."""
        with tf.Graph().as_default(), tf.Session() as sess:
            image, keep_prob = tf.placeholder(tf.float32, [None, None, None, 3]), tf.placeholder(tf.float32)
            road = tf.reduce_sum(image, axis=-1, keepdims=True) * 0 + np.log(probability + 1e-30)
            rest = tf.zeros_like(road) + np.log(1 - probability + 1e-30)
            logits = tf.reshape(tf.concat([rest, road], axis=-1), [-1, 2])
            inference.export(sess, image, keep_prob, logits, 'runs/1.5/model', SHAPE)

    def test_without_dropout_and_saturated(self):
        """Resizing rounds to a little more than 1, which is no probability."""
        self.export(1.)
        scores = metrics.RoadScores()
        with inference.load('runs/1.5') as (model, _):
            probability = model(np.zeros((1, 217, 331, 3), np.uint8))
        self.assertEqual(probability.max(), 1)
        scores.add(probability, np.ones((1, 217, 331, 2), bool))
        self.assertEqual(scores.road.sum(), 217 * 331)

    def test_dropout_of_any_form_is_gone(self):
        def published(x, keep_prob):
            return x / keep_prob * tf.floor(keep_prob + tf.random_uniform(tf.shape(x)))

        def other(x, keep_prob):
            return x * (tf.floor(keep_prob + tf.random_uniform(tf.shape(x))) / keep_prob)

        pictures = np.random.RandomState(0).randint(0, 256, (1,) + SHAPE + (3,)).astype(np.uint8)
        for dropout in (published, other, lambda x, keep_prob: tf.nn.dropout(x, keep_prob=keep_prob)):
            with tf.Graph().as_default(), tf.Session() as sess:
                image, keep_prob = tf.placeholder(tf.float32, [None, None, None, 3]), tf.placeholder(tf.float32)
                logits = tf.reshape(dropout(dropout(image, keep_prob), keep_prob)[..., :2] / 99, [-1, 2])
                softmax = helper.softmax_of(logits)
                expected = sess.run(softmax, {image: pictures, keep_prob: 1.})[:, 1].reshape((1,) + SHAPE)
                inference.export(sess, image, keep_prob, logits, 'runs/1.5/model', SHAPE)
            with inference.load('runs/1.5') as (model, _):
                np.testing.assert_allclose(model(pictures), expected, atol=1e-6)
            with open('runs/1.5/model/saved_model.pb', 'rb') as file:
                self.assertNotIn(b'RandomUniform', file.read())

    def test_has_the_signature_and_neither_variables_nor_dropout(self):
        with tf.Graph().as_default() as graph, tf.Session() as sess:
            meta = tf.saved_model.loader.load(sess, ['serve'], 'runs/1.5/model')
            signature = meta.signature_def['serving_default']
            self.assertEqual([(name, info.dtype) for name, info in signature.inputs.items()],
                             [('pictures', tf.uint8.as_datatype_enum)])
            self.assertEqual([(name, info.dtype) for name, info in signature.outputs.items()],
                             [('road_probability', tf.float32.as_datatype_enum)])
            types = {operation.type for operation in graph.get_operations()}
        self.assertFalse({name for name in types if 'Random' in name or 'Variable' in name}, types)

    def test_pictures_of_any_size(self):
        """Resized as Pillow does it, so that the model sees what the training saw; and the probability back."""
        coarse = np.random.RandomState(0).randint(0, 256, (9, 14, 3)).astype(np.uint8)
        large = np.asarray(Image.fromarray(coarse).resize((331, 217), Image.BICUBIC))
        small = np.asarray(Image.fromarray(large).resize(SHAPE[::-1], Image.BILINEAR))
        with inference.load('runs/1.5') as (model, _):
            probability, expected = model(large[np.newaxis])[0], model(small[np.newaxis])[0]
        self.assertEqual(probability.shape, (217, 331))
        expected = np.asarray(Image.fromarray(expected).resize((331, 217), Image.BILINEAR))
        np.testing.assert_allclose(probability, expected, atol=0.01)

    def test_each_world_loads_what_the_other_wrote(self):
        pictures, outputs = np.random.RandomState(0).randint(0, 256, (2, 70, 80, 3)).astype(np.uint8), []
        names = sorted(os.listdir(FIXTURES))
        self.assertEqual([name[:12] for name in names], ['TensorFlow-1', 'TensorFlow-2'])
        for name in names:
            with inference.load(os.path.join(FIXTURES, name)) as (model, _):
                outputs.append(model(pictures))
        np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-4)
        self.assertGreater(np.ptp(outputs[0]), 0.01)

    def test_what_is_no_model(self):
        picture = failure_tests.PICTURE
        self.refused('data: no trained model', '--predict', picture, '--model', 'data')
        failure_tests.cut('runs/1.5/model/saved_model.pb')
        self.refused('not the model of a run, or damaged', '--predict', picture, '--model', 'runs/1.5')
        self.refused('--model RUN goes with', '--predict', picture)
        self.refused('--model RUN goes with', '--model', 'runs/1.5')
        self.refused('--save-masks goes with', '--save-masks')
        self.refused('leave out --epochs', '--predict', picture, '--model', 'runs/1.5', '--epochs', '3')


class Predictions(Trained):
    def predict(self, path, *options):
        status, errors = self.main('--predict', path, '--model', 'runs/1.5', *options)
        self.assertEqual(status, 0, errors)

    def model(self, pictures):
        """In place of the trained model: road where red exceeds 100."""
        return (pictures[..., 0] > 100) * np.float32(1)

    def setUp(self):
        super().setUp()
        load = mock.patch.object(inference, 'load')
        load.start().return_value.__enter__.return_value = self.model, palettes.PUBLISHED
        self.addCleanup(load.stop)

    def test_pictures_of_their_own_size(self):
        os.mkdir('some')
        for name, size in (('a.png', (50, 41)), ('b.jpg', (50, 41)), ('c.png', (90, 33))):
            Image.fromarray(np.random.RandomState(0).randint(0, 256, size[::-1] + (3,)).astype(np.uint8)).save(
                os.path.join('some', name))
        with open('some/notes.txt', 'w'):
            pass
        self.predict('some')
        self.predict('some/a.png', '--save-masks')
        self.assertEqual(sorted(os.listdir('runs/1.5/predicted/some')), ['a.png', 'b.png', 'c.png'])
        self.assertEqual(os.listdir('runs/1.5/masks'), ['a.png'])
        for name in ('a', 'b', 'c'):
            original, = glob.glob('some/' + name + '.*')
            picture = np.asarray(Image.open(original))
            painted = imageio.imread('runs/1.5/predicted/some/' + name + '.png')
            np.testing.assert_array_equal(painted, palettes.PUBLISHED.paint(picture, self.model(picture)))
        np.testing.assert_array_equal(imageio.imread('runs/1.5/predicted/a.png'),
                                      imageio.imread('runs/1.5/predicted/some/a.png'))
        np.testing.assert_array_equal(imageio.imread('runs/1.5/masks/a.png'),
                                      255 * (np.asarray(Image.open('some/a.png'))[..., 0] > 100))

    def write_video(self, path, size, frames=11):
        """The first half of each frame turns from black to white; the second half is black."""
        with imageio.get_writer(path, format='FFMPEG', fps=12.5, macro_block_size=1, quality=10,
                                pixelformat='yuv444p') as writer:
            for number in range(frames):
                frame = np.zeros(size + (3,), np.uint8)
                frame[:, :size[1] // 2] = 255 * number // (frames - 1)
                writer.append_data(frame)

    def test_videos(self):
        for size in ((40, 64), (35, 63)):
            self.write_video('drive.mkv', size)
            self.predict('drive.mkv', '--save-masks')
            with imageio.get_reader('runs/1.5/predicted/drive.mp4', format='FFMPEG') as reader:
                meta, frames = reader.get_meta_data(), [frame for frame in reader]
            self.assertEqual((meta['fps'], meta['size'], len(frames)), (12.5, size[::-1], 11))
            middle = size[0] // 2
            np.testing.assert_allclose(frames[0][middle, 10], [0, 0, 0], atol=25)
            np.testing.assert_allclose(frames[-1][middle, 10], [128, 255, 128], atol=25)
            self.assertEqual(len(os.listdir('runs/1.5/masks/drive')), 11)
            mask = imageio.imread('runs/1.5/masks/drive/000010.png')
            self.assertEqual((mask.shape, mask[middle, 10], mask[middle, -10]), (size, 255, 0))

    def test_frames_that_come_at_uneven_intervals_are_not_repeated(self):
        self.write_video('even.mkv', (40, 64))
        subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), '-loglevel', 'error', '-i', 'even.mkv', '-vf',
                        'setpts=(N*0.1+0.5*gt(N\\,5)*(N-5))/TB', '-vsync', 'vfr', 'uneven.mkv'], check=True)
        count, seconds = imageio_ffmpeg.count_frames_and_secs('uneven.mkv')
        self.predict('uneven.mkv')
        new_count, new_seconds = imageio_ffmpeg.count_frames_and_secs('runs/1.5/predicted/uneven.mp4')
        self.assertEqual(new_count, count)
        self.assertAlmostEqual(new_seconds, seconds, delta=0.2 * seconds)

    def test_videos_that_are_cut_off_or_cannot_be_written(self):
        self.write_video('cut.mkv', (40, 64), frames=60)
        failure_tests.cut('cut.mkv')
        self.predict('cut.mkv')
        self.assertRegex(self.printed.getvalue(), r'cut.mkv: ends after \d+ frames, [\d.]+ of 4.8 seconds')
        self.write_video('drive.mkv', (40, 64))
        # As where ffmpeg finds the disk full when it closes the file
        with mock.patch.object(imageio_ffmpeg, 'count_frames_and_secs', side_effect=[(11, 0.88), (10, 0.8)]):
            self.refused('drive.mkv: its overlay could not be written', '--predict', 'drive.mkv', '--model', 'runs/1.5')

    def test_results_replace_older_ones_as_a_whole(self):
        for place, names in (('one', 'ab'), ('two', 'c')):
            os.makedirs(place + '/some')
            for name in names:
                imageio.imwrite('{}/some/{}.png'.format(place, name), np.zeros((40, 50, 3), np.uint8))
            self.predict(place + '/some', '--save-masks')
        self.assertEqual(os.listdir('runs/1.5/predicted/some'), ['c.png'])
        self.assertEqual(os.listdir('runs/1.5/masks/some'), ['c.png'])

    def test_pictures_of_an_upright_camera_are_turned(self):
        exif = Image.Exif()
        exif[0x0112] = 6
        picture = np.zeros((40, 60, 3), np.uint8)
        picture[:, :20] = 255
        Image.fromarray(picture).save('phone.jpg', exif=exif)
        self.predict('phone.jpg', '--save-masks')
        mask = imageio.imread('runs/1.5/masks/phone.png')
        self.assertEqual(mask.shape, (60, 40))
        self.assertTrue(mask[:16].all() and not mask[24:].any())

    def test_a_video_streams(self):
        """Frames are written long before the last is read."""
        self.write_video('drive.mp4', (40, 64), frames=40)
        read, written = [], []

        def model(pictures):
            read.append(len(read) + len(pictures))
            return self.model(pictures)
        paint = palettes.PUBLISHED.paint
        with mock.patch.object(inference, 'BATCH_PIXELS', 2 * 40 * 64), \
                mock.patch.object(inference.load.return_value, '__enter__', return_value=(model, palettes.PUBLISHED)), \
                mock.patch.object(palettes.PUBLISHED, 'paint', lambda *args: written.append(len(read)) or paint(*args)):
            self.predict('drive.mp4')
        self.assertEqual(written, [number // 2 + 1 for number in range(40)])

    def test_what_cannot_be_predicted(self):
        os.mkdir('empty')
        for name in ('text.txt', 'text.mp4', 'text.png'):
            with open(name, 'w') as file:
                file.write('no picture')
        with open('list.m3u8', 'w') as file:
            file.write('#EXTM3U\n#EXTINF:1\nhttp://127.0.0.1:9/a.ts\n')
        for path, expected in (('nowhere', 'no such picture'), ('empty', 'no PNG or JPEG pictures'),
                               ('text.txt', 'nor a video'), ('text.mp4', 'nor a video'), ('list.m3u8', 'nor a video'),
                               ('text.png', 'cannot be read as a picture')):
            with self.subTest(path):
                self.refused(expected, '--predict', path, '--model', 'runs/1.5')


class Evaluation(Trained):
    def test_scores_by_category_in_the_labels_own_size(self):
        self.write_kitti('data/other', count=3, shape=(50, 70))
        for kind, name in (('image_2', 'um_000002.png'), ('gt_image_2', 'um_road_000002.png')):
            os.rename('data/other/{}/{}'.format(kind, name), 'data/other/{}/{}'.format(kind, name.replace('um', 'uu')))
        status, errors = self.main('--evaluate', 'data/other', '--model', 'runs/1.5')
        self.assertEqual(status, 0, errors)
        with open('runs/1.5/evaluation-other.json') as file:
            table = json.load(file)
        self.assertEqual({name: scores['pictures'] for name, scores in table['categories'].items()}, {'um': 2, 'uu': 1})
        self.assertEqual(table['all']['pictures'], 3)
        total = metrics.RoadScores()
        with inference.load('runs/1.5') as (model, _):
            for path, label in helper.pair_with_labels('data/other'):
                total.add(model(helper.read_picture(path)[np.newaxis])[0], helper.read_label(label))
        self.assertEqual(total.road.sum() + total.background.sum(), 3 * 42 * 70)  # without the black rows
        for name, value in total.summary().items():
            self.assertAlmostEqual(table['all'][name], value, places=3)
        self.assertRegex(self.printed.getvalue(), r'\nuu( +[\d.]+){9}\n')

    def test_what_cannot_be_evaluated(self):
        self.refused('data/image_2: no such folder', '--evaluate', 'data', '--model', 'runs/1.5')
        for name in glob.glob('data/data_road/testing/gt_image_2/um_road_*'):
            imageio.imwrite(name, np.zeros(SHAPE + (3,), np.uint8))
        self.refused('no pixel of the labels counts', '--evaluate', 'data/data_road/testing', '--model', 'runs/1.5')
        os.remove('data/data_road/training/gt_image_2/um_road_000001.png')
        self.refused('um_road_000001.png is missing', '--evaluate', 'data/data_road/training', '--model', 'runs/1.5')
