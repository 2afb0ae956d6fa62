"""The starter project's helper functions: batches, overlays of test pictures, and their files."""
import json
import os
from unittest import mock

from fcn8.tf1 import tf

import imageio.v2 as imageio
import numpy as np
from PIL import Image

import helper
from fcn8.data import classes, kitti
from fcn8.results.report import Report
from tests.support import SHAPE, Case


class GenBatchFunction(Case):
    def test_its_arguments(self):
        folder = self.write_kitti(count=6)
        batches = list(helper.gen_batch_function(folder, SHAPE)(4))
        self.assertEqual([pictures.shape for pictures, _ in batches], [(4,) + SHAPE + (3,), (2,) + SHAPE + (3,)])
        self.assertEqual(batches[0][1].shape, (4,) + SHAPE + (2,))
        with open(self.path('classes.json'), 'w') as file:
            json.dump([dict(name=name, colour=colour) for name, colour in (
                ('ground', classes.BACKGROUND), ('road', classes.ROAD), ('sky', classes.IGNORED))], file)
        first, again, other_seed, plain = (list(helper.gen_batch_function(
            folder, SHAPE, seed, cache_mb=0, validation=0.5, augment=augment, classes=self.path('classes.json'))(2))
            for seed, augment in ((1, True), (1, True), (2, True), (1, False)))
        self.assertEqual([labels.shape for _, labels in first], [(2,) + SHAPE + (3,), (1,) + SHAPE + (3,)])
        np.testing.assert_array_equal(first[0][0], again[0][0])
        for others in (other_seed, plain):
            self.assertFalse(np.array_equal(first[0][0], others[0][0]))


class Overlays(Case):
    def setUp(self):
        super().setUp()
        self.data_folder = self.write_kitti('data_road/testing', count=6, shape=(80, 120))
        # A network that classifies bright pixels as road: by red, from 100 on; with dropout, none.
        image, keep_prob = tf.placeholder(tf.float32, [None, None, None, 3]), tf.placeholder(tf.float32)
        red = tf.reshape(image[..., 0], [-1])
        logits = tf.stack([tf.fill(tf.shape(red), 100.) / keep_prob ** 9, red], axis=1)
        sess = tf.Session()
        self.addCleanup(sess.close)
        self.gen_test_output_arguments = sess, logits, keep_prob, image, self.data_folder, SHAPE
        self.save_arguments = self.folder, sess, SHAPE, logits, keep_prob, image

    def resized(self, name):
        with Image.open(os.path.join(self.data_folder, 'image_2', name)) as image:
            return np.asarray(image.resize(SHAPE[::-1], Image.BILINEAR))

    def test_road_is_half_green_and_the_rest_untouched(self):
        with mock.patch.object(kitti, 'INFERENCE_BATCH', 4):
            overlays = list(helper.gen_test_output(*self.gen_test_output_arguments))
        self.assertEqual([name for name, _ in overlays], [f'um_{number:06d}.png' for number in range(6)])
        for name, overlay in overlays:
            picture = self.resized(name)
            road = picture[..., 0] > 100
            self.assertTrue(road.any() and not road.all())
            np.testing.assert_array_equal(overlay[~road], picture[~road])
            expected = (picture[road] * 128. + np.array([0, 255, 0]) * 127.) / 255
            np.testing.assert_allclose(overlay[road], expected, atol=1)

    def test_files_of_a_new_folder(self):
        pictures = os.path.join(self.data_folder, 'image_2')
        os.rename(os.path.join(pictures, 'um_000003.png'), os.path.join(pictures, 'a b.PNG'))
        Image.new('RGB', (120, 80)).save(os.path.join(pictures, 'c.jpg'))
        output = helper.save_inference_samples(self.path('runs', ''), *self.save_arguments)
        self.assertRegex(output, '^' + self.path('runs') + r'/\d+\.\d+$')
        self.assertEqual(sorted(os.listdir(output)),
                         ['a b.png', 'c.png'] + [f'um_{number:06d}.png' for number in (0, 1, 2, 4, 5)])
        tf.get_default_graph().finalize()  # painting again needs nothing new
        overlays = dict(helper.gen_test_output(*self.gen_test_output_arguments))
        for name, overlay in (('a b.png', overlays['a b.PNG']), ('um_000005.png', overlays['um_000005.png'])):
            np.testing.assert_array_equal(imageio.imread(os.path.join(output, name)), overlay)

    def test_files_in_the_folder_of_a_report_which_scores_them(self):
        os.makedirs(self.path('run'))
        report = Report(self.path('run'), classes.KITTI_ROAD, dict(kitti.pair_with_labels(self.data_folder)))
        output = helper.save_inference_samples(self.path('runs', ''), *self.save_arguments, report=report)
        self.assertEqual(output, self.path('run'))
        self.assertEqual(sorted(os.listdir(output)), [f'um_{number:06d}.png' for number in range(6)])
        self.assertEqual(os.listdir(self.path('runs')), [])
        self.assertRegex(report.format_scores().splitlines()[-1], r'^test +(0\.9|1\.0)')

    def test_the_colours_are_those_of_the_reports_classes(self):
        grey, blue = (90, 90, 90), (0, 0, 255)
        report = Report(self.folder, classes.Classes([
            dict(name='ground', colour=grey, counts=True), dict(name='road', colour=blue, counts=True)]), {})
        name, overlay = next(helper.gen_test_output(*self.gen_test_output_arguments, report=report))
        picture = self.resized(name)
        colours = np.where(picture[..., :1] > 100, blue, grey)
        np.testing.assert_allclose(overlay, (picture * 128. + colours * 127.) / 255, atol=1.01)

    def test_a_full_disk(self):
        def disk_full(*args):
            raise OSError(28, 'No space left on device')

        with mock.patch.object(os, 'replace', disk_full):
            self.assertRegex(self.assert_user_error(
                helper.save_inference_samples, self.path('runs', ''), *self.save_arguments),
                'um_000000.png: cannot be written .*No space left')
        run, = os.listdir(self.path('runs'))
        self.assertEqual(os.listdir(self.path('runs', run)), [])
