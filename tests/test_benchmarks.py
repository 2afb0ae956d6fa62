"""The benchmarks, at their smallest."""
import os
import random
import sys
from unittest import mock

from tests.support import ROOT, SHAPE, Case

BENCHMARKS = os.path.join(ROOT, 'benchmarks')


class BenchmarkCase(Case):
    def setUp(self):
        super().setUp()
        sys.path.insert(0, BENCHMARKS)
        self.addCleanup(sys.path.remove, BENCHMARKS)


class Bench(BenchmarkCase):
    def bench(self):
        import bench
        arguments = ['bench.py', '--vgg', self.path('vgg'), '--data', self.path('data_road'), '--rounds', '1']
        with mock.patch.object(sys, 'argv', arguments), \
                mock.patch.multiple(bench, GPU_STEP=0, IMAGE_SHAPE=SHAPE, MATRIX=64, BATCH_SIZES=(10,),
                                    in_a_process=lambda function, *args: (function(*args), 1.)):
            bench.bench()

    def test_invalid_data_is_reported_before_the_tables(self):
        self.assert_user_error(self.bench)
        self.write_kitti()
        self.write_kitti('data_road/testing', count=3)
        self.assertIn('not the VGG-16 model', self.assert_user_error(self.bench))
        self.write_vgg()
        os.remove(self.path('data_road/training/gt_image_2/um_road_000001.png'))
        self.assertIn('um_road_000001.png is missing', self.assert_user_error(self.bench))
        self.assertEqual(self.printed.getvalue(), '')

    def test_every_table_is_printed(self):
        self.write_kitti()
        testing = self.write_kitti('data_road/testing', count=3)
        os.rename(os.path.join(testing, 'image_2', 'um_000002.png'), os.path.join(testing, 'image_2', 'street.png'))
        self.write_vgg()
        self.bench()
        rows = [line.split('|')[1].strip() for line in self.printed.getvalue().splitlines() if line.startswith('|')]
        for name in ('batches, later epochs', 'inference, from file to file', 'fine-tuning step',
                     'decoder step, VGG-16 frozen', '4', '10'):
            self.assertIn(name, rows)
        self.assertRegex(self.printed.getvalue(), r'forward pass takes [\d.]+ GFLOP')
        self.assertIn('Of the pixels of the overlays 0 differ', self.printed.getvalue())


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
