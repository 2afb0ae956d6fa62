"""The values of the graph's variables, and the state of its dropout."""
from unittest import mock

from fcn8.tf1 import tf

import numpy as np

import main
from fcn8.training import variables
from tests.support import SHAPE, Case


class Variables(Case):
    def test_initialize_keeps_loaded_values_and_gives_the_others(self):
        loaded, given, new = (tf.get_variable(name, [2], initializer=tf.ones_initializer())
                              for name in ('loaded', 'given', 'new'))
        with tf.Session() as sess:
            loaded.load([5., 6.], sess)
            variables.initialize(sess, {'given': np.array([3., 4.])})
            np.testing.assert_array_equal(sess.run([loaded, given, new]), [[5, 6], [3, 4], [1, 1]])
            for name in ('loaded', 'unknown'):
                with self.assertRaisesRegex(ValueError, name):
                    variables.initialize(sess, {name: np.zeros(2)})

    @mock.patch.object(main, 'EPSILON', 1e-8)  # with which Adam's first step is the learning rate
    def test_a_step_leaves_frozen_variables_and_needs_no_slots_for_them(self):
        frozen = tf.Variable([[[[1., 2.]]]])
        variables.freeze()
        trained = tf.Variable([[[[1., 2.]]]])
        _, train_op, _ = main.optimize(frozen * trained, tf.constant([[[[1., 0.]]]]), 0.1, 2)
        with tf.Session() as sess:
            sess.run(tf.global_variables_initializer())
            sess.run(train_op)
            np.testing.assert_array_equal(sess.run(frozen), [[[[1, 2]]]])
            np.testing.assert_allclose(sess.run(trained), [[[[1.1, 1.9]]]], rtol=1e-5)
        slots = [variable for variable in tf.global_variables() if variable.shape == frozen.shape]
        self.assertEqual(len(slots), 2 + 2)  # Adam's two, of one variable

    def test_fast_forward_dropout(self):
        """The masks after it are those of a network that has seen as many pictures."""
        vgg_path = self.write_vgg()
        pictures = np.random.RandomState(0).uniform(0, 255, (19,) + SHAPE + (3,))

        def outputs(prepare):
            with tf.Graph().as_default(), tf.Session() as sess:
                image_input, keep_prob, _, _, layer7_out = main.load_vgg(sess, vgg_path)

                def run(batch):
                    return sess.run(layer7_out, {image_input: batch, keep_prob: 0.5})
                prepare(sess, run)
                return run(pictures[17:])

        expected = outputs(lambda sess, run: [run(pictures[:5]), run(pictures[5:17])])
        got = outputs(lambda sess, run: variables.fast_forward_dropout(sess, SHAPE, 17))
        unprepared = outputs(lambda sess, run: None)
        np.testing.assert_array_equal(got == 0, expected == 0)
        self.assertTrue((unprepared == 0).any() and ((unprepared == 0) != (expected == 0)).any())
