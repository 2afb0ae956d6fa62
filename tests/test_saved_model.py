"""The exported model: what the network gives, for pictures of any size, in both TensorFlow versions.

Each of the two versions wrote one of the models in tests/fixtures; that of an older run has constants in the place of
variables. To write that of the version in use:
python -c "from tests import test_saved_model; test_saved_model.write_fixture()"
"""
from fcn8.tf1 import tf

import glob
import os
import shutil
import tempfile
from unittest import mock

import numpy as np
from PIL import Image

import main
from fcn8.data import images, vgg16
from fcn8.data.classes import KITTI_ROAD
from fcn8.results import metrics, saved_model
from fcn8.results.segmenter import Segmenter
from fcn8.training import variables
from tests.support import FIXTURES, SHAPE, Case, cut, run_signature, write

RUNS = sorted(glob.glob(os.path.join(FIXTURES, 'TensorFlow-*')))


def write_fixture(fixtures=FIXTURES):
    """Export a network with few and fixed weights, as this version of TensorFlow does it."""
    random = np.random.RandomState(0)
    channels = {'conv1': 3, 'conv2': 3, 'conv3': 4, 'conv4': 4, 'conv5': 4, 'fc6': 6, 'fc7': 6}
    weights, depth_in = {}, 3
    for name in vgg16.LAYERS:
        size, depth_out = {'fc6': 7, 'fc7': 1}.get(name, 3), channels[name.split('_')[0]]
        kernel = np.abs(random.normal(size=(size, size, depth_in, depth_out))) / (size * size * depth_in)
        weights[name], depth_in = (kernel, np.zeros(depth_out)), depth_out
    run = os.path.join(fixtures, 'TensorFlow-' + tf.__version__)
    os.makedirs(run, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, tf.Graph().as_default(), tf.Session() as sess:
        vgg16.write(os.path.join(folder, 'vgg'), weights)
        saved_model.export(random_segmenter(sess, os.path.join(folder, 'vgg'), random), os.path.join(run, 'model'))


def random_segmenter(sess, vgg_path, random):
    """The Segmenter of an FCN-8 whose decoder has weights that show in the output."""
    image_input, keep_prob, *vgg_layers = main.load_vgg(sess, vgg_path)
    logits = tf.reshape(main.layers(*vgg_layers, 2), [-1, 2])
    variables.initialize(sess, {})
    for variable in tf.trainable_variables()[-12:]:
        variable.load(random.normal(size=variable.shape.as_list()) / 8, sess)
    segmenter = Segmenter(sess, logits, keep_prob, image_input, SHAPE, KITTI_ROAD)
    segmenter.prepare_export()
    return segmenter


def some_pictures(*shape):
    return np.random.RandomState(0).randint(0, 256, shape + (3,)).astype(np.uint8)


def run_model(run, *pictures):
    """What the model of a run gives for some pictures, a list."""
    with saved_model.load(run) as model:
        return [probability for _, probability in model.segment(pictures)]


class Export(Case):
    def test_gives_what_the_network_gives(self):
        """Also in the place of an older model, from a graph that is final, and without the dropout."""
        pictures = some_pictures(2, *SHAPE)
        shutil.copytree(RUNS[0], self.path('run'))
        with tf.Session() as sess:
            segmenter = random_segmenter(sess, self.write_vgg(), np.random.RandomState(1))
            sess.graph.finalize()
            expected = segmenter(pictures)
            saved_model.export(segmenter, self.path('run', 'model'))
        self.assertGreater(np.ptp(expected), 0.01)
        np.testing.assert_allclose(run_model(self.path('run'), *pictures), expected, atol=1e-5)
        with tf.Graph().as_default() as graph, tf.Session() as sess:
            signature = tf.saved_model.loader.load(
                sess, ['serve'], self.path('run', 'model')).signature_def['serving_default']
            self.assertEqual({name: info.dtype for name, info in signature.inputs.items()},
                             {'pictures': tf.uint8.as_datatype_enum})
            self.assertEqual({name: info.dtype for name, info in signature.outputs.items()},
                             {'road_probability': tf.float32.as_datatype_enum})
            self.assertLess(graph.as_graph_def().ByteSize(), 2e5)  # the weights are in the variables alone
        np.testing.assert_allclose(run_signature(self.path('run', 'model'), pictures), expected, atol=1e-5)

    def export(self, network):
        """A run with the model of a network without dropout, a function from pictures to logits."""
        with tf.Session() as sess:
            image, keep_prob = tf.placeholder(tf.float32, [None, None, None, 3]), tf.placeholder(tf.float32)
            logits = tf.reshape(network(image), [-1, 2])
            os.mkdir(self.path('run'))
            segmenter = Segmenter(sess, logits, keep_prob, image, SHAPE, KITTI_ROAD)
            segmenter.prepare_export()
            saved_model.export(segmenter, self.path('run', 'model'))
        return self.path('run')

    def test_pictures_of_any_size(self):
        """Resized as Pillow does it, so that the model sees what the training saw; and the probability back."""
        run = self.export(lambda image: image[..., :2] / 100)
        large = some_pictures(217, 331)
        small = np.asarray(Image.fromarray(large).resize(SHAPE[::-1], Image.BILINEAR))
        probability, expected = run_model(run, large, small)
        expected = np.asarray(Image.fromarray(expected).resize((331, 217), Image.BILINEAR))
        np.testing.assert_allclose(probability, expected, atol=1e-5)
        np.testing.assert_allclose(run_signature(os.path.join(run, 'model'), large[np.newaxis]), [expected], atol=0.01)

    def test_a_network_that_is_sure_of_itself(self):
        """Resizing rounds to a little more than 1, which is no probability."""
        run = self.export(lambda image: tf.concat([image[..., :1] - 999, image[..., 1:2]], axis=-1))
        probability, = run_model(run, some_pictures(60, 331))
        self.assertEqual(probability.max(), 1)
        scores = metrics.RoadScores()
        scores.add(probability, np.ones((60, 331, 2), bool))
        self.assertEqual(scores.road.sum(), 60 * 331)


class Load(Case):
    def test_each_world_loads_what_the_other_wrote(self):
        """And what an older version wrote."""
        self.assertEqual(len(RUNS), 3)
        first, *others = (run_model(run, *some_pictures(2, 70, 80)) for run in RUNS)
        self.assertGreater(np.ptp(first), 0.01)
        for other in others:
            np.testing.assert_allclose(first, other, atol=1e-4)

    def test_pictures_of_one_size_go_through_together_while_they_come(self):
        """In order, as many at once as BATCH_PIXELS and INFERENCE_BATCH allow; a large one alone."""
        batches, read, lead = [], [], 0

        def read_picture(item):
            number, size = item
            read.append(number)
            return np.full((size, 50, 3), number, np.uint8)

        def predict(resized, shape):
            self.assertEqual(resized.shape[1:], SHAPE + (3,))
            batches.append((len(resized), shape[0]))
            return [np.full(shape, picture[0, 0, 0]) for picture in resized]

        with mock.patch.object(saved_model, 'BATCH_PIXELS', 9 * 32 * 50):
            model = saved_model.Model(KITTI_ROAD, SHAPE, predict)
            segmented = model.segment(enumerate([40] * 3 + [32] * 12 + [40] + [99] * 2), read_picture)
            for number, (picture, prediction) in enumerate(segmented):
                np.testing.assert_array_equal(prediction, picture[..., 0])
                self.assertEqual(picture[0, 0, 0], number)
                lead = max(lead, len(read) - number)
        self.assertEqual(number, 17)
        self.assertEqual(batches, [(3, 40), (8, 32), (4, 32), (1, 40), (2, 99)])
        self.assertLessEqual(lead, saved_model.INFERENCE_BATCH + images.THREADS + 2)

    def test_what_is_no_model_is_refused(self):
        def load(run):
            with saved_model.load(run):
                pass

        self.assertIn('not the folder of a run: it holds no folder `model`',
                      self.assert_user_error(load, self.folder))
        write(self.path('stopped', 'settings.json'), b'{}')
        self.assertIn('the run has not ended', self.assert_user_error(load, self.path('stopped')))
        shutil.copytree(RUNS[0], self.path('run'))
        cut(self.path('run', 'model', 'saved_model.pb'))
        self.assertIn('not the model of a run, or damaged', self.assert_user_error(load, self.path('run')))
