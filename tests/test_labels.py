"""Labels in KITTI's colours, and as others have them: masks, palettes, 16 bits; what makes them wrong."""
import json

import imageio.v2 as imageio
import numpy as np
from PIL import Image

from fcn8.data import classes, labels
from fcn8.data.classes import BACKGROUND, IGNORED, ROAD
from tests.support import Case

VALUES = np.repeat(np.repeat(np.uint8([[0, 1, 2]]), 32, axis=0), 32, axis=1)  # three stripes
SMOOTH = Image.fromarray(np.arange(96, dtype=np.uint8)[np.newaxis].repeat(32, axis=0))


class Kitti(Case):
    def label(self, pixels, image_shape=None):
        """The one-hot label of a picture's pixels, [height, width, 3]."""
        imageio.imwrite(self.path('label.png'), np.array(pixels, np.uint8))
        return labels.read_label(self.path('label.png'), image_shape)

    def test_red_is_background_magenta_is_road_and_black_is_ignored(self):
        pixels = np.repeat(np.repeat([[BACKGROUND, IGNORED, ROAD]], 32, axis=0), 32, axis=1)
        label = self.label(pixels, (1, 3))
        self.assertEqual(label.dtype, bool)
        np.testing.assert_array_equal(label, [[(True, False), (False, False), (False, True)]])
        np.testing.assert_array_equal(self.label(pixels)[::32, ::32], label)

    def test_colours_are_not_blended(self):
        """Halfway between background and an ignored pixel there is no third colour, however the label is resized."""
        pixels = np.zeros((60, 90, 3))
        pixels[:, 37:] = BACKGROUND
        for image_shape in ((32, 32), (96, 256)):
            label = self.label(pixels, image_shape)
            self.assertFalse(label[..., 1].any())
            self.assertEqual(label[..., 0].all(axis=0).sum(), label[0, :, 0].sum())
            self.assertAlmostEqual(label[..., 0].mean(), 53 / 90, delta=1 / 32)


class OwnLabelCase(Case):
    def read(self, image, *entries):
        """The class of each stripe in a label, None for an ignored one.

        image: a PIL.Image of three stripes.
        entries: the classes.
        """
        image.save(self.path('label.png'))
        with open(self.path('classes.json'), 'w') as file:
            json.dump(entries, file)
        read = classes.read_classes(self.path('classes.json'))
        label = labels.read_label(self.path('label.png'), classes=read)
        self.assertEqual((label == label[:, ::32].repeat(32, axis=1)).mean(), 1)
        return [read.names[stripe.argmax()] if stripe.any() else None for stripe in label[0, ::32]]


class OwnLabels(OwnLabelCase):
    def test_grey_values(self):
        """In grey of 8 and 16 bits, with an alpha channel, in RGB, as the colours of a palette, as black and white."""
        entries = (dict(name='ground', grey=0), dict(name='road', grey=255, colour=[0, 255, 0]),
                   dict(name='unknown', grey=9, counts=False))
        stripes = Image.fromarray(np.uint8([0, 255, 9])[VALUES])
        wide = Image.fromarray(np.uint16([0, 255, 9])[VALUES])
        for image in [stripes.convert(mode) for mode in ('L', 'LA', 'RGB', 'RGBA', 'P')] + [wide]:
            self.assertEqual(self.read(image, *entries), ['ground', 'road', None], image.mode)
        self.assertEqual(self.read(stripes.point(lambda value: value > 100 and 255).convert('1'), *entries),
                         ['ground', 'road', 'ground'])
        self.assertEqual(self.read(Image.fromarray(np.uint8([[0] * 3, (0, 255, 0), [255] * 3])[VALUES]), *entries),
                         ['ground', 'road', 'road'])

    def test_palettes(self):
        """Of a palette the colours count, and where they are unknown its indices; of one of greys its colours alone."""
        image = Image.fromarray(VALUES)
        image.putpalette(sum(map(classes.voc_colour, range(256)), ()))
        expected = ['background', 'aeroplane', None]
        for marks in ([dict(grey=value) for value in range(3)],
                      [dict(colour=colour) for colour in ([0, 0, 0], [128, 0, 0], [0, 128, 0])],
                      [dict(grey=0), dict(colour=[128, 0, 0]), dict(grey=7, colour=[0, 128, 0])]):
            entries = [dict(mark, name=name, counts=name != 'bicycle')
                       for mark, name in zip(marks, ('background', 'aeroplane', 'bicycle'))]
            self.assertEqual(self.read(image, *entries), expected)
        self.assertIn('unknown colour (128, 0, 0)', self.assert_user_error(
            self.read, image, dict(name='a', colour=[0, 0, 0]), dict(name='b', colour=[1, 1, 1]),
            dict(name='c', colour=[2, 2, 2])))
        self.assertIn('unknown colour (128, 0, 0)', self.assert_user_error(
            self.read, image, dict(name='a', colour=[0, 0, 0]), dict(name='b', colour=[1, 1, 1]),
            dict(name='c', grey=2)))
        self.assertRegex(self.assert_user_error(self.read, image, dict(name='a', grey=0), dict(name='b', grey=1)),
                         'also holds {"name": "grey 2", "grey": 2}$')
        self.assertEqual(self.read(image, *(dict(name=name, grey=grey, colour=list(classes.voc_colour(grey)))
                                            for grey, name in enumerate('abc'))), ['a', 'b', 'c'])
        few = Image.fromarray(np.uint8([0, 7, 0])[VALUES])
        few.putpalette(image.getpalette())
        self.assertIn('the colours and the indices of its palette are both known classes', self.assert_user_error(
            self.read, few, *(dict(name=str(value), grey=value) for value in (0, 7, 128))))
        image.putpalette([0, 0, 0, 254, 254, 254, 255, 255, 255])
        self.assertIn('unknown colour (254, 254, 254)', self.assert_user_error(
            self.read, image, *(dict(name=str(value), grey=value) for value in (0, 1, 2, 255))))

    def test_more_than_8_bits(self):
        for others, expected in (((65535, 65535), ['a', 'b', 'b']), ((300, 300), 'go up to 300. Convert it'),
                                 ((1000, 65535), 'go up to 65535. Convert it')):
            image = Image.fromarray(np.uint16([0, *others])[VALUES])
            entries = dict(name='a', grey=0), dict(name='b', grey=255)
            if isinstance(expected, str):
                self.assertIn(expected, self.assert_user_error(self.read, image, *entries))
            else:
                self.assertEqual(self.read(image, *entries), expected)


class Advice(OwnLabelCase):
    """What is said about unknown colours works."""

    def advice(self, image, *entries):
        """What read() says about a label; without entries, without a file of classes."""
        if entries:
            return self.assert_user_error(self.read, image, *entries)
        image.save(self.path('label.png'))
        return self.assert_user_error(labels.read_label, self.path('label.png'))

    def test_a_file_of_classes_for_labels_that_need_one(self):
        for values, expected in (([0, 255, 0], ['background', 'road', 'background']),
                                 ([1, 1, 0], ['road', 'road', 'background']), ([255] * 3, ['road'] * 3),
                                 ([1, 2, 7], ['grey 1', 'grey 2', 'grey 7']),
                                 ([(0, 0, 0), (128, 0, 0), (0, 128, 0)],
                                  ['colour 0 0 0', 'colour 128 0 0', 'colour 0 128 0'])):
            image = Image.fromarray(np.uint8(values)[VALUES])
            message = self.advice(image)
            self.assertIn('--classes FILE', message)
            self.assertEqual(self.read(image, *json.loads(message[message.index('[{'):])), expected)
        self.assertIn('"grey": 255', self.advice(SMOOTH))  # a mask that was saved as JPEG

    def test_the_lines_that_a_file_lacks(self):
        for entries, values in (([dict(name='a', grey=0), dict(name='b', grey=255)], [0, 1, 1]),
                                ([dict(name='a', grey=6), dict(name='b', grey=7)], [7, 8, 33]),
                                ([dict(name='a', colour=[128, 64, 128]), dict(name='b', colour=[70, 130, 180])],
                                 [(128, 64, 128), (70, 70, 70), (0, 0, 142)])):
            image = Image.fromarray(np.uint8(values)[VALUES])
            lines = self.advice(image, *entries).partition('that also holds ')[2]
            self.assertEqual(len(set(self.read(image, *entries, *json.loads(f'[{lines}]')))), len(set(values)))

    def test_colours_that_are_nearly_right(self):
        """Off by one, as JPEG leaves them, or blended, as editors do at edges: the nearest is named."""
        label = np.uint8([ROAD, BACKGROUND, IGNORED])[VALUES]
        label[3, 40:42] = (254, 0, 1)
        expected = (r'label.png: unknown colour \(254, 0, 1\) in row 3, column 40 \(pixels of unknown colours: 2\). '
                    r'The nearest known colour is \(255, 0, 0\), background: .*docs/guide.md')
        self.assertRegex(self.advice(Image.fromarray(label)), expected)
        self.assertRegex(self.advice(SMOOTH, dict(name='a', grey=0), dict(name='b', grey=1)),
                         r'unknown colours: 3008\). The nearest known colour is \(1, 1, 1\), b: ')
