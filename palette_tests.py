"""Checks of a training on other classes than background and road."""
import json
import os
import shutil
from unittest import mock

import imageio.v2 as imageio
import numpy as np

import demo
import failure_tests
import helper
import inference
import main
import metrics
import palettes
import vgg16
from unit_tests import HERE, SHAPE, Case

EXAMPLE = os.path.join(HERE, 'demo-classes.json')
CLASSES = [('ground', (90, 60, 30), True), ('wall', (200, 200, 200), True), ('sky', (0, 120, 255), True),
           ('other', (0, 0, 0), False)]


def stripes(shape, number):
    """A picture of three bright stripes, its label of three classes, and a row of pixels that do not count."""
    borders = [0, shape[1] * (number + 1) // 8, shape[1] * (number + 3) // 8, shape[1]]
    picture, label = np.zeros(shape + (3,), np.uint8), np.zeros(shape + (3,), np.uint8)
    for index, (start, stop) in enumerate(zip(borders, borders[1:])):
        picture[:, start:stop, index] = 255
        label[8:, start:stop] = CLASSES[index][1]
    return picture, label


class Palettes(Case):
    def write(self, content):
        with open(self.path('classes.json'), 'w') as file:
            file.write(content if isinstance(content, str) else json.dumps(content))
        return self.path('classes.json')

    def test_a_file(self):
        palette = palettes.read(self.write([
            {'name': 'a', 'colour': [1, 2, 3]}, {'name': 'b', 'colour': [4, 5, 6], 'counts': False},
            {'name': 'c', 'colour': [7, 8, 9], 'counts': True}]))
        self.assertEqual((palette.names, len(palette)), (['a', 'c'], 2))
        label = np.array([[(1, 2, 3), (4, 5, 6), (7, 8, 9)]], np.uint8)
        self.assertEqual(palette.one_hot(label).tolist(), [[[True, False], [False, False], [False, True]]])
        self.assertEqual(palettes.Palette([tuple(entry.values()) for entry in palette.description]).description,
                         palette.description)

    def test_what_is_no_palette(self):
        sound = [{'name': 'a', 'colour': [1, 2, 3]}, {'name': 'b', 'colour': [4, 5, 6]}]
        for content, expected in (
                ('[', 'cannot be read as JSON'), ('[' * 100000, 'cannot be read as JSON'), ({}, 'not a list'),
                (sound[:1], 'not a list of 2'), (sound + [3], 'class 3 is not an object'),
                (sound + [{'name': 'c'}], 'class 3 is not an object'),
                (sound + [dict(sound[0], color=[1, 1, 1])], 'class 3 is not an object'),
                (sound + [dict(sound[0], name=5)], 'name of class 3'), (sound + [dict(sound[0], name=' ')], 'name of'),
                (sound + [dict(sound[0], name='accuracy')], 'accuracy is the name of a score'),
                (sound + [{'name': 'c', 'colour': [1, 2, 256]}], 'colour of c'),
                (sound + [{'name': 'c', 'colour': [1, 2, True]}], 'colour of c'),
                (sound + [{'name': 'c', 'colour': '#000'}], 'colour of c'),
                (sound + [dict(sound[0], colour=[7, 7, 7])], 'two classes have the name a'),
                (sound + [dict(sound[0], name='c')], r'two classes have the colour .1, 2, 3.'),
                ([sound[0], dict(sound[1], counts=False)], 'fewer than two of its classes count'),
                ([sound[0], dict(sound[1], counts=1)], '"counts" of b')):
            with self.subTest(expected):
                self.assertRegex(self.assert_user_error(palettes.read, self.write(content)),
                                 'classes.json: .*' + expected)
        self.assertIn('No such file', self.assert_user_error(palettes.read, self.path('nowhere.json')))

    def test_labels(self):
        folder, palette = self.path('d'), palettes.Palette(CLASSES)
        for number in range(2):
            for part, name, pixels in zip(('image_2', 'gt_image_2'), ('a_{}.png', 'a_road_{}.png'),
                                          stripes(SHAPE, number)):
                imageio.imwrite(self.path('d', part, name.format(number)), pixels)
        (images, labels), = helper.gen_batch_function(folder, (32, 64), seed=0, palette=palette)(2)
        self.assertEqual(labels.shape, (2, 32, 64, 3))
        np.testing.assert_array_equal(labels[:, 8:], images[:, 8:] > 127)
        self.assertFalse(labels[:, :4].any())
        self.assertRegex(self.assert_user_error(helper.gen_batch_function, folder, (32, 64)),
                         r'colour .*a label has only background .255, 0, 0., road')
        for name in os.listdir(self.path('d', 'gt_image_2')):
            imageio.imwrite(self.path('d', 'gt_image_2', name), np.zeros(SHAPE + (3,), np.uint8))
        self.assertRegex(self.assert_user_error(helper.gen_batch_function, folder, (32, 64), palette=palette),
                         'need two classes at least, of ground .*, wall .*, sky [^,]*, 120, 255.$')

    def test_overlays(self):
        palette = palettes.Palette(CLASSES)
        picture = np.full((2, 3, 3), 100, np.uint8)
        probability = np.zeros((2, 3, 3), np.float32)
        probability[0, :, 2] = probability[1, :, 0] = 0.4
        expected = np.empty_like(picture)
        expected[0], expected[1] = (50, 110, 177), (95, 80, 65)
        self.assertLessEqual(np.abs(palette.paint(picture, probability).astype(int) - expected).max(), 1)
        np.testing.assert_array_equal(palette.mask(probability)[0], [(0, 120, 255)] * 3)


class ClassScores(Case):
    def test_equal_sums_done_the_slow_way(self):
        random = np.random.RandomState(0)
        probability = random.dirichlet([1] * 4, size=(3, 5, 7)).astype(np.float32)
        labels = np.eye(5, dtype=bool)[random.randint(1, 5, (3, 5, 7))][..., :4]  # 0 is nowhere, 4 does not count
        probability[..., 0] = 0
        scores = metrics.ClassScores(list('abcd'))
        scores.add(probability, labels)
        found, ious = probability.argmax(-1), {}
        counts = labels.any(-1)
        for index, name in enumerate('abcd'):
            both = (found == index) & labels[..., index]
            either = ((found == index) & counts) | labels[..., index]
            ious['iou/' + name] = both.sum() / either.sum() if either.any() else None
        summary = scores.summary()
        self.assertIsNone(summary['iou/a'])
        for name, iou in ious.items():
            self.assertEqual(summary[name], iou)
        self.assertAlmostEqual(summary['mean_iou'], np.mean([iou for iou in ious.values() if iou is not None]))
        self.assertAlmostEqual(summary['pixel_accuracy'], (found == labels.argmax(-1))[counts].mean())

    def test_parts_add_up(self):
        probability, labels = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]], np.eye(3, dtype=bool)[[0, 1, 1, 2]]
        whole, parts = metrics.ClassScores(list('abc')), [metrics.ClassScores(list('abc')) for _ in range(2)]
        whole.add(probability, labels)
        for part, half in zip(parts, (slice(2), slice(2, 4))):
            part.add(probability[half], labels[half])
        self.assertEqual(sum(parts, metrics.ClassScores(list('abc'))).summary(), whole.summary())
        self.assertEqual(set(metrics.ClassScores(list('abc')).summary().values()), {None})
        table = metrics.format_table([('test', whole.summary())]).splitlines()
        self.assertEqual(table[0].split(), ['mean', 'IoU', 'accuracy', 'a', 'b', 'c'])
        self.assertEqual(table[1].split(), ['test', '0.3333', '0.5000', '0.5000', '0.5000', '0.0000'])


class Runs(failure_tests.Run):
    def setUp(self):
        super().setUp()
        shutil.rmtree('data/data_road')
        for split, count in (('training', 6), ('testing', 2)):
            for number in range(count):
                for part, name, pixels in zip(('image_2', 'gt_image_2'), ('a_{}.png', 'a_road_{}.png'),
                                              stripes(SHAPE, number)):
                    path = self.path('data/data_road', split, part, name.format(number))
                    imageio.imwrite(path, pixels)
        with open('classes.json', 'w') as file:
            json.dump([dict(name=name, colour=colour, counts=counts) for name, colour, counts in CLASSES], file)
        self.arguments = ['--classes', 'classes.json', '--batch-size', '2', '--validation', '0.3']

    def run_folder(self):
        return os.path.join('runs', os.readlink('runs/latest'))

    def test_a_run_is_scored_and_painted_by_class(self):
        shutil.rmtree('data/vgg')
        vgg16.write_slim('data/vgg', seed=1, width=1 / 16)  # with as many channels as the picture has colours, and more
        self.arguments += ['--epochs', '30', '--freeze-encoder', '--learning-rate', '0.02']
        self.assertEqual(self.main(*self.arguments)[0], 0)
        entry = self.history(self.run_folder())[-1]['validation']
        self.assertEqual(set(entry), {'mean_iou', 'pixel_accuracy', 'iou/ground', 'iou/wall', 'iou/sky'})
        self.assertGreater(entry['mean_iou'], 0.6)
        self.assertRegex(self.printed.getvalue(), r'validation mean IoU [01]\.\d+, accuracy [01]\.\d+, ')
        self.assertRegex(self.printed.getvalue(), r'\ntest +([01]\.\d{4}\s+){5}')
        overlay = imageio.imread(os.path.join(self.run_folder(), 'a_0.png')).astype(int)
        picture, label = (array.astype(int) for array in stripes(SHAPE, 0))
        right = np.abs(overlay - (picture + label) / 2).max(axis=-1)[8:] <= 2
        self.assertGreater(right.mean(), 0.7)
        with open(os.path.join(self.run_folder(), 'index.html')) as file:
            self.assertIn('mean IoU', file.read())

    def test_the_model_is_used_with_its_classes(self):
        self.assertEqual(self.main('--epochs', '1', *self.arguments)[0], 0)
        folder = self.run_folder()
        with inference.load(folder) as (model, palette):
            self.assertEqual(palette.names, ['ground', 'wall', 'sky'])
            probability = model(np.zeros((2, 50, 70, 3), np.uint8))
        self.assertEqual(probability.shape, (2, 50, 70, 3))
        np.testing.assert_allclose(probability.sum(-1), 1, atol=1e-3)
        picture = 'data/data_road/testing/image_2/a_0.png'
        self.assertEqual(self.main('--predict', picture, '--model', folder, '--save-masks')[0], 0)
        mask = imageio.imread(os.path.join(folder, 'masks', 'a_0.png'))
        self.assertLessEqual({tuple(colour) for colour in mask.reshape(-1, 3)}, {colour for _, colour, _ in CLASSES})
        self.assertEqual(self.main('--evaluate', 'data/data_road/testing', '--model', folder)[0], 0)
        with open(os.path.join(folder, 'evaluation-testing.json')) as file:
            self.assertIn('iou/wall', json.load(file)['all'])
        for content, expected in (('{', 'model/classes.json: cannot be read as JSON'),
                                  (json.dumps(palette.description[:2]), 'its classes are not those of .*classes.json')):
            with open(os.path.join(folder, 'model', 'classes.json'), 'w') as file:
                file.write(content)
            self.refused(expected, '--predict', picture, '--model', folder)
        os.remove(os.path.join(folder, 'model', 'classes.json'))
        self.refused('no road_probability: is .*classes.json there', '--predict', picture, '--model', folder)

    def test_resumed_with_the_same_classes_only(self):
        self.assertEqual(self.main('--epochs', '1', *self.arguments)[0], 0)
        folder = self.run_folder()
        self.assertEqual(self.main('--resume', folder, '--epochs', '2')[0], 0)
        os.rename('classes.json', 'moved.json')
        self.refused('classes.json: cannot be read', '--resume', folder)
        self.assertEqual(self.main('--resume', folder, '--epochs', '3', '--classes', 'moved.json')[0], 0)
        with open('moved.json') as file:
            changed = file.read().replace('wall', 'fence')
        with open('moved.json', 'w') as file:
            file.write(changed)
        self.refused('another palette', '--resume', folder, '--epochs', '4', '--classes', 'moved.json')


class Demo(Case):
    def test_the_example_has_the_colours_of_the_scenes(self):
        palette = palettes.read(EXAMPLE)
        self.assertEqual(palette.names, ['sky', 'road', 'marking', 'vegetation', 'building'])
        self.assertEqual(set(palette.colours), {tuple(colour.tolist()) for colour in demo.CLASS_COLOURS})

    def test_the_classes_of_a_scene(self):
        """As the road's label tells: road is road or its marking, what is on or beside it is neither."""
        found = set()
        for category in demo.CATEGORIES:
            _, road, _, classes = demo.draw_scene(category, (375, 1242), np.random.RandomState(5))
            rows = {tuple(colour.tolist()): index for index, colour in enumerate(demo.CLASS_COLOURS)}
            classes = np.array([[rows[tuple(colour)] for colour in row] for row in classes.tolist()])
            found |= set(np.unique(classes))
            on_road = palettes.is_colour(road, palettes.ROAD)
            self.assertLessEqual(set(np.unique(classes[on_road])), {demo.DRIVABLE, demo.MARKING})
            self.assertFalse(np.isin(classes[palettes.is_colour(road, palettes.BACKGROUND)], [demo.MARKING]).any())
            self.assertEqual(set(np.unique(classes[0])) - {demo.SKY, demo.VEGETATION, demo.BUILDING, demo.OTHER}, set())
            self.assertNotIn(demo.SKY, classes[-100:])
        self.assertEqual(found, set(range(len(demo.CLASS_COLOURS))))

    def test_command_line(self):
        settings = []
        with mock.patch.multiple(main, DEMO_TRAINING=2, DEMO_TESTING=1), \
                mock.patch.object(main, 'run', lambda **given: settings.append(given)), \
                mock.patch('sys.argv', ['main.py', '--demo', '--classes', EXAMPLE, '--data-dir', self.folder]):
            main.main()
        self.assertEqual(settings[0]['data_dir'], os.path.join(self.folder, 'demo-classes'))
        palette = palettes.read(settings[0]['classes'])
        training = os.path.join(settings[0]['data_dir'], 'data_road', 'training')
        (_, labels), = helper.gen_batch_function(training, SHAPE, palette=palette)(2)
        self.assertEqual(labels.shape, (2,) + SHAPE + (5,))
