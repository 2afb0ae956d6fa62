"""Classes other than background and road: the file that names them, their labels, their overlays."""
import json

import imageio.v2 as imageio
import numpy as np

import helper
from fcn8.data import classes
from tests.support import Case

CLASSES = [{'name': 'ground', 'colour': [90, 60, 30]}, {'name': 'wall', 'colour': [200, 200, 200], 'counts': True},
           {'name': 'other', 'colour': [0, 0, 0], 'counts': False}, {'name': 'sky', 'colour': [0, 120, 255]}]


class ClassesCase(Case):
    def write(self, content=CLASSES):
        """Write a file of classes; returns its path."""
        with open(self.path('classes.json'), 'w') as file:
            file.write(content if isinstance(content, str) else json.dumps(content))
        return self.path('classes.json')


class Files(ClassesCase):
    def test_classes_keep_the_order_of_the_file(self):
        read = classes.read_classes(self.write())
        self.assertEqual((read.names, len(read)), (['ground', 'wall', 'sky'], 3))
        label = np.array([[(0, 120, 255), (0, 0, 0), (90, 60, 30), (200, 200, 200)]], np.uint8)
        self.assertEqual(read.one_hot(label).astype(int).tolist(), [[[0, 0, 1], [0, 0, 0], [1, 0, 0], [0, 1, 0]]])

    def test_a_description_can_be_read_again(self):
        description = classes.read_classes(self.write()).description
        self.assertEqual(classes.read_classes(self.write(description)).description, description)
        # What older runs have in settings.json, with which a resumed one is compared
        self.assertEqual(description, [dict(dict(counts=True), **entry) for entry in CLASSES])

    def test_a_grey_value_beside_the_colour_or_in_its_place(self):
        entries = [dict(name='ground', grey=0), dict(name='road', grey=1, colour=[0, 255, 0]), dict(name='sky', grey=2)]
        read = classes.read_classes(self.write(entries))
        label = np.repeat(np.uint8([[0, 1, 2]])[..., np.newaxis], 3, axis=-1)
        self.assertEqual(read.one_hot(label).astype(int).tolist(), [np.eye(3).tolist()])
        self.assertEqual(read.mask(np.arange(3)).tolist(), [[0, 0, 0], [0, 255, 0], [0, 128, 0]])  # Pascal VOC's third
        self.assertEqual(classes.read_classes(self.write(read.description)).description, read.description)

    def test_invalid_files(self):
        first, second = CLASSES[:2]
        for content, expected in (
                ('[', 'cannot be read as JSON'), ('[' * 100000, 'cannot be read as JSON'), ({}, 'not a list'),
                ([first], 'not a list of 2 to 256 classes'),
                ([dict(first, name=str(number), colour=[number % 256, number // 256, 0]) for number in range(257)],
                 'not a list of 2 to 256 classes'),
                ([first, second, 3], 'class 3 is not an object'),
                ([first, second, {'name': 'c'}], 'class 3 is not an object'),
                ([first, second, dict(first, color=[1, 1, 1])], 'class 3 is not an object'),
                ([first, second, dict(first, name=5)], 'name of class 3'),
                ([first, second, dict(first, name=' ')], 'name of class 3'),
                ([first, second, dict(first, name='accuracy')], 'accuracy is the name of a score'),
                ([first, second, {'name': 'c', 'colour': [1, 2, 256]}], 'colour of c'),
                ([first, second, {'name': 'c', 'colour': [1, 2, True]}], 'colour of c'),
                ([first, second, {'name': 'c', 'colour': '#000'}], 'colour of c'),
                ([first, second, dict(first, colour=[7, 7, 7])], 'two classes have the name ground'),
                ([first, second, {'name': 'c', 'grey': 256}], '"grey" of c'),
                ([first, second, {'name': 'c', 'grey': True}], '"grey" of c'),
                ([first, second, {'name': 'c', 'grey': 200}], r'two classes have the colour \(200, 200, 200\)'),
                ([first, second, dict(first, name='c')], r'two classes have the colour \(90, 60, 30\)'),
                ([first, dict(second, counts=False)], 'fewer than two of its classes count'),
                ([first, dict(second, counts=1)], '"counts" of wall')):
            with self.subTest(expected):
                self.assertRegex(self.assert_user_error(classes.read_classes, self.write(content)),
                                 r'classes\.json: .*' + expected)
        self.assertIn('No such file', self.assert_user_error(classes.read_classes, self.path('nowhere.json')))


class Labels(ClassesCase):
    """Pictures whose left, middle and right are full of red, green or blue, above them a strip of ignored pixels."""

    def setUp(self):
        super().setUp()
        colours = [entry['colour'] for entry in CLASSES if entry.get('counts', True)]
        for number in range(2):
            picture, label = np.zeros((2, 64, 96, 3), np.uint8)
            for index, part in enumerate(np.split(np.arange(96), [24 + 16 * number, 60])):
                picture[:, part, index] = 255
                label[8:, part] = colours[index]
            imageio.imwrite(self.path('d', 'image_2', f'a_{number}.png'), picture)
            imageio.imwrite(self.path('d', 'gt_image_2', f'a_road_{number}.png'), label)

    def batches(self, path):
        return helper.gen_batch_function(self.path('d'), (32, 48), seed=0, classes=path)

    def test_one_channel_for_each_class_that_counts(self):
        (images, labels), = self.batches(self.write())(2)
        self.assertEqual(labels.shape, (2, 32, 48, 3))
        self.assertFalse(labels[:, :4].any())
        one_colour = (images == 255).any(axis=-1)  # away from the edges, where the resized pictures are blended
        self.assertGreater(one_colour.mean(), 0.8)
        np.testing.assert_array_equal(labels[:, 4:][one_colour[:, 4:]], images[:, 4:][one_colour[:, 4:]] == 255)

    def test_colours_of_other_classes(self):
        self.assertRegex(self.assert_user_error(self.batches, None),
                         r'unknown colour .* background \(255, 0, 0\), road .*--classes')

    def test_labels_need_two_classes(self):
        for number in range(2):
            imageio.imwrite(self.path('d', 'gt_image_2', f'a_road_{number}.png'), np.zeros((64, 96, 3), np.uint8))
        self.assertRegex(self.assert_user_error(self.batches, self.write()),
                         'two of the classes ground [^,]*, 60, 30.*, wall .*, sky [^,]*, 120, 255.: at least two')


class Overlays(ClassesCase):
    def test_each_pixel_in_the_colour_of_its_class(self):
        read = classes.read_classes(self.write())
        picture = np.full((2, 3, 3), 100, np.uint8)
        prediction = np.array([[2] * 3, [0] * 3], np.uint8)
        expected = np.empty_like(picture)
        expected[0], expected[1] = (50, 110, 177), (95, 80, 65)
        self.assertLessEqual(np.abs(read.paint(picture, prediction).astype(int) - expected).max(), 1)
        np.testing.assert_array_equal(read.mask(prediction), [[(0, 120, 255)] * 3, [(90, 60, 30)] * 3])

    def test_the_background_stays_as_it_is(self):
        read = classes.read_classes(self.write([{'name': 'road', 'grey': 255}, {'name': 'background', 'grey': 0}]))
        picture = np.full((1, 2, 3), 100, np.uint8)
        painted = read.paint(picture, np.array([[0, 1]], np.uint8))
        self.assertTrue((painted[0, 0] > 110).all())
        np.testing.assert_array_equal(painted[0, 1], picture[0, 1])
