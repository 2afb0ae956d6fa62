"""The features of a frozen encoder: computed once, kept whole, and a decoder that is trained on them alone."""
from fcn8.tf1 import tf

import os
import re
import shutil
from unittest import mock

import imageio.v2 as imageio
import numpy as np

import helper
import main
from fcn8.data import images, kitti, vgg16
from fcn8.settings import Settings
from fcn8.training import features, variables
from fcn8.training.callback import Callback
from tests.support import PICTURE, SHAPE, RunCase, cut, full_disk, write


class Features(RunCase):
    def setUp(self):
        super().setUp()
        batch_size = mock.patch.object(kitti, 'INFERENCE_BATCH', 3)  # of 4 pictures: more than one batch
        batch_size.start()
        self.addCleanup(batch_size.stop)

    def compute(self, precision='float32', image_shape=SHAPE):
        """The features, and whether they have been computed, not found."""
        settings = Settings(image_shape=image_shape)
        batches = helper.gen_batch_function(settings.training_folder, image_shape, seed=0)
        self.printed.truncate(0)
        computed = features.compute(settings, batches, precision, main.load_vgg)
        return computed, 'Computing the features of 4 pictures' in self.printed.getvalue()

    def kept(self):
        return [os.path.join('data', name) for name in os.listdir('data') if 'features' in name]

    def test_are_those_of_the_pictures_in_order(self):
        computed, _ = self.compute()
        with tf.Session() as sess:
            image_input, keep_prob, *layers = main.load_vgg(sess, 'data/vgg')
            for number, path in enumerate(kitti.list_pictures('data/data_road/training')):
                picture = images.read_picture(path, SHAPE)
                for layer, rows in zip(sess.run(layers, {image_input: [picture], keep_prob: 1.0}), computed):
                    np.testing.assert_allclose(rows[number], layer[0], atol=1e-5 * np.abs(layer).max())

    def test_are_computed_again_only_when_something_has_changed(self):
        def other_weights():
            shutil.rmtree('data/vgg')
            vgg16.write_slim('data/vgg', seed=2, width=1 / 64)

        def other_picture():
            imageio.imwrite(PICTURE, imageio.imread(PICTURE)[::-1])

        def cut_off():
            cut(*self.kept())

        def other_array():
            np.save(*self.kept(), np.zeros((4, 2)))

        def replaced_by(content):
            return lambda: write(*self.kept(), content)

        self.assertTrue(self.compute()[1])
        for change in (other_weights, other_picture, cut_off, other_array, replaced_by(b'something else'),
                       replaced_by(b''), replaced_by(b'PK'), replaced_by(b'\x93NUMPY\x01\x00\x02\x00{(')):
            with self.subTest(change.__name__):
                self.assertFalse(self.compute()[1])
                change()
                self.assertTrue(self.compute()[1])
                self.assertEqual(len(self.kept()), 1)
        write('data/features-float32-mine.npy', b'')
        self.assertTrue(self.compute('float16')[1])
        self.assertFalse(self.compute('float32')[1])
        self.assertTrue(self.compute(image_shape=(64, 64))[1])
        self.assertEqual(len(self.kept()), 3)

    def test_are_kept_whole_or_not_at_all(self):
        def stop(*args):
            yield np.zeros((3,) + SHAPE + (3,), np.uint8)
            raise KeyboardInterrupt

        before = self.files()
        with mock.patch.object(kitti, 'read_batches', stop), self.assertRaises(KeyboardInterrupt):
            self.compute()
        self.assertEqual(self.files(), before)
        with full_disk(8000):
            message = self.assert_user_error(self.compute)
        self.assertRegex(message, '^data/features-.*: cannot be written .File too large.. Free some disk space')
        self.assertEqual(self.files(), before)


class FrozenEncoder(RunCase):
    def test_the_decoder_gives_the_same_logits_in_the_full_graph(self):
        settings = Settings(image_shape=SHAPE, epochs=2, batch_size=3, learning_rate=0.01, freeze_encoder=True)
        get_batches_fn = helper.gen_batch_function(settings.training_folder, SHAPE, seed=0)
        get_batches_fn.features = features.compute(settings, get_batches_fn, 'float32', main.load_vgg)
        decoder = main.train_decoder(settings, get_batches_fn, Callback(settings, get_batches_fn))
        with tf.Session() as sess:
            image_input, keep_prob, *vgg_layers = main.load_vgg(sess, 'data/vgg')
            logits = main.layers(*vgg_layers, num_classes=2)
            variables.initialize(sess, decoder)
            pictures = np.concatenate(list(kitti.read_batches([path for path, _ in get_batches_fn.pairs], SHAPE)))
            full = sess.run(logits, {image_input: pictures, keep_prob: 1.0})
        with tf.Graph().as_default(), tf.Session() as sess:
            logits = main.layers(*[tf.constant(rows) for rows in get_batches_fn.features], num_classes=2)
            variables.initialize(sess, decoder)
            np.testing.assert_allclose(sess.run(logits), full, atol=1e-5 * np.abs(full).max())
        self.assertGreater(np.ptp(full), 0)

    def test_a_run_trains_the_decoder_alone_and_the_next_finds_the_features(self):
        histories = []
        for computed in (1, 0):
            self.printed.truncate(0)
            folder = self.new_run(epochs=50, learning_rate=0.02, freeze_encoder=True)
            printed = self.printed.getvalue()
            self.assertEqual(printed.count('Computing the features of 4 pictures'), computed)
            # Of the whole network, on the test pictures
            self.assertGreater(float(re.search(r'\ntest .* ([\d.]+) +[\d.]+\n', printed).group(1)), 0.7)
            histories.append([entry['cross_entropy'] for entry in self.history(folder)])
        self.assertEqual(len(histories[0]), 50)
        np.testing.assert_allclose(histories[0][:12], histories[1][:12], atol=2e-4)
        with np.load(os.path.join(folder, 'checkpoints', 'best.npz')) as weights:
            self.assertEqual({name.split('/')[0] for name in weights if name != 'epoch'}, {'decoder'})
