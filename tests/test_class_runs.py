"""Runs with classes other than background and road: training, scores, overlays, model, resumption, demo."""
import json
import os
import shutil
import tempfile
from unittest import mock

import imageio.v2 as imageio
import numpy as np

import helper
from fcn8 import command_line
from fcn8.data import classes, demo, scenes, vgg16
from fcn8.results import saved_model
from tests.support import ROOT, SHAPE, Case, RunCase, run_signature

EXAMPLE = os.path.join(ROOT, 'docs', 'demo-classes.json')
CLASSES = [('ground', (90, 60, 30), True), ('wall', (200, 200, 200), True), ('sky', (0, 120, 255), True),
           ('other', (0, 0, 0), False)]
PICTURE = 'data/data_road/testing/image_2/a_0.png'


def stripes(number):
    """A picture of three bright stripes and its label of three classes, with a strip of ignored pixels at the top."""
    borders = [0, SHAPE[1] * (number + 1) // 8, SHAPE[1] * (number + 3) // 8, SHAPE[1]]
    picture, label = np.zeros((2,) + SHAPE + (3,), np.uint8)
    for index, (start, stop) in enumerate(zip(borders, borders[1:])):
        picture[:, start:stop, index] = 255
        label[8:, start:stop] = CLASSES[index][1]
    return picture, label


class ClassRuns(RunCase):
    """Tests with a copy of the folders of a run, which the class trains once."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls._kept = None

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        if cls._kept:
            shutil.rmtree(cls._kept)

    def setUp(self):
        super().setUp()
        shutil.rmtree('data')
        if not self._kept:
            type(self)._kept = tempfile.mkdtemp()
            os.chdir(self._kept)
            self.train()
            os.chdir(self.folder)
        for name in os.listdir(self._kept):
            (shutil.copytree if os.path.isdir(os.path.join(self._kept, name)) else shutil.copy)(
                os.path.join(self._kept, name), name)

    def train(self):
        """Train in the current folder until the stripes are distinguished."""
        for split, count in (('training', 6), ('testing', 2)):
            for number in range(count):
                for part, name, pixels in zip(('image_2', 'gt_image_2'), ('a_{}.png', 'a_road_{}.png'),
                                              stripes(number)):
                    folder = os.path.join('data', 'data_road', split, part)
                    os.makedirs(folder, exist_ok=True)
                    imageio.imwrite(os.path.join(folder, name.format(number)), pixels)
        vgg16.write_slim('data/vgg', seed=1, width=1 / 16)  # with as many channels as the picture has colours, and more
        with open('classes.json', 'w') as file:
            json.dump([dict(name=name, colour=colour, counts=counts) for name, colour, counts in CLASSES], file)
        status, errors = self.main('--classes', 'classes.json', '--batch-size', '2', '--validation', '0.3', '--epochs',
                                   '30', '--freeze-encoder', '--learning-rate', '0.02')
        self.assertEqual(status, 0, errors)
        os.rename(os.path.join('runs', os.readlink('runs/latest')), 'run')
        shutil.rmtree('runs')
        with open('printed', 'w') as file:
            file.write(self.printed.getvalue())

    def test_the_run_is_scored_and_painted_by_class(self):
        entry = self.history('run')[-1]['validation']
        self.assertEqual(set(entry), {'mean_iou', 'pixel_accuracy', 'iou/ground', 'iou/wall', 'iou/sky'})
        self.assertGreater(entry['mean_iou'], 0.6)
        with open('printed') as file:
            printed = file.read()
        self.assertRegex(printed, r'validation mean IoU [01]\.\d+, accuracy [01]\.\d+, ')
        self.assertRegex(printed, r'\ntest +([01]\.\d{4}\s+){5}')
        overlay = imageio.imread('run/a_0.png').astype(int)
        picture, label = (array.astype(int) for array in stripes(0))
        right = np.abs(overlay - (picture + label) / 2).max(axis=-1)[8:] <= 2
        self.assertGreater(right.mean(), 0.7)
        with open('run/index.html') as file:
            self.assertIn('mean IoU', file.read())

    def test_the_model_knows_its_classes(self):
        picture = imageio.imread(PICTURE)
        with saved_model.load('run') as model:
            self.assertEqual(model.classes.names, ['ground', 'wall', 'sky'])
            (_, small), (_, prediction) = model.segment([picture[:50, :70], picture])
        for part, predicted in ((picture[:50, :70], small), (picture, prediction)):
            probability, = run_signature('run/model', part[np.newaxis])
            self.assertEqual(probability.shape, part.shape[:2] + (3,))
            np.testing.assert_allclose(probability.sum(-1), 1, atol=1e-3)
            self.assertLess((predicted != probability.argmax(-1)).mean(), 0.01)
        self.assertEqual(self.main('--predict', PICTURE, '--model', 'run', '--save-masks')[0], 0)
        colours = np.array([colour for _, colour, counts in CLASSES if counts], np.uint8)
        np.testing.assert_array_equal(imageio.imread('run/masks/a_0.png'), colours[prediction])
        self.assertEqual(self.main('--evaluate', 'data/data_road/testing', '--model', 'run')[0], 0)
        with open('run/evaluation-testing.json') as file:
            self.assertGreater(json.load(file)['all']['iou/wall'], 0.5)

    def test_a_model_without_its_classes(self):
        with open('run/model/classes.json') as file:
            content = json.load(file)
        for text, expected in (('{', 'model/classes.json: cannot be read as JSON'),
                               (json.dumps(content[:2]), 'its classes are not those of .*classes.json')):
            with open('run/model/classes.json', 'w') as file:
                file.write(text)
            self.refused(expected, '--predict', PICTURE, '--model', 'run')
        os.remove('run/model/classes.json')
        self.refused('no road_probability: is .*classes.json missing', '--predict', PICTURE, '--model', 'run')

    def test_resumed_with_the_same_classes_only(self):
        os.rename('classes.json', 'moved.json')
        self.refused('classes.json: cannot be read', '--resume', 'run', '--epochs', '31')
        self.assertEqual(self.main('--resume', 'run', '--epochs', '31', '--classes', 'moved.json')[0], 0)
        self.assertEqual(len(self.history('run')), 31)
        with open('moved.json') as file:
            changed = file.read().replace('wall', 'fence')
        with open('moved.json', 'w') as file:
            file.write(changed)
        self.refused('classes differs', '--resume', 'run', '--epochs', '32', '--classes', 'moved.json')


class Demo(Case):
    def test_the_example_has_the_colours_of_the_scenes(self):
        example = classes.read_classes(EXAMPLE)
        self.assertEqual(example.names, ['sky', 'road', 'marking', 'vegetation', 'building'])
        self.assertEqual(set(example.colours), {tuple(colour.tolist()) for colour in scenes.CLASS_COLOURS})

    def test_the_classes_of_a_scene(self):
        """They agree with the label of the road: there is road or marking; on and beside it there is neither."""
        def colours(pixels):
            return set(map(tuple, np.unique(pixels.reshape(-1, 3), axis=0).tolist()))

        found = set()
        for category in scenes.CATEGORIES:
            _, surfaces = scenes.draw_scene(category, (375, 1242), np.random.RandomState(5))
            road, label = scenes.LABEL_COLOURS[surfaces], scenes.CLASS_COLOURS[surfaces]
            found |= colours(label)
            self.assertLessEqual(colours(label[classes.is_colour(road, classes.ROAD)]),
                                 {scenes.DRIVABLE, scenes.MARKING})
            self.assertNotIn(scenes.MARKING, colours(label[classes.is_colour(road, classes.BACKGROUND)]))
            self.assertLessEqual(colours(label[0]), {scenes.SKY, scenes.VEGETATION, scenes.BUILDING, scenes.OTHER})
            self.assertNotIn(scenes.SKY, colours(label[-100:]))
        self.assertEqual(found, colours(scenes.CLASS_COLOURS))

    def test_command_line(self):
        given = []
        os.makedirs(self.path('demo-classes', 'vgg'))  # as if an earlier start had written it
        options = command_line.parse(['--demo', '--classes', EXAMPLE, '--data-dir', self.folder])
        with mock.patch.multiple(demo, TRAINING=2, TESTING=1):
            command_line.execute(options, given.append)
        settings, = given
        self.assertEqual(settings.data_dir, os.path.join(self.folder, 'demo-classes'))
        (_, labels), = helper.gen_batch_function(settings.training_folder, SHAPE, classes=settings.classes)(2)
        self.assertEqual(labels.shape, (2,) + SHAPE + (5,))
