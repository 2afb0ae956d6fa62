"""What is printed around the steps of a training, and what ends it."""
from fcn8.tf1 import tf

from unittest import mock

import numpy as np

import main
from fcn8.data import kitti
from fcn8.training import callback, run_folder
from tests.support import Case, RunCase


class Epochs(Case):
    def train(self, losses, epochs=1):
        """train_nn on batches of one picture, with these losses, each of which takes half a second."""
        now = 0.

        def get_batches_fn(batch_size):
            nonlocal now
            for loss in losses:
                now += 0.5
                yield np.full((1, 2, 2, 3), loss), np.zeros((1, 2, 2, 2))

        image, label, keep_prob, learning_rate = [tf.placeholder(tf.float32) for _ in range(4)]
        with tf.Session() as sess, mock.patch.object(callback, 'time', mock.Mock(time=lambda: now)):
            main.train_nn(sess, epochs, 1, get_batches_fn, tf.no_op(), tf.reduce_mean(image), image, label, keep_prob,
                          learning_rate)

    def test_each_has_a_line(self):
        self.train([1, 2, 6], epochs=2)
        self.assertEqual(self.printed.getvalue(), 'Epoch 1/2: cross entropy 3.00, 2.0 pictures/s, 2 s\n'
                                                  'Epoch 2/2: cross entropy 3.00, 2.0 pictures/s, 2 s\n')

    def test_a_loss_that_is_not_finite_ends_the_training(self):
        for loss in (float('nan'), float('inf')):
            self.assertRegex(self.assert_user_error(self.train, [1, loss]),
                             f'^the loss became {loss} in epoch 1, picture 2: try a lower --learning-rate than 0.0009')

    def test_without_pictures_there_is_no_training(self):
        self.assertIn('no pictures', self.assert_user_error(self.train, []))


class Duration(RunCase):
    def first_steps(self, seconds, gpu=None, **settings):
        """What 50 epochs on four pictures print at first: the first step takes 99 seconds, each other one `seconds`."""
        now, steps, make_batches = 0., 0, kitti.Batches.__call__

        def slowly(batches, batch_size):
            nonlocal now, steps
            for batch in make_batches(batches, batch_size):
                now += seconds if steps else 99
                steps += 1
                if steps == 6:
                    raise KeyboardInterrupt
                yield batch

        self.printed.truncate(0)
        with mock.patch.object(kitti.Batches, '__call__', slowly), \
                mock.patch.object(callback, 'time', mock.Mock(time=lambda: now)), \
                mock.patch.object(run_folder, 'gpu_name', return_value=gpu), self.assertRaises(KeyboardInterrupt):
            self.new_run(epochs=50, **settings)
        self.assertIn('Epoch 2/50: ', self.printed.getvalue())
        return self.printed.getvalue()

    def test_a_long_training_is_announced_once_with_a_way_out(self):
        expected = 'the training takes 1.0 hours. A new run with --recipe frozen takes minutes'
        self.assertEqual(self.first_steps(36.).count(expected), 1)
        self.assertEqual(self.first_steps(72., batch_size=4).count(expected), 1)  # epochs of one step

    def test_others_are_not(self):
        for settings in (dict(seconds=2.), dict(seconds=36., gpu='Some GPU'), dict(seconds=36., freeze_encoder=True)):
            self.assertNotIn('hours', self.first_steps(**settings))
