"""A network as a function from pictures to predictions, which changes neither its graph nor its dropout."""
from fcn8.tf1 import tf

import numpy as np

from fcn8.data.classes import KITTI_ROAD, Classes
from fcn8.results.segmenter import Segmenter
from tests.support import SHAPE, Case, build_fcn

PICTURES = np.random.RandomState(0).randint(0, 256, (2,) + SHAPE + (3,))


class Dropout(Case):
    def test_segmenting_draws_no_numbers_for_it(self):
        """So a step after it drops the units that it would have dropped before."""
        vgg_path = self.write_vgg()

        def zeros(segment):
            with tf.Graph().as_default(), tf.Session() as sess:
                (image, _, keep_prob, _), (logits, _, _) = build_fcn(sess, vgg_path)
                if segment:
                    Segmenter(sess, logits, keep_prob, image, SHAPE, KITTI_ROAD)(PICTURES)
                return [sess.run('layer7_out:0', {image: PICTURES, keep_prob: 0.5}) == 0 for _ in range(2)]

        expected = zeros(segment=False)
        self.assertTrue((expected[0] != expected[1]).any())
        np.testing.assert_array_equal(zeros(segment=True), expected)

    def assert_predicts(self, sess, logits, keep_prob, image, image_shape, pictures):
        """What the network computes with all numbers drawn, in every bit."""
        segmenter = Segmenter(sess, logits, keep_prob, image, image_shape, KITTI_ROAD)
        expected = sess.run(segmenter.softmax, {image: pictures, keep_prob: 1})[:, 1]
        self.assertGreater(np.ptp(expected), 0)
        np.testing.assert_array_equal(segmenter(pictures).ravel(), expected)

    def test_predictions_are_those_without_it(self):
        with tf.Session() as sess:
            (image, _, keep_prob, _), (logits, _, _) = build_fcn(sess, self.write_vgg())
            self.assert_predicts(sess, logits, keep_prob, image, SHAPE, PICTURES)
        # As in the published VGG-16, from TensorFlow 1.2
        image, keep_prob = tf.placeholder(tf.float32, [None, 3, 4, 2]), tf.placeholder(tf.float32)
        logits = image / keep_prob * tf.floor(keep_prob + tf.random_uniform(tf.shape(image)))
        with tf.Session() as sess:
            pictures = np.random.RandomState(0).normal(size=(5, 3, 4, 2))
            self.assert_predicts(sess, tf.reshape(logits, [-1, 2]), keep_prob, image, (3, 4), pictures)


class Graph(Case):
    def test_later_ones_add_nothing_to_it(self):
        image, keep_prob = tf.placeholder(tf.float32, [None, 1, 1, 2]), tf.placeholder(tf.float32)
        logits = tf.reshape(image * tf.get_variable('weight', [2]), [-1, 2])
        classes = Classes([dict(name=str(grey), grey=grey, counts=True) for grey in range(2)])
        with tf.Session() as sess:
            sizes = []
            for _ in range(2):
                for its_classes in (KITTI_ROAD, classes):
                    Segmenter(sess, logits, keep_prob, image, (1, 1), its_classes)
                sizes.append(len(sess.graph.get_operations()))
        self.assertEqual(*sizes)
