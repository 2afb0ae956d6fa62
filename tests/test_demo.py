"""The demo: its data, and the whole program with it."""
import functools
import os
import re
import threading
from unittest import mock

from fcn8 import launcher
from fcn8.data import demo, scenes, vgg16
from fcn8.files import LOCK
from fcn8.settings import Settings
from tests.support import ROOT, Case, full_disk, read

CLASSES = os.path.join(ROOT, 'docs', 'demo-classes.json')


class Demo(Case):
    def prepare(self, training=1, testing=0, **settings):
        """Make the data of a demo with a few scenes and a tiny VGG-16; returns its folder in the test's."""
        tiny = functools.partial(vgg16.write_slim, width=1 / 64)
        with mock.patch.multiple(demo, TRAINING=training, TESTING=testing), \
                mock.patch.object(vgg16, 'write_slim', tiny):
            return os.path.relpath(demo.prepare(Settings(data_dir=self.folder, **settings)), self.folder)

    def test_only_the_first_process_of_a_machine_draws(self):
        with mock.patch.object(launcher, 'LOCAL_RANK', 1):
            self.assertEqual(self.prepare(), 'demo')
        self.assertEqual(os.listdir(self.folder), [])

    def test_the_whole_program(self):
        self.assertEqual(self.prepare(training=2, testing=2), 'demo')
        status, output = self.run_program('--demo', '--data-dir', '.', '--epochs', '2', '--batch-size', '2',
                                          '--image-shape', '64', '192', TQDM_DISABLE='')
        self.assertEqual(status, 0, output)
        lines = [line.split('\r')[-1] for line in output.splitlines()]
        self.assertEqual(len(re.findall(r'^Epoch ./2: cross entropy', '\n'.join(lines), re.MULTILINE)), 2, output)
        self.assertRegex(lines[-3], r'^test( +[01]\.\d{4}){9}$')
        self.assertRegex(lines[-2], r'^Page: runs/[\d.]+/index.html$')
        self.assertEqual(lines[-1], 'All runs: runs/index.html')
        with open(self.path('runs', 'index.html')) as file:
            self.assertIn(lines[-2].replace('Page: runs/', 'href="'), file.read())
        self.assertNotIn('deprecated', output)
        self.assertNotIn('WARNING', output)
        self.assertNotRegex(output, r'(?m)^[EF]\d{4} ')  # what TensorFlow's native side says of errors
        written = os.listdir(self.path('runs', 'latest'))
        self.assertEqual(sorted(name for name in written if name.endswith('.png')),
                         ['um_000000.png', 'umm_000000.png'])
        self.assertLessEqual({'settings.json', 'history.jsonl', 'checkpoints', 'model', 'index.html'}, set(written))

    def test_data_is_made_once_for_each_seed_and_for_classes(self):
        self.assertEqual(self.prepare(), 'demo')
        scene = self.path('demo', 'data_road', 'training', 'image_2', 'um_000000.png')
        os.utime(scene, (1, 1))
        self.prepare()
        self.assertEqual(os.stat(scene).st_mtime, 1)
        self.assertEqual(self.prepare(seed=7), 'demo-7')
        self.assertEqual(self.prepare(classes=CLASSES), 'demo-classes')
        label = os.path.join('data_road', 'training', 'gt_image_2', 'um_road_000000.png')
        self.assertEqual(len({read(self.path(folder, label)) for folder in ('demo', 'demo-7', 'demo-classes')}), 3)
        self.assertEqual(read(scene), read(scene.replace('demo', 'demo-classes')))

    def test_of_two_runs_at_once_one_makes_it(self):
        both, write_scenes = threading.Barrier(2), mock.Mock(wraps=scenes.write_scenes)

        def prepare():
            both.wait(60)
            demo.prepare(Settings(data_dir=self.folder))

        threads = [threading.Thread(target=prepare) for _ in range(2)]
        with mock.patch.multiple(demo, TRAINING=1, TESTING=0), \
                mock.patch.object(vgg16, 'write_slim', functools.partial(vgg16.write_slim, width=1 / 64)), \
                mock.patch.object(scenes, 'write_scenes', write_scenes):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        write_scenes.assert_called_once()
        self.assertEqual(sorted(os.listdir(self.path('demo', ''))), [LOCK, 'data_road', 'vgg'])
        os.remove(self.path('demo', LOCK))
        demo.prepare(Settings(data_dir=self.folder))
        self.assertFalse(os.path.exists(self.path('demo', LOCK)), 'a demo that is there may be on a read-only disk')

    def test_a_full_disk(self):
        with full_disk(1000):
            self.assertRegex(self.assert_user_error(self.prepare), 'cannot be written .File too large')
        self.assertEqual(os.listdir(self.path('demo', '')), [LOCK])
