"""The checkpoints of a run: which are kept, how often they are written, and what damage and a full disk do to them."""
import os
import shutil
import unittest
from unittest import mock

from fcn8.tf1 import tf

import numpy as np

from fcn8 import files
from fcn8.training import checkpoints
from fcn8.training.checkpoints import Checkpoints
from tests.support import Case, cut, full_disk

BEST, SECOND, LAST = 'best.npz', 'epoch-00002-picture-000000', 'epoch-00002-picture-000007'


class CheckpointsOfOneVariable(Case):
    def setUp(self):
        super().setUp()
        self.variable = tf.get_variable('x', [1000], initializer=tf.zeros_initializer())
        self.sess = tf.Session()
        self.addCleanup(self.sess.close)
        self.sess.run(self.variable.initializer)
        os.makedirs(self.path('checkpoints'))
        self.checkpoints = Checkpoints(self.path('checkpoints'))

    def save(self, value, epochs, pictures=0, best=False):
        """Save when the variable has this value; returns the state that goes with it."""
        self.variable.load(np.full(1000, value), self.sess)
        if best:
            self.checkpoints.keep_best(self.sess, epochs)
        state = dict(history=[dict(epoch=epoch + 1) for epoch in range(epochs)], pictures=pictures)
        self.checkpoints.save(self.sess, state)
        return state

    def restore(self, name='x', shape=(1000,), folder='checkpoints'):
        """Restore in a graph of a variable with this name and shape; returns (state, its value, the best value)."""
        with tf.Graph().as_default(), tf.Session() as sess:
            variable = tf.get_variable(name, shape, initializer=tf.zeros_initializer())
            sess.run(variable.initializer)
            restored = Checkpoints(self.path(folder))
            state = restored.restore(sess)
            value = sess.run(variable)
            restored.use_best(sess)
            return state, set(value), set(sess.run(variable))

    def test_the_best_weights_of_variables_with_one_initial_value(self):
        with tf.Graph().as_default(), tf.Session() as sess:
            zeros = tf.zeros([3])
            one, other = tf.Variable(zeros), tf.Variable(zeros)
            one.load([1., 1., 1.], sess)
            other.load([2., 2., 2.], sess)
            checkpoints = Checkpoints(self.path('checkpoints'))
            checkpoints.keep_best(sess, 1)
            for variable in (one, other):
                variable.load([9., 9., 9.], sess)
            checkpoints.use_best(sess)
            np.testing.assert_array_equal(sess.run([one, other]), [[1, 1, 1], [2, 2, 2]])

    def names(self, folder='checkpoints'):
        return sorted(os.listdir(self.path(folder)))

    def test_the_last_two_are_kept_and_the_best_weights_once(self):
        self.assertEqual(self.restore(), (None, {0}, {0}))
        os.mkdir(self.path('checkpoints', 'epoch-notes'))
        for epoch in range(1, 12):
            state = self.save(10 + epoch, epoch, best=epoch <= 3)
        last_two = ['epoch-00010-picture-000000', 'epoch-00011-picture-000000']
        self.assertEqual(self.names(), [BEST] + last_two + ['epoch-notes'])
        self.assertEqual(self.restore(), (state, {21}, {13}))
        self.checkpoints.use_best(self.sess)
        self.assertEqual(set(self.sess.run(self.variable)), {13})

    def test_a_damaged_one_gives_way_to_the_one_before(self):
        def flip_a_bit(path):
            with open(path, 'r+b') as file:
                file.seek(os.path.getsize(path) // 2)
                byte = file.read(1)
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte[0] ^ 1]))

        def replace_by_a_folder(path):
            os.remove(path)
            os.mkdir(path)

        before = self.save(1, 2)
        self.save(2, 2, 7, best=True)
        for name, damages in (('weights.index', (flip_a_bit, cut, os.remove)),
                              ('weights.data-00000-of-00001', (flip_a_bit, cut, os.remove)),
                              ('state.json', (flip_a_bit, cut, os.remove, replace_by_a_folder))):
            for damage in damages:
                with self.subTest(f'{damage.__name__} {name}'):
                    shutil.copytree(self.path('checkpoints'), self.path('copy'))
                    damage(self.path('copy', LAST, name))
                    self.assertEqual(self.restore(folder='copy'), (before, {1}, {2}))
                    self.assertIn(f'{LAST}: damaged', self.printed.getvalue())
                    self.printed.truncate(0)
                    self.assertEqual(self.names('copy'), [BEST, SECOND])
                    cut(self.path('copy', SECOND, name))
                    message = self.assert_user_error(self.restore, folder='copy')
                    self.assertIn('copy: all checkpoints are damaged', message)
                    shutil.rmtree(self.path('copy'))

    def test_those_of_another_network(self):
        self.save(1, 2)
        for name, shape in (('y', [1000]), ('x', [999])):
            message = self.assert_user_error(self.restore, name, shape)
            self.assertIn(f'{SECOND}: belongs to another network', message)
        self.assertEqual(self.names(), [SECOND])

    def test_saving_takes_a_twentieth_of_the_time(self):
        now, saves, save = [0.], [], tf.train.Saver.save

        def save_slowly(*args, **kwargs):
            saves.append(now[0])
            now[0] += 3
            return save(*args, **kwargs)

        with mock.patch.object(checkpoints.time, 'time', lambda: now[0]), \
                mock.patch.object(tf.train.Saver, 'save', save_slowly):
            self.checkpoints = Checkpoints(self.path('checkpoints'))
            for step in range(1000):
                now[0] += 1
                if self.checkpoints.is_due():
                    self.save(1, 0, step)
        self.assertEqual(saves[0], 1)  # so small a network at once
        self.assertGreater(len(saves), 10)
        self.assertLess(3 * len(saves) / now[0], 0.05)

    def test_what_a_kill_has_left_of_the_best_weights_is_removed(self):
        left = self.path('checkpoints', files.SCRATCH + 'killed')
        os.mkdir(left)
        shutil.copy(__file__, os.path.join(left, BEST))
        os.utime(left, (0, 0))
        self.save(1, 1, best=True)
        self.assertEqual(self.names(), [BEST, 'epoch-00001-picture-000000'])

    def test_a_full_disk_leaves_those_before_as_they_were(self):
        self.save(1, 1, best=True)
        before = self.save(2, 2)
        for best in (False, True):
            with full_disk(2000):
                message = self.assert_user_error(self.save, 3, 2, 7, best)
            self.assertRegex(message, LAST + ': cannot be written .*File too large.. Free some disk space, then resume')
            self.assertEqual(self.names(), [BEST, 'epoch-00001-picture-000000', SECOND])
            self.assertEqual(self.restore(), (before, {2}, {1}))
        after = self.save(3, 2, 7)
        self.assertEqual(self.restore(), (after, {3}, {3}))


if __name__ == '__main__':
    unittest.main()
