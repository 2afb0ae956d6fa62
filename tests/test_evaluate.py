"""Scores of a model on a folder: --evaluate."""
import errno
import glob
import json
import os
import shutil
from unittest import mock

import imageio.v2 as imageio
import numpy as np

import main
from fcn8 import command_line, files
from fcn8.data import images, kitti, labels
from fcn8.results import metrics, saved_model
from fcn8.results.evaluate import evaluate
from tests.support import FIXTURES, SHAPE, Case


class Evaluation(Case):
    def setUp(self):
        super().setUp()
        shutil.copytree(glob.glob(os.path.join(FIXTURES, 'TensorFlow-*'))[0], self.path('run'))

    def test_scores_by_category_in_the_labels_own_size(self):
        folder = self.write_kitti('other', count=3, shape=(50, 70))
        for path in glob.glob(os.path.join(folder, '*', '*_000002.png')):
            os.rename(path, path.replace('um_', 'uu_'))
        command_line.execute(command_line.parse(['--evaluate', folder, '--model', self.path('run')]), main.run)
        with open(self.path('run', 'evaluation-other.json')) as file:
            table = json.load(file)
        self.assertEqual({name: scores['pictures'] for name, scores in table['categories'].items()}, {'um': 2, 'uu': 1})
        self.assertEqual(table['all']['pictures'], 3)
        total = metrics.RoadScores()
        with saved_model.load(self.path('run')) as model:
            for path, label in kitti.pair_with_labels(folder):
                (_, probability), = model.segment([images.read_picture(path)])
                total.add(probability, labels.read_label(label))
        self.assertEqual(total.road.sum() + total.background.sum(), 3 * 42 * 70)  # without the rows that are ignored
        for name, value in total.summary().items():
            self.assertAlmostEqual(table['all'][name], value, places=3)
        self.assertRegex(self.printed.getvalue(), r'\nuu( +[\d.]+){9}\n')

    def test_folders_with_one_name_have_files_of_their_own(self):
        folders = [self.write_kitti(os.path.join(parent, 'testing'), count=1) for parent in ('a', 'b')]
        for folder in folders + folders[:1]:
            evaluate(folder, self.path('run'))
        self.assertEqual(sorted(os.listdir(self.path('run'))),
                         ['evaluation-testing-2.json', 'evaluation-testing.json', 'model'])
        for name, folder in zip(('evaluation-testing.json', 'evaluation-testing-2.json'), folders):
            with open(self.path('run', name)) as file:
                self.assertEqual(json.load(file)['folder'], folder)

    def test_a_run_that_is_read_only_is_refused_before_the_work(self):
        read_only = OSError(errno.EROFS, os.strerror(errno.EROFS))
        with mock.patch.object(files.tempfile, 'TemporaryFile', side_effect=read_only):
            message = self.assert_user_error(evaluate, self.write_kitti(count=1), self.path('run'))
        self.assertRegex(message, 'run: cannot be written .Read-only file system.. Make it writable')
        self.assertNotIn('um', self.printed.getvalue())

    def test_what_cannot_be_evaluated_is_refused(self):
        def refused(expected, folder):
            self.assertIn(expected, self.assert_user_error(evaluate, folder, self.path('run')))

        refused('image_2: no such folder', self.folder)
        folder = self.write_kitti(count=2)
        labels = sorted(glob.glob(os.path.join(folder, 'gt_image_2', 'um_road_*')))
        for label in labels:
            imageio.imwrite(label, np.zeros(SHAPE + (3,), np.uint8))
        refused('all pixels of the labels are ignored', folder)
        os.remove(labels[1])
        refused('um_road_000001.png or um_000001.png is missing', folder)
        self.assertEqual(os.listdir(self.path('run')), ['model'])
