"""Pictures, labels and models that are missing, damaged or of the wrong kind, and strange ones that are sound."""
import glob
import os
import shutil
import struct
import unittest
import zlib
from unittest import mock

from fcn8.tf1 import tf

import imageio.v2 as imageio
import numpy as np
from PIL import Image

from fcn8.data import images
from fcn8.data.classes import ROAD
from tests.support import LABEL, PICTURE, SHAPE, RunCase, cut, png, png_header, write

TESTING_PICTURE = PICTURE.replace('training', 'testing')


class ManyPictures(RunCase):
    """More pictures than are read before the first step."""

    def setUp(self):
        super().setUp()
        self.write_kitti('data/data_road/training', count=7)
        checked = mock.patch.object(images, 'CHECKED', 3)
        checked.start()
        self.addCleanup(checked.stop)
        self.picture, self.label = (path.replace('000001', '000002') for path in (PICTURE, LABEL))  # not among the 3

    def test_every_file_is_checked_for_being_whole(self):
        for path in (self.picture, self.label):
            for damage in (cut, lambda path: write(path, b''), lambda path: write(path, b'no picture')):
                with self.subTest(path):
                    shutil.copy(path, 'sound')
                    damage(path)
                    self.refused(path + ': cannot be read as a picture')
                    shutil.move('sound', path)

    def test_damage_inside_is_reported_when_the_picture_is_used(self):
        with open(self.picture, 'r+b') as file:
            file.seek(os.path.getsize(self.picture) // 2)
            file.write(b'damage')
        status, errors = self.main('--epochs', '1', '--cache-mb', '0')
        self.assertEqual(status, 2)
        self.assertRegex(errors.splitlines()[-1], '^error: ' + self.picture + ': cannot be read as a picture')
        self.assertIn('Settings, history and checkpoints: ', self.printed.getvalue())  # the training had begun


class BadPictures(RunCase):
    def test_data_folder(self):
        self.refused('nowhere: no such folder', '--data-dir', 'nowhere')
        os.makedirs('empty')
        self.refused('VGG-16 .*--demo', '--data-dir', 'empty')
        shutil.copytree('data/vgg', 'empty/vgg')
        self.refused('KITTI .*--demo', '--data-dir', 'empty')

    def test_no_pictures(self):
        for split in ('training', 'testing'):
            with self.subTest(split):
                folder = f'data/data_road/{split}/image_2'
                os.rename(folder, 'away')
                os.makedirs(folder)
                self.refused(split + '/image_2: no PNG or JPEG pictures')
                os.rmdir(folder)
                os.rename('away', folder)

    def test_labels(self):
        def unknown_colour():
            label = imageio.imread(LABEL)
            label[20, 30:32] = (0, 200, 7)
            imageio.imwrite(LABEL, label)

        def grey_mask():
            label = Image.open(LABEL).convert('L')
            label.point(lambda value: value and 255).save(LABEL)

        def all_black():
            for path in glob.glob('data/data_road/training/gt_image_2/*'):
                Image.new('RGB', SHAPE[::-1]).save(path)

        for damage, expected in (
                (lambda: os.remove(LABEL), 'um_000001.png: its label um_road_000001.png or um_000001.png is missing'),
                (lambda: Image.new('RGB', (40, 50)).save(LABEL), 'um_road_000001.png: the label has 40x50 pixels'),
                (grey_mask, r'um_road_000001.png: .* mask\. .* train with --classes FILE: .*"grey": 0}, .*"grey": 255, '
                            '.*}.$'),
                (unknown_colour, r'um_road_000001.png: unknown colour \(0, 200, 7\) in row 20, column 30 '
                                 r'\(pixels of unknown colours: 2\)'),
                (all_black, 'gt_image_2: the labels show fewer than two of the classes background .255, 0'),
                (lambda: shutil.rmtree('data/data_road/training/gt_image_2'), 'training/gt_image_2 is missing')):
            shutil.copytree('data', 'sound')
            damage()
            with self.subTest(expected):
                self.refused(expected)
            shutil.rmtree('data')
            os.rename('sound', 'data')

    def test_damaged_files(self):
        def loop(path):
            os.symlink(os.path.basename(path), path)

        def first_half(path):
            shutil.copy('away', path)
            cut(path)

        def short_chunk(path):
            """Sound but for one chunk, which Pillow reads after the pixels."""
            rows = zlib.compress(bytes((1 + 3 * SHAPE[1]) * SHAPE[0]))
            write(path, png((b'IHDR', struct.pack('>IIBBBBB', *SHAPE[::-1], 8, 2, 0, 0, 0)), (b'IDAT', rows),
                            (b'gAMA', b'x'), (b'IEND', b'')))

        for damage, expected in (
                (lambda path: write(path, b'no picture'), 'cannot be read as a picture'),
                (lambda path: write(path, b''), 'cannot be read as a picture'),
                (first_half, 'cannot be read as a picture'),
                (lambda path: write(path, png_header(60000, 60000)), 'cannot be read as a picture .*pixels'),
                (lambda path: write(path, png_header(11000, 11000)), '11000x11000 pixels, .* Make it smaller'),
                (lambda path: Image.new('RGB', (1, 1)).save(path), '1x1 pixels are too few'),
                (short_chunk, 'cannot be read as a picture'),
                (lambda path: write(path, b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n'),
                 'cannot be read as a picture .cannot identify image file'),  # for which Pillow would start Ghostscript
                (loop, 'cannot be read as a picture .*symbolic links'),
                (os.mkfifo, 'cannot be read as a picture .*not a file'),
                (os.mkdir, 'cannot be read as a picture .*not a file')):
            for path in (PICTURE, LABEL, TESTING_PICTURE):
                os.rename(path, 'away')
                damage(path)
                with self.subTest(path + ' ' + expected):
                    self.refused(path + ': ' + expected)
                os.rmdir(path) if os.path.isdir(path) else os.remove(path)
                os.rename('away', path)

    def test_names(self):
        folder = os.path.dirname(PICTURE)
        for name, expected in (('street.png', 'street.png: its label street.png is missing'),
                               ('um_000001.jpg', 'um_000001.jpg and .*um_000001.png: two pictures with the same name')):
            shutil.copy(PICTURE, os.path.join(folder, name))
            with self.subTest(name):
                self.refused(expected)
            os.remove(os.path.join(folder, name))

    def test_strange_but_sound_pictures(self):
        """Grey, transparent, with a palette, 16 bits deep, CMYK, of another size, with more behind their end."""
        picture = Image.open(PICTURE)
        picture.load()
        for number, image in enumerate((
                picture.convert('L'), picture.convert('RGBA'), picture.quantize(16),
                Image.fromarray(np.asarray(picture.convert('L')).astype(np.uint16) * 256))):
            image.save(f'data/data_road/training/image_2/um_{number:06d}.png')
        for name in ('um m_000009', 'stra\u00dfe_000009'):
            image, label_name = picture.resize((120, 80)), name.replace('_', '_road_')
            label = Image.new('RGB', image.size, ROAD)
            image.convert('CMYK').save(f'data/data_road/training/image_2/{name}.jpg')
            label.save(f'data/data_road/training/gt_image_2/{label_name}.png')
            image.save(f'data/data_road/testing/image_2/{name}.png')
            label.save(f'data/data_road/testing/gt_image_2/{label_name}.png')
            for path in (f'training/image_2/{name}.jpg', f'training/gt_image_2/{label_name}.png'):
                with open(os.path.join('data/data_road', path), 'ab') as file:
                    file.write(b'what some cameras add')
        self.accepted()
        for name in ('um m_000009', 'stra\u00dfe_000009'):
            self.assertEqual(imageio.imread(f'runs/latest/{name}.png').shape, SHAPE + (3,))


class BadModel(RunCase):
    def write_model(self, tag='vgg16', channels=(4, 8, 64), leave_out=None, dtype=tf.float32,
                    picture=(None, None, None, 3)):
        """Write a SavedModel with the names of VGG-16, whose layers are placeholders, and one variable."""
        shutil.rmtree('data/vgg')
        with tf.Graph().as_default(), tf.Session() as sess:
            variable = tf.get_variable('x', [], initializer=tf.zeros_initializer())
            tf.placeholder(tf.float32, picture, name='image_input')
            tf.placeholder(tf.float32, [], name='keep_prob')
            for name, depth in zip(('layer3_out', 'layer4_out', 'layer7_out'), channels):
                if name != leave_out:
                    tf.placeholder(dtype, [None] * (1 if depth == 0 else 3) + [depth], name=name)
            sess.run(variable.initializer)
            builder = tf.saved_model.builder.SavedModelBuilder('data/vgg')
            builder.add_meta_graph_and_variables(sess, [tag])
            builder.save()

    def test_damaged_or_incomplete(self):
        variables = 'data/vgg/variables'
        for path, damage, expected in (
                (variables, shutil.rmtree, 'variables/variables.index is missing'),
                (variables + '/variables.data-00000-of-00001', cut, 'not the VGG-16 model, or damaged'),
                (variables + '/variables.index', cut, 'not the VGG-16 model, or damaged'),
                ('data/vgg/saved_model.pb', cut, 'not the VGG-16 model, or damaged')):
            shutil.copytree('data/vgg', 'sound')
            damage(path)
            with self.subTest(path):
                self.refused('data/vgg: ' + expected)
            shutil.rmtree('data/vgg')
            os.rename('sound', 'data/vgg')

    def test_other_models(self):
        for settings, expected in ((dict(tag='serve'), 'vgg16'), (dict(leave_out='layer4_out'), 'layer4_out'),
                                   (dict(channels=(4, 8, 0)), 'layer7_out is float32'),
                                   (dict(channels=(4, None, 64)), 'channels of layer4_out is unknown'),
                                   (dict(picture=[None, 224, 224, 3]), 'image_input is float32'),
                                   (dict(dtype=tf.int32), 'layer3_out is int32')):
            with self.subTest(expected):
                self.write_model(**settings)
                self.refused('data/vgg: not the VGG-16 model, or damaged: .*' + expected)


if __name__ == '__main__':
    unittest.main()
