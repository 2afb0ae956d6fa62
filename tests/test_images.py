"""Pictures read from disk, written to it, and worked on in threads."""
import os
import subprocess
import sys
import threading
from unittest import mock

import imageio.v2 as imageio
import numpy as np
from PIL import Image

from fcn8.data import images
from tests.support import Case

# In blocks of 8x8 pixels, which JPEG keeps; upside down or mirrored they are other pictures.
BLOCKS = np.kron(np.arange(0, 240, 10).reshape(4, 6), np.ones((8, 8))).astype(np.uint8)
COLOURS = np.stack([BLOCKS, BLOCKS[::-1], BLOCKS[:, ::-1]], axis=-1)


class Reading(Case):
    def test_pictures_of_any_camera(self):
        for name, image, expected in (
                ('colour', Image.fromarray(COLOURS), COLOURS),
                ('grey', Image.fromarray(BLOCKS), np.stack([BLOCKS] * 3, axis=-1)),
                ('16-bit grey', Image.fromarray(BLOCKS.astype(np.uint16) * 256 + 77), np.stack([BLOCKS] * 3, axis=-1)),
                ('RGBA', Image.fromarray(np.dstack([COLOURS, BLOCKS])), COLOURS),
                ('palette', Image.fromarray(COLOURS).quantize(256), COLOURS)):
            with self.subTest(name):
                image.save(self.path('picture.png'))
                picture = images.read_picture(self.path('picture.png'))
                self.assertEqual(picture.dtype, np.uint8)
                np.testing.assert_array_equal(picture, expected)
        for mode, colour in (('RGB', (200, 200, 200)), ('L', 200), ('CMYK', (55, 55, 55, 0))):
            with self.subTest('JPEG ' + mode):
                Image.new(mode, (48, 32), colour).save(self.path('picture.JPG'))
                np.testing.assert_array_equal(images.read_picture(self.path('picture.JPG')), np.full((32, 48, 3), 200))

    def test_other_formats_are_refused_with_the_command_that_converts_them(self):
        exif, turned = Image.Exif(), np.rot90(COLOURS, -1)
        exif[images.EXIF_ORIENTATION] = 6
        for name, settings, expected in (('a b.c.tif', dict(exif=exif), turned), ('b.BMP', {}, COLOURS),
                                         ('c.webp', dict(lossless=True, exif=exif), turned)):
            path = self.path("it's here", name)
            imageio.imwrite(self.path("it's here", 'other.png'), COLOURS)
            Image.fromarray(COLOURS).save(path, **settings)
            message = self.assert_user_error(images.list_pictures, os.path.dirname(path))
            self.assertIn(path, message)
            command = message[message.index('python -c'):].replace('python', sys.executable, 1)
            subprocess.run(command, shell=True, check=True)
            picture = os.path.splitext(path)[0] + '.png'
            self.assertIn(picture, images.list_pictures(os.path.dirname(path)))
            np.testing.assert_array_equal(images.read_picture(picture), expected)

    def test_is_resized_smoothly(self):
        stripes = np.zeros((32, 64, 3), np.uint8)
        stripes[:, ::2] = 100
        imageio.imwrite(self.path('picture.png'), stripes)
        picture = images.read_picture(self.path('picture.png'), (64, 32))
        self.assertEqual(picture.shape, (64, 32, 3))
        self.assertTrue(((picture > 20) & (picture < 80)).all())

    def test_a_turned_camera(self):
        """JPEGs with an orientation, also those with more than one frame, are turned upright."""
        second_frame = Image.new('RGB', (48, 32))
        for number, settings in enumerate((dict(format='JPEG'),
                                           dict(format='MPO', save_all=True, append_images=[second_frame]))):
            for orientation, turn in ((1, lambda picture: picture), (3, lambda picture: picture[::-1, ::-1]),
                                      (6, lambda picture: np.rot90(picture, -1)), (8, np.rot90)):
                with self.subTest('{format} {0}'.format(orientation, **settings)):
                    path = self.path(f'{number}-{orientation}.jpg')
                    exif = Image.Exif()
                    exif[images.EXIF_ORIENTATION] = orientation
                    Image.fromarray(COLOURS).save(path, exif=exif, quality=100, subsampling=0, **settings)
                    with Image.open(path) as image:
                        self.assertEqual(image.format, settings['format'])
                    expected = turn(COLOURS)
                    self.assertEqual(images.size_of(path), expected.shape[1::-1])
                    picture = images.read_picture(path)
                    self.assertEqual(picture.shape, expected.shape)
                    self.assertLess(np.abs(picture.astype(int) - expected).mean(), 4)

    def test_a_folder_holds_pictures_and_other_files(self):
        for name in ('b.png', 'a.JPG', 'c.jpeg'):
            Image.new('RGB', (32, 32)).save(self.path('mixed [1]', name))
        for name in ('notes.txt', 'png', 'd.png.part'):
            open(self.path('mixed [1]', name), 'w').close()
        listed = images.list_pictures(self.path('mixed [1]'))
        self.assertEqual([os.path.basename(path) for path in listed], ['a.JPG', 'b.png', 'c.jpeg'])

    def test_two_pictures_whose_results_would_have_one_name(self):
        for name in ('a.jpg', 'a.k.png', 'a.png'):
            Image.new('RGB', (32, 32)).save(self.path('pictures', name))
        self.assertRegex(self.assert_user_error(images.list_pictures, self.path('pictures', '')),
                         'a.jpg and .*a.png: two pictures with the same name')


class Writing(Case):
    def test_what_is_written_is_read_again(self):
        for picture in (COLOURS, BLOCKS):
            images.write_picture(self.path('picture.png'), picture)
            np.testing.assert_array_equal(imageio.imread(self.path('picture.png')), picture)

    def test_a_write_error_names_the_file_and_leaves_nothing(self):
        def disk_full(*args):
            raise OSError(28, 'No space left on device')

        with mock.patch.object(os, 'replace', disk_full):
            self.assertRegex(self.assert_user_error(images.write_pictures, [(self.path('um_1.png'), COLOURS)], 1),
                             'um_1.png: cannot be written .*No space left')
        self.assertEqual(os.listdir(self.folder), [])


class InOrder(Case):
    def test_results_keep_the_order_of_the_items(self):
        later = threading.Event()

        def double(item):
            if item == 0:
                later.wait(60)  # until another has been worked on
            else:
                later.set()
            return 2 * item

        self.assertEqual(list(images.in_order(double, range(9), threads=3)), list(range(0, 18, 2)))
        self.assertTrue(later.is_set())

    def test_works_ahead_of_its_caller_but_not_without_end(self):
        taken, third = [], threading.Event()

        def items():
            for item in range(100):
                taken.append(item)
                yield item

        results = images.in_order(lambda item: third.set() if item == 2 else None, items(), threads=2)
        next(results)
        self.assertTrue(third.wait(60))  # the caller has not asked for it
        self.assertEqual(taken, [0, 1, 2])
        next(results)
        self.assertEqual(taken, [0, 1, 2, 3])
        results.close()

    def test_an_error_comes_in_its_turn(self):
        results = images.in_order(lambda item: 1 // item, [2, 1, 0, 1], threads=1)
        self.assertEqual([next(results), next(results)], [0, 1])
        with self.assertRaises(ZeroDivisionError):
            next(results)
