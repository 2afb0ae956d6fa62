"""Validation: how often the pictures are scored, and that the best epoch's weights are used."""
from fcn8.tf1 import tf

import glob
import json
import os
import types
import unittest
from unittest import mock

import numpy as np

import helper
from fcn8 import progress
from fcn8.data import images
from fcn8.data.classes import KITTI_ROAD
from fcn8.results import metrics, saved_model
from fcn8.training import validation
from fcn8.training.callback import best_epoch
from fcn8.training.checkpoints import Checkpoints
from tests.support import SHAPE, Case, TrainedCase, cut, write


class Epochs(unittest.TestCase):
    def test_scoring_takes_a_tenth_of_the_time_at_most(self):
        """After a process's first two epochs and the last, in between as often as the last scoring's time allows."""
        batches = types.SimpleNamespace(validation_share=[], classes=KITTI_ROAD)
        batches.validation_batches = lambda: [(np.zeros([1, 2, 2, 3]), np.ones([1, 2, 2, 2], bool))]
        segmenter = mock.Mock(return_value=np.zeros([1, 2, 2], np.float32))
        for seconds, begins, due in ((0.9, [1], [1, 2, 3, 4, 5, 6, 7]), (2.5, [1], [1, 2, 5, 7]), (100, [1], [1, 2, 7]),
                                     (2.5, [1, 4], [1, 2, 5, 6, 7])):
            history = []
            for epoch in range(1, 8):
                if epoch in begins:  # resumed
                    scoring = validation.Validation(segmenter, batches)
                history.append(dict(epoch=epoch))
                if scoring.is_due(history[:-1], epochs=7):
                    with mock.patch.object(validation.time, 'time', side_effect=[0, seconds]), \
                            mock.patch.object(progress, 'bar'):
                        history[-1].update(scoring.run(9, None, lambda: None))
            self.assertEqual([entry['epoch'] for entry in history if 'validation' in entry], due)

    def test_a_stop_is_heeded_between_batches(self):
        batches = types.SimpleNamespace(pictures=4, validation_pictures=['a', 'b'], validation_share=[], features=None,
                                        classes=KITTI_ROAD)
        batches.validation_batches = lambda: [(np.zeros([1, 2, 2, 3]), np.ones([1, 2, 2, 2], bool))] * 2
        segmenter = mock.Mock(return_value=np.zeros([1, 2, 2], np.float32))
        stop = mock.Mock(side_effect=KeyboardInterrupt)
        scoring = validation.Validation(segmenter, batches)
        with self.assertRaises(KeyboardInterrupt):
            scoring.run(1, None, stop)
        self.assertEqual(segmenter.call_count, 1)

    def test_the_best_epoch_has_the_highest_iou_or_without_validation_the_lowest_cross_entropy(self):
        history = [dict(epoch=number, cross_entropy=value) for number, value in ((1, .5), (2, .2), (3, .3))]
        self.assertEqual(best_epoch(history)['epoch'], 2)
        for entry, iou in zip(history, (None, .6, .7)):
            entry['validation'] = dict(road_iou=iou, max_f=iou)
        self.assertEqual(best_epoch(history)['epoch'], 3)
        for entry, iou in zip(history, (.8, None, .7)):
            entry['validation'] = dict(mean_iou=iou, pixel_accuracy=.5)
        self.assertEqual(best_epoch(history)['epoch'], 1)


class BestWeights(Case):
    def test_damaged_ones_are_reported_and_left_out(self):
        weight = tf.get_variable('weight', [3], initializer=tf.zeros_initializer())
        with tf.Session() as sess:
            checkpoints = Checkpoints(self.folder)
            weight.load([1, 2, 3], sess)
            checkpoints.keep_best(sess, epoch=1)
            weight.load([4, 5, 6], sess)
            checkpoints.save(sess, dict(history=[{}], pictures=0))
            best = self.path('best.npz')
            with np.load(best) as arrays:
                whole = dict(arrays)
            for damage, expected in (
                    (lambda path: None, [1, 2, 3]), (cut, [4, 5, 6]), (os.remove, [4, 5, 6]),
                    (lambda path: write(path, b'PK nothing'), [4, 5, 6]),
                    (lambda path: np.savez(path, **dict(whole, epoch=0)), [4, 5, 6]),
                    (lambda path: np.savez(path, **dict(whole, weight=np.zeros(4, np.float32))), [4, 5, 6])):
                np.savez(best, **whole)
                damage(best)
                self.printed.truncate(0)
                checkpoints = Checkpoints(self.folder)
                checkpoints.restore(sess)
                checkpoints.use_best(sess)
                self.assertEqual(sess.run(weight).tolist(), expected)
                self.assertEqual('best.npz: damaged' in self.printed.getvalue(), expected != [1, 2, 3])


class Validation(TrainedCase):
    def scored(self, *ious):
        """Have the validations give these road IoU, one after the other."""
        run, remaining = validation.Validation.run, iter(ious)

        def scored(*args):
            entry = run(*args)
            entry['validation']['road_iou'] = next(remaining)
            return entry
        return mock.patch.object(validation.Validation, 'run', scored)

    def assert_uses(self, folder, epoch):
        """The run's model has the validation scores of this epoch, and of no other, and settings.json names it."""
        batches = helper.gen_batch_function('data/data_road/training', SHAPE, 0, validation=0.25)
        (_, labels), = batches.validation_batches()
        scores = metrics.RoadScores()
        with saved_model.load(folder) as model:
            segmented = model.segment(images.read_picture(path) for path in batches.validation_pictures)
            scores.add(np.array([probability for _, probability in segmented]), labels)
        history = self.history(folder)
        differences = [max(abs(value - entry['validation'][name]) for name, value in scores.summary().items()
                           if name != 'road_iou') for entry in history]
        equal = [number for number, difference in enumerate(differences, start=1) if difference < 2e-3]
        self.assertEqual(equal, [epoch])
        with open(os.path.join(folder, 'settings.json')) as file:
            best = json.load(file)['best']
        self.assertEqual(best['epoch'], epoch)
        for name in ('cross_entropy', 'validation'):
            self.assertEqual(best[name], history[epoch - 1][name])

    def test_the_weights_of_the_best_epoch_are_used(self):
        with self.scored(0.9, 0.8, 0.7), mock.patch.object(validation, 'SHARE_OF_TIME', 1):
            folder = self.new_run(epochs=3, validation=0.25, freeze_encoder=True)
        self.assertRegex(self.printed.getvalue(), 'best epoch, 1 of 3: .*, validation road IoU 0.900')
        self.assertEqual([entry['best'] for entry in self.history(folder)], [True, False, False])
        self.assert_uses(folder, epoch=1)

    def test_lost_best_weights_give_way_to_those_of_the_best_epoch_to_come(self):
        best = os.path.join(self.run_folder, 'checkpoints', 'best.npz')
        cut(best)
        with self.scored(-1, -2), mock.patch.object(validation, 'SHARE_OF_TIME', 1):  # both lower than those before
            self.assertEqual(self.main('--resume', self.run_folder, '--epochs', '4')[0], 0)
        self.assertIn('best.npz: damaged', self.printed.getvalue())
        self.assertIn('best epoch, 3 of 4', self.printed.getvalue())
        self.assert_uses(self.run_folder, epoch=3)
        self.printed.truncate(0)
        self.assertEqual(self.main('--resume', self.run_folder)[0], 0)  # from what the first time has written
        self.assertNotIn('damaged', self.printed.getvalue())
        self.assertIn('best epoch, 3 of 4', self.printed.getvalue())
        os.remove(best)
        self.assertEqual(self.main('--resume', self.run_folder)[0], 0)
        self.assertIn('best epoch are lost; using those of the last, 4 of 4', self.printed.getvalue())

    def test_best_weights_of_an_epoch_that_is_repeated_are_replaced(self):
        """A killed run may have kept them after its last checkpoint; where dropout has no seed, they are others."""
        path = os.path.join(self.run_folder, 'checkpoints', 'best.npz')
        for epoch, score in (3, 0.999), (4, -1.):  # better than the epochs before, and worse
            with np.load(path) as arrays:
                kept = dict(arrays)
            np.savez(path, **dict(kept, epoch=epoch))
            with self.scored(score):
                self.assertEqual(self.main('--resume', self.run_folder, '--epochs', str(epoch))[0], 0)
            with np.load(path) as arrays:
                self.assertTrue(any((arrays[name] != kept[name]).any() for name in kept if name != 'epoch'))

    def test_a_diverged_network_is_refused(self):
        status, errors = self.main('--validation', '0.25', '--batch-size', '10', '--learning-rate', '1e20', '--l2', '0',
                                   '--epochs', '2')
        self.assertEqual(status, 2)
        self.assertRegex(errors.splitlines()[-1], '^error: .*probabilities .*nan.*lower --learning-rate')

    def test_a_network_that_diverges_in_its_last_step_is_refused(self):
        status, errors = self.main('--batch-size', '10', '--learning-rate', '1e30', '--l2', '0', '--epochs', '1')
        self.assertEqual(status, 2)
        self.assertRegex(errors.splitlines()[-1], '^error: .*nan.*lower --learning-rate')
        self.assertEqual(glob.glob('runs/latest/*.png'), [])
