"""The folder of a run: what it holds, what --resume refuses, and what is checked before the training begins."""
import json
import os
import re
import shutil
import unittest
from unittest import mock

from fcn8.tf1 import tf

import numpy as np

from fcn8 import files
from fcn8.data import vgg16
from fcn8.data.classes import BACKGROUND, IGNORED, ROAD
from fcn8.settings import Settings
from tests.support import LABEL, PICTURE, SHAPE, TrainedCase, read, write


class RunFolder(TrainedCase):
    def setUp(self):
        super().setUp()
        self.settings_file = os.path.join(self.run_folder, 'settings.json')

    def settings(self):
        return json.loads(read(self.settings_file).decode())

    def change(self, **changes):
        """Change values in parts of settings.json; None removes one."""
        content = self.settings()
        for part, values in changes.items():
            content[part] = {name: value for name, value in dict(content[part], **values).items() if value is not None}
        write(self.settings_file, json.dumps(content).encode())

    def test_history_and_settings(self):
        history, content = self.history(self.run_folder), self.settings()
        for number, entry in enumerate(history, start=1):
            self.assertEqual((entry['epoch'], entry['learning_rate']), (number, 0.01))
            self.assertAlmostEqual(entry['seconds'] * entry['pictures_per_second'], 3)
            self.assertGreater(entry['regularisation'], 0)
            self.assertGreater(entry['cross_entropy'], 0)
            self.assertLessEqual(entry['validation']['road_iou'], 1)
        best = max(history, key=lambda entry: entry['validation']['road_iou'])
        self.assertTrue(best['best'])
        self.assertEqual(content['best'], {name: best[name] for name in ('epoch', 'cross_entropy', 'validation')})
        made = Settings(epochs=2, batch_size=2, learning_rate=0.01, image_shape=SHAPE, validation=0.25)
        self.assertEqual(Settings(**content['settings']), made)
        self.assertEqual((content['made_with']['TensorFlow'], content['made_with']['precision']),
                         (tf.__version__, 'float32'))
        self.assertEqual((content['about']['numpy'], content['about']['processes']), (np.__version__, 1))
        self.assertEqual(content['changes'], [])

    def test_a_run_of_an_older_version_can_be_resumed(self):
        """It lacks what was saved later, and calls the classes palette."""
        expected = self.settings()
        palette = expected['made_with']['classes'][:2] + [
            dict(name='what does not count', colour=IGNORED, counts=False)]
        self.change(settings=dict(decay=None, augment=None, cache_mb=None), about=dict(tf32=None),
                    made_with=dict(classes=None, palette=palette))
        status, stderr = self.main('--resume', self.run_folder)
        self.assertEqual(status, 0, stderr)
        for part in ('settings', 'made_with'):
            self.assertEqual(self.settings()[part], expected[part])
        self.assertEqual(self.settings()['changes'], [])

    def test_a_run_that_was_made_with_something_else(self):
        for name, value in (('TensorFlow', '3.0'), ('precision', 'float16')):
            before = self.settings()['made_with'][name]
            self.change(made_with={name: value})
            self.refused(f'{name} differs: {value} when the run was made, {before} now', '--resume', self.run_folder)
            self.change(made_with={name: before})
        write('classes.json', json.dumps([dict(name=name, colour=colour) for name, colour in (
            ('background', BACKGROUND), ('road', ROAD), ('sky', (0, 0, 0)))]).encode())
        self.refused('classes differs', '--resume', self.run_folder, '--classes', 'classes.json')
        shutil.move('data/vgg', 'vgg')
        vgg16.write_slim('data/vgg', seed=2, width=1 / 64)
        self.refused('VGG-16 differs', '--resume', self.run_folder)
        shutil.rmtree('data/vgg')
        shutil.move('vgg', 'data/vgg')
        os.remove(PICTURE)
        os.remove(LABEL)
        self.refused('set of training pictures .*differs', '--resume', self.run_folder)

    def test_a_run_in_use(self):
        with files.locked(self.run_folder):
            self.refused('another process is using this run', '--resume', self.run_folder)

    def test_space_is_checked_before_the_training(self):
        def free(size, folder='runs'):
            return mock.patch.object(shutil, 'disk_usage', lambda path: mock.Mock(
                free=size if path.startswith(folder) else 1e12))

        message = r': 0\.0 MB are free, and {} [\d.]+ MB'
        with free(1e3):
            for options in (['--epochs', '1'], ['--decoder-first', '1']):
                self.refused('runs' + message.format('checkpoints and model need'), *options)
            self.refused(self.run_folder + message.format('checkpoints and model need'), '--resume', self.run_folder)
        with free(1e3, 'data'):
            self.refused('data' + message.format('the features need'), '--freeze-encoder')
        # A resumed run needs less: it has two of its checkpoints, each three times the size of the weights.
        with free(8 * os.path.getsize('data/vgg/variables/variables.data-00000-of-00001')):
            self.refused('checkpoints and model need')
            self.change(made_with={'TensorFlow': '3.0'})
            self.refused('TensorFlow differs: 3.0', '--resume', self.run_folder)

    def test_a_folder_that_cannot_be_written_to_is_found_before_the_training(self):
        self.refused('/proc: cannot be written ', '--runs-dir', '/proc')  # not even by root

    def test_a_folder_of_its_own_for_each_run(self):
        """Although `latest` is taken, and the name of the folder is strange."""
        runs_dir = 'stra\u00dfe 1 *?]{'
        os.makedirs(os.path.join(runs_dir, 'latest', 'notes'))
        folder = self.new_run(runs_dir=runs_dir)
        self.assertRegex(os.path.basename(folder), r'^\d+\.\d+$')
        self.assertEqual(os.listdir(os.path.join(runs_dir, 'latest')), ['notes'])
        self.assertIn('latest: cannot be made a link to this run', self.printed.getvalue())
        names = {re.sub('^events.out.tfevents.*', 'events', name) for name in os.listdir(folder)}
        self.assertEqual(names - {files.LOCK} - set(os.listdir('data/data_road/testing/image_2')), {
            'checkpoints', 'events', 'history.jsonl', 'index.html', 'model', 'scores.json', 'settings.json'})

    def test_the_list_of_runs_is_beside_a_run_whose_path_ends_in_a_slash(self):
        self.assertEqual(self.new_run(epochs=2, validation=0.25, resume=self.run_folder + '/'), self.run_folder)
        self.assertIn('All runs: runs/index.html\n', self.printed.getvalue())

    def test_a_regularisation_that_is_not_finite_ends_the_run(self):
        status, stderr = self.main('--epochs', '1', '--batch-size', '4', '--l2', '3e38')
        self.assertEqual(status, 2)
        self.assertRegex(stderr.splitlines()[-1], '^error: the regularisation became .* in epoch 1: .*lower --l2')


if __name__ == '__main__':
    unittest.main()
