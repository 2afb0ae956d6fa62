"""A main.py written for the starter project runs unchanged beside this project's helper.py and project_tests.py."""
from fcn8.tf1 import tf  # noqa: F401

import glob
import os
import re
import shutil
import subprocess
import sys

import imageio.v2 as imageio
import numpy as np

from fcn8.data import vgg16
from fcn8.data.classes import BACKGROUND
from tests.support import FIXTURES, ROOT, Case

SHAPE = (32, 64)  # height, width of the pictures, also in the other author's main.py


class StarterInterface(Case):
    def write_data(self):
        """As many pictures as KITTI has, though few different ones, and a tiny VGG-16."""
        for split, count in (('training', 289), ('testing', 290)):
            folder = self.write_kitti(os.path.join('data/data_road', split), shape=SHAPE)
            for path in glob.glob(os.path.join(folder, 'gt_image_2', '*')):  # the starter project ignores no pixels
                label = imageio.imread(path)
                imageio.imwrite(path, np.where(label.any(axis=-1, keepdims=True), label, np.uint8(BACKGROUND)))
            for number in range(4, count):
                for name in ('image_2/um_{:06d}.png', 'gt_image_2/um_road_{:06d}.png', 'gt_image_2/um_lane_{:06d}.png'):
                    os.link(*(os.path.join(folder, name.format(index)) for index in (number % 4, number)))
        shutil.rmtree(self.path('data/data_road/testing/gt_image_2'))
        vgg16.write_slim(self.path('data/vgg'), seed=1, width=1 / 64)

    def test_a_main_of_another_author(self):
        self.write_data()
        shutil.copytree(os.path.join(ROOT, 'fcn8'), self.path('fcn8'))
        for name in ('helper.py', 'project_tests.py'):
            shutil.copy(os.path.join(ROOT, name), self.path(name))
        shutil.copy(os.path.join(FIXTURES, 'starter_main.py'), self.path('main.py'))
        process = subprocess.run([sys.executable, 'main.py'], cwd=self.folder, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, text=True)
        self.assertEqual(process.returncode, 0, process.stdout)
        self.assertEqual(process.stdout.count('Tests Passed\n'), 4, process.stdout)
        first, *_, last = map(float, re.findall('Loss = (.*)', process.stdout)[-4:])
        self.assertLess(last, first / 2)

        run, = glob.glob(self.path('runs', '*'))
        self.assertEqual(sorted(os.listdir(run)), [f'um_{number:06d}.png' for number in range(290)])
        for number in range(4):
            name = f'um_{number:06d}.png'
            picture = imageio.imread(self.path('data/data_road/testing/image_2', name))
            overlay = imageio.imread(os.path.join(run, name))
            self.assertEqual(overlay.shape, SHAPE + (3,))
            painted = (overlay != picture).any(axis=-1)
            road = picture.min(axis=-1) >= 150
            self.assertGreater((painted & road).sum() / (painted | road).sum(), 0.7, name)
            green = np.rint(picture[painted] / 2 + (0, 127.5, 0))
            np.testing.assert_allclose(overlay[painted], green, atol=2)
