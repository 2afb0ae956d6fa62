"""The benchmarks, at their smallest."""
import os
import random
import re
import sys
from unittest import mock

import numpy as np

import main
from fcn8.data import demo, images
from fcn8.tf1 import tf
from tests.support import PICTURE, ROOT, SHAPE, Case, RunCase

BENCHMARKS = os.path.join(ROOT, 'benchmarks')


class BenchmarkCase(Case):
    def setUp(self):
        super().setUp()
        sys.path.insert(0, BENCHMARKS)
        self.addCleanup(sys.path.remove, BENCHMARKS)


class Bench(BenchmarkCase):
    def bench(self, *arguments):
        import bench
        with mock.patch.object(sys, 'argv', ['bench.py', '--rounds', '1', *arguments]), \
                mock.patch.multiple(bench, GPU_STEP=0, IMAGE_SHAPE=SHAPE, MATRIX=64, BATCH_SIZES=(10,),
                                    in_a_process=lambda function, *args: (function(*args), 1.)):
            bench.bench()

    def test_invalid_data_is_reported_before_the_tables(self):
        given = '--vgg', self.path('vgg'), '--data', self.path('data_road')
        self.assert_user_error(self.bench, *given)
        self.write_kitti()
        self.write_kitti('data_road/testing', count=3)
        self.assertIn('not the VGG-16 model', self.assert_user_error(self.bench, *given))
        self.write_vgg()
        os.remove(self.path('data_road/training/gt_image_2/um_road_000001.png'))
        self.assertIn('um_road_000001.png or um_000001.png is missing', self.assert_user_error(self.bench, *given))
        self.assertEqual(self.printed.getvalue(), '')

    def test_every_table_is_printed(self):
        self.write_kitti()
        testing = self.write_kitti('data_road/testing', count=3)
        os.rename(os.path.join(testing, 'image_2', 'um_000002.png'), os.path.join(testing, 'image_2', 'street.png'))
        self.write_vgg()
        with mock.patch.object(demo, 'prepare', lambda settings: self.folder):  # that of the default
            self.bench()
        rows = [line.split('|')[1].strip() for line in self.printed.getvalue().splitlines() if line.startswith('|')]
        for name in ('batches, later epochs', 'inference, from file to file', 'fine-tuning step',
                     'decoder step, VGG-16 frozen', '4', '10'):
            self.assertIn(name, rows)
        self.assertRegex(self.printed.getvalue(), r'forward pass takes [\d.]+ GFLOP')
        self.assertIn('Of the pixels of the overlays 0 differ', self.printed.getvalue())
        self.assertRegex(self.printed.getvalue(), r'of 5 pictures in memory take [\d.]+ ms of the main thread')


class Gradients(BenchmarkCase):
    def test_a_row_for_each_layer(self):
        import bench
        import gradients
        self.write_kitti()
        self.write_vgg()
        arguments = ['gradients.py', '--vgg', self.path('vgg'), '--data', self.path('data_road'),
                     '--decoder-first', '1']
        with mock.patch.object(sys, 'argv', arguments), mock.patch.object(bench, 'IMAGE_SHAPE', SHAPE):
            gradients.gradients()
        rows = re.findall(r'\| (\S+) \| \d\.\de-\d+ \| \d\.\de-\d+( \| \d+ %){3} \|', self.printed.getvalue())
        self.assertEqual(len(rows), 15 + 6)
        self.assertRegex(self.printed.getvalue(), r'largest gradient of a variable is [\d.]+ \(\S+\): .* 2\^\d+\.')


class Fuzz(BenchmarkCase):
    def test_damaged_files_are_read_or_end_in_a_clear_error(self):
        import fuzz
        for name, make in fuzz.kinds():
            with self.subTest(name):
                found, wrong = fuzz.fuzz(make, 1, random.Random(0))
                self.assertEqual((wrong, sum(found.values())), ([], 1))


class Stability(BenchmarkCase):
    def test_the_gradients_are_clipped_or_not(self):
        import stability
        self.write_kitti(count=5)
        self.write_vgg()
        for clip_norm in (0.001, 0):
            with mock.patch.object(stability, 'SHAPE', SHAPE):
                history, ((loss, norm, layers),) = stability.train(self.folder, 1, 0, clip_norm, {})
            self.assertEqual(history, [loss])
            self.assertGreater(norm, 0.01)
            gradient = max(gradient for gradient, _, _ in layers.values())  # the root mean square of a layer
            (self.assertLess if clip_norm else self.assertGreater)(gradient, 0.001)


class LayerSizes(BenchmarkCase):
    def test_sizes_and_work_are_those_of_the_graph(self):
        import layer_sizes
        layers = layer_sizes.measure_fcn8(self.write_vgg())
        by_name = {layer.name: layer for layer in layers}
        self.assertEqual(by_name['pool4'].output[1:3], [10, 36])
        self.assertEqual(by_name['fc6'].operations, 2 * 5 * 18 * 7 * 7 * 8 * 64)
        self.assertEqual(by_name['decoder/conv2d'][2:], ([1, 5, 18, 2], 1, 64 * 2 + 2, 2 * 5 * 18 * 64 * 2))
        last = layers[-1]
        self.assertEqual(last[2:], ([1, 160, 576, 2], 16, 16 * 16 * 2 * 2 + 2, 2 * 20 * 72 * 16 * 16 * 2 * 2))
        table = layer_sizes.format_table(layers)
        self.assertIn('| pool3 | 2x2 | 20x72x4 | 44 | 0 | 0.000 |', table)
        self.assertIn('| fc7 | 1x1 | 5x18x64 | 404 | 4,160 |', table)


class Stages(BenchmarkCase, RunCase):
    def test_the_stages_lead_to_the_result(self):
        import stages
        result, *rows = stages.compute(self.new_run(epochs=20, learning_rate=0.1, freeze_encoder=True), PICTURE)
        self.assertEqual([rows[number][0][1].shape for number in range(3)], [(2, 3), (4, 6), (8, 12)])
        np.testing.assert_array_equal(result[0][1], images.read_picture(PICTURE))
        np.testing.assert_allclose(rows[2][2][1].astype(int), result[1][1], atol=1)
        self.assertGreater(np.ptp(rows[1][2][1].astype(int) - rows[2][2][1]), 0)  # layer 3 changes something
        stages.draw('all.png', [result] + rows)
        stages.draw('short.png', [result])
        (short, width), (tall, same_width) = (images.read_picture(path).shape[:2] for path in ('short.png', 'all.png'))
        self.assertEqual((tall, same_width), (4 * short, width))

    def test_classes_are_drawn_in_their_colours(self):
        import stages
        with open('classes.json', 'w') as file:
            file.write('[{"name": "ground", "colour": [255, 0, 0]}, {"name": "road", "colour": [255, 0, 255]}, '
                       '{"name": "sky", "colour": [0, 0, 0]}]')
        rows = stages.compute(self.new_run(classes='classes.json', freeze_encoder=True), PICTURE)
        for _, _, (_, image) in rows[1:]:
            self.assertLessEqual(set(map(tuple, image.reshape(-1, 3))), {(255, 0, 0), (255, 0, 255), (0, 0, 0)})

    def test_another_decoder_is_refused(self):
        import stages
        import variants
        with mock.patch.object(main, 'layers', variants.no_skips):
            run = self.new_run(freeze_encoder=True)
        self.assertIn('decoder', self.assert_user_error(stages.compute, run, PICTURE))


class Variants(BenchmarkCase, RunCase):
    def test_skips_are_left_out(self):
        import variants
        for name, used in (('no-skips', (False, False, True)), ('one-skip', (False, True, True))):
            with tf.Graph().as_default():
                vgg_layers = [tf.ones((1, height, width, 3)) for height, width in ((8, 12), (4, 6), (2, 3))]
                scores = variants.VARIANTS[name](*vgg_layers, num_classes=2)
                self.assertEqual(scores.shape.as_list(), [1, *SHAPE, 2])
                self.assertEqual(tuple(gradient is not None for gradient in tf.gradients(scores, vgg_layers)), used)
            with mock.patch.object(main, 'layers', variants.VARIANTS[name]):
                self.assertEqual(len(self.history(self.new_run(freeze_encoder=True))), 1)
