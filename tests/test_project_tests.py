"""The starter project's checks: they accept this project's code and find wrong code."""
from fcn8.tf1 import tf

import os
import shutil
import subprocess
import sys

import main
import project_tests
from tests.support import ROOT, Case, write


class RunAll(Case):
    def test_counts_each_test_once(self):
        os.symlink(os.path.join(ROOT, 'fcn8'), self.path('fcn8'))
        shutil.copy(os.path.join(ROOT, 'project_tests.py'), self.path('project_tests.py'))
        write(self.path('tests', '__init__.py'), b'')
        write(self.path('tests', 'test_some.py'), b"""
import unittest

class Some(unittest.TestCase):
    def test_passes(self):
        for number in range(3):
            with self.subTest(number):
                pass

    def test_fails(self):
        for number in range(3):
            with self.subTest(number):
                self.fail()

    def test_is_skipped(self):
        for number in range(3):
            with self.subTest(number):
                self.skipTest('why not')

    @unittest.expectedFailure
    def test_succeeds_unexpectedly(self):
        pass

class Broken(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        raise ValueError

    def test_never_runs(self):
        pass
""")
        write(self.path('tests', 'test_others.py'), b'import missing_package')
        process = subprocess.run([sys.executable, 'project_tests.py'], cwd=self.folder, stdout=subprocess.PIPE,
                                 stderr=subprocess.DEVNULL, text=True)
        self.assertEqual((process.stdout, process.returncode), ('1 passed, 4 failed, 1 skipped\n', 1))


class Checks(Case):
    def test_accept_this_project(self):
        project_tests.test_load_vgg(main.load_vgg, tf)
        project_tests.test_layers(main.layers)
        project_tests.test_optimize(main.optimize)
        project_tests.test_train_nn(main.train_nn)
        self.assertEqual(self.printed.getvalue().count('Tests Passed\n'), 4)

    def test_find_wrong_code(self):
        def loads_another_tag(sess, vgg_path):
            tf.saved_model.loader.load(sess, ['serve'], vgg_path)
            return [sess.graph.get_tensor_by_name(name + ':0') for name in (
                'image_input', 'keep_prob', 'layer3_out', 'layer4_out', 'layer7_out')]

        def mixes_up_layers(sess, vgg_path):
            image_input, keep_prob, layer3, layer4, layer7 = main.load_vgg(sess, vgg_path)
            return image_input, keep_prob, layer4, layer3, layer7

        def leaves_out_the_last_upsampling(layer3, layer4, layer7, num_classes):
            return tf.layers.conv2d(layer3, num_classes, 1)

        def trains_nothing(*args):
            logits, _, loss = main.optimize(*args)
            return logits, tf.no_op(), loss

        def keeps_the_shape_of_the_picture(last_layer, *args):
            return (last_layer,) + main.optimize(last_layer, *args)[1:]

        def trains_one_epoch(sess, epochs, *args):
            main.train_nn(sess, 1, *args)

        def feeds_no_labels(sess, epochs, batch_size, get_batches_fn, train_op, loss, image, label, keep_prob, rate):
            sess.run(train_op, {image: 0, keep_prob: 0})

        for check, wrong, args, expected in (
                (project_tests.test_load_vgg, loads_another_tag, [tf], 'serve'),
                (project_tests.test_load_vgg, mixes_up_layers, [tf], 'layer3_out is not'),
                (project_tests.test_layers, leaves_out_the_last_upsampling, [], r'64x96 .*\(1, 8, 12, 2\)'),
                (project_tests.test_optimize, trains_nothing, [], 'does not lower the loss'),
                (project_tests.test_optimize, keeps_the_shape_of_the_picture, [], 'logits have the shape'),
                (project_tests.test_train_nn, trains_one_epoch, [], 'made 3.0 steps'),
                (project_tests.test_train_nn, feeds_no_labels, [], 'not fed')):
            with self.subTest(wrong.__name__), self.assertRaisesRegex(AssertionError, expected):
                check(wrong, *args)

    def test_kitti_is_complete_or_not(self):
        for folder, name, count in (('training/image_2', 'um_{:06d}.png', 289),
                                    ('training/gt_image_2', 'um_road_{:06d}.png', 289),
                                    ('testing/image_2', 'um_{:06d}.png', 290)):
            for number in range(count):
                with open(self.path('data_road', folder, name.format(number)), 'w'):
                    pass
        project_tests.test_for_kitti_dataset(self.folder)
        os.remove(self.path('data_road/training/gt_image_2/um_road_000100.png'))
        with self.assertRaisesRegex(AssertionError, 'gt_image_2.*288 files instead of 289'):
            project_tests.test_for_kitti_dataset(self.folder)
