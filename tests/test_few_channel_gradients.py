"""The gradients of convolutions with few output channels equal TensorFlow's own."""
from fcn8.tf1 import tf

import numpy as np

import main
from fcn8.training import few_channel_gradients
from tests.support import Case


class FewChannelGradients(Case):
    def test_equal_those_of_tensorflow(self):
        """For the kernels and the inputs of the decoder, on pictures that are not square."""
        random = np.random.RandomState(0)
        arrays = [random.normal(size=(2, 2 * f, 3 * f, depth)) for f, depth in ((4, 5), (2, 6), (1, 7))]
        upstream = random.normal(size=(2, 64, 96, 3))

        def gradients_with(overrides):
            with tf.Graph().as_default() as graph, tf.Session() as sess:
                tf.set_random_seed(0)
                inputs = [tf.constant(array, tf.float32) for array in arrays]
                with graph.gradient_override_map(overrides):
                    scores = main.layers(*inputs, num_classes=3)
                gradients = tf.gradients(scores, inputs + tf.trainable_variables(), tf.constant(upstream, tf.float32))
                types = {op.type for op in graph.get_operations()}
                sess.run(tf.global_variables_initializer())
                return sess.run(gradients), types

        expected, types = gradients_with({})
        self.assertIn('Conv2DBackpropFilter', types)
        self.assertEqual(len(expected), 3 + 12)
        gradients, types = gradients_with(few_channel_gradients.OVERRIDES)
        self.assertNotIn('Conv2DBackpropFilter', types)
        for gradient, other in zip(gradients, expected):
            self.assertEqual(gradient.shape, other.shape)
            np.testing.assert_allclose(gradient, other, atol=1e-5 * np.abs(other).max())

    def test_other_convolutions_are_refused(self):
        x = tf.zeros([1, 8, 8, 2])
        with tf.get_default_graph().gradient_override_map(few_channel_gradients.OVERRIDES):
            for convolution in (lambda: tf.layers.conv2d(x, 2, 3), lambda: tf.layers.conv2d(x, 2, 1, strides=2),
                                lambda: tf.layers.conv2d_transpose(x, 2, 3, strides=2, padding='same'),
                                lambda: tf.layers.conv2d_transpose(x, 2, 4, strides=2)):
                scores = convolution()
                with self.assertRaisesRegex(ValueError, 'these gradients are for .*, which .*conv.* is not'):
                    tf.gradients(scores, tf.trainable_variables()[-2:])
