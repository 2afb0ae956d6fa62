"""Overlays and masks of pictures and videos, with a trained model: --predict."""
from fcn8.tf1 import tf

import base64
import glob
import logging
import os
import re
import subprocess
from unittest import mock

import imageio.v2 as imageio
import imageio_ffmpeg
import numpy as np
from PIL import Image

import main
from fcn8 import command_line
from fcn8.data import classes, images
from fcn8.data.classes import KITTI_ROAD
from fcn8.results import saved_model
from fcn8.results.predict import predict
from fcn8.results.segmenter import Segmenter
from tests.support import SHAPE, Case, cut, full_disk, read, run_signature


class Predictions(Case):
    def setUp(self):
        """A model that classifies what is red as road."""
        super().setUp()
        self.run_folder = self.path('run')
        os.mkdir(self.run_folder)
        with tf.Session() as sess:
            image, keep_prob = tf.placeholder(tf.float32, [None, None, None, 3]), tf.placeholder(tf.float32)
            red = image[..., :1]
            logits = tf.reshape(tf.concat([(100 - red) / 20, red * 0], axis=-1), [-1, 2])
            segmenter = Segmenter(sess, logits, keep_prob, image, SHAPE, KITTI_ROAD)
            segmenter.prepare_export()
            saved_model.export(segmenter, self.path('run', 'model'))

    def predict(self, path, *options):
        command_line.execute(command_line.parse(['--predict', path, '--model', self.run_folder, *options]), main.run)

    def refused(self, expected, path):
        """It ends with an error that matches, and writes nothing."""
        before = sorted(glob.glob(os.path.join(self.run_folder, '**'), recursive=True))
        self.assertRegex(self.assert_user_error(predict, path, self.run_folder), expected)
        self.assertEqual(sorted(glob.glob(os.path.join(self.run_folder, '**'), recursive=True)), before)

    def written(self, *parts):
        return imageio.imread(os.path.join(self.run_folder, *parts))

    def test_pictures_keep_their_size(self):
        for name, size in (('a.png', (50, 41)), ('b.jpg', (50, 41)), ('c.png', (90, 33))):
            small = np.random.RandomState(0).randint(0, 256, (4, 5, 3)).astype(np.uint8)
            Image.fromarray(small).resize(size, Image.BICUBIC).save(self.path('some', name))
        with open(self.path('some', 'notes.txt'), 'w'):
            pass
        self.predict(self.path('some'))
        self.predict(self.path('some', 'a.png'), '--save-masks')
        self.assertEqual(sorted(os.listdir(self.path('run', 'predicted', 'some'))),
                         ['a.png', 'b.png', 'c.png', 'index.html'])
        self.assertEqual(os.listdir(self.path('run', 'masks')), ['a.png'])
        for name in ('a.png', 'b.jpg', 'c.png'):
            picture = np.asarray(Image.open(self.path('some', name)))
            probability, = run_signature(self.path('run', 'model'), picture[np.newaxis])
            overlay = self.written('predicted', 'some', name.replace('jpg', 'png'))
            np.testing.assert_array_equal(overlay.shape, picture.shape)
            other = (overlay != KITTI_ROAD.paint(picture, probability)).any(axis=-1)
            self.assertLess(other.mean(), 0.01)  # single pixels, as Pillow and TensorFlow round differently
            if name == 'a.png':
                self.assertTrue(0.1 < (probability > 0.5).mean() < 0.9)
                np.testing.assert_array_equal(self.written('predicted', name), overlay)
                mask = self.written('masks', name)
                self.assertLess((mask != 255 * (probability > 0.5)).mean(), 0.01)
                np.testing.assert_array_equal(overlay, KITTI_ROAD.paint(picture, mask / np.float32(255)))

    def test_results_replace_older_ones_as_a_whole(self):
        for place, names in (('one', 'ab'), ('two', 'c')):
            for name in names:
                imageio.imwrite(self.path(place, 'some', name + '.png'), np.zeros((40, 50, 3), np.uint8))
            self.predict(self.path(place, 'some'), '--save-masks')
        for kind, names in (('predicted', ['c.png', 'index.html']), ('masks', ['c.png'])):
            self.assertEqual(sorted(os.listdir(self.path('run', kind, 'some'))), names)
        self.assertNotIn('a.png', read(self.path('run', 'predicted', 'some', 'index.html')).decode())

    def test_the_page_of_a_folder(self):
        """Its pictures are no larger than they need to be; a page says where it is, and no picture has one."""
        for name, size in (('um_<b>.png', (3000, 40)), ('no category.jpg', (64, 40))):
            Image.fromarray(np.full(size[::-1] + (3,), (255, 0, 0), np.uint8)).save(self.path('some', name))
        self.predict(self.path('some'))
        self.assertEqual(self.printed.getvalue().splitlines()[-2:], [
            f'{name}: {os.path.join(self.run_folder, "predicted", "some", file)}'.rstrip('/')
            for name, file in (('Overlays', ''), ('Page', 'index.html'))])
        page = read(os.path.join(self.run_folder, 'predicted', 'some', 'index.html')).decode()
        self.assertNotIn('<b>.png', page)
        self.assertEqual(re.findall('data-category="(.*?)"', page), ['none', 'um'])
        addresses = re.findall(r'(?:src|href)="(.*?)"', page)
        self.assertEqual(set(address.split(',')[0] for address in addresses), {'data:', 'data:image/jpeg;base64'})
        shown = [imageio.imread(base64.b64decode(address.split(',')[1])) for address in addresses[1:]]
        self.assertEqual([picture.shape[:2] for picture in shown], [(40, 64)] * 3 + [(17, 1280)] * 3)
        self.assertGreater(shown[0][..., 1].min(), 100)  # the overlay is green
        self.assertLess(shown[1][..., 1].max(), 20)
        self.predict(self.path('some', 'um_<b>.png'))
        self.assertNotIn('Page', self.printed.getvalue().splitlines()[-1])

    def test_pictures_of_an_upright_camera_are_turned(self):
        exif = Image.Exif()
        exif[0x0112] = 6
        picture = np.zeros((40, 60, 3), np.uint8)
        picture[:, :20] = 255
        Image.fromarray(picture).save(self.path('phone.jpg'), exif=exif)
        self.predict(self.path('phone.jpg'), '--save-masks')
        mask = self.written('masks', 'phone.png')
        self.assertEqual(mask.shape, (60, 40))
        self.assertTrue(mask[:16].all() and not mask[24:].any())

    def write_video(self, name, size=(40, 64), frames=11):
        """The left half of each frame brightens from black to white; the right half is black."""
        path = self.path(name)
        with imageio.get_writer(path, format='FFMPEG', fps=12.5, macro_block_size=1, quality=10,
                                pixelformat='yuv444p', ffmpeg_log_level='error') as writer:
            for number in range(frames):
                frame = np.zeros(size + (3,), np.uint8)
                frame[:, :size[1] // 2] = 255 * number // (frames - 1)
                writer.append_data(frame)
        return path

    def test_videos(self):
        for size in ((40, 64), (35, 63)):
            self.predict(self.write_video('drive.mkv', size), '--save-masks')
            with imageio.get_reader(self.path('run', 'predicted', 'drive.mp4'), format='FFMPEG') as reader:
                meta, frames = reader.get_meta_data(), [frame for frame in reader]  # a reader claims to be endless
            self.assertEqual((meta['fps'], meta['size'], len(frames)), (12.5, size[::-1], 11))
            middle = size[0] // 2
            np.testing.assert_allclose(frames[0][middle, 10], [0, 0, 0], atol=25)
            np.testing.assert_allclose(frames[-1][middle, 10], [128, 255, 128], atol=25)
            self.assertEqual(len(os.listdir(self.path('run', 'masks', 'drive'))), 11)
            mask = self.written('masks', 'drive', '000010.png')
            self.assertEqual((mask.shape, mask[middle, 10], mask[middle, -10]), (size, 255, 0))

    def test_a_video_filmed_upright_whose_name_has_a_colon(self):
        video = self.write_video('lying.mp4')
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder)
        # Of the two ffmpegs, each knows one of the ways.
        turned = ['-i', video, '-metadata:s:v', 'rotate=90'] if tf.__version__.startswith('1.') else [
            '-display_rotation', '90', '-i', video]
        subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), '-loglevel', 'error', *turned, '-c', 'copy', './10:12.mp4'],
                       check=True)
        handler = mock.Mock(level=logging.WARNING)
        logging.getLogger('imageio_ffmpeg').addHandler(handler)
        self.addCleanup(logging.getLogger('imageio_ffmpeg').removeHandler, handler)
        self.predict('10:12.mp4')
        handler.handle.assert_not_called()  # that it turns the frames
        with imageio.get_reader(self.path('run', 'predicted', '10:12.mp4'), format='FFMPEG') as reader:
            self.assertEqual(reader.get_meta_data()['size'], (40, 64))

    def test_frames_at_uneven_intervals_are_not_repeated(self):
        even = self.write_video('even.mkv')
        subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), '-loglevel', 'error', '-i', even, '-vf',
                        'setpts=(N*0.1+0.5*gt(N\\,5)*(N-5))/TB', '-vsync', 'vfr', self.path('uneven.mkv')], check=True)
        count, seconds = imageio_ffmpeg.count_frames_and_secs(self.path('uneven.mkv'))
        self.predict(self.path('uneven.mkv'))
        new_count, new_seconds = imageio_ffmpeg.count_frames_and_secs(self.path('run', 'predicted', 'uneven.mp4'))
        self.assertEqual(new_count, count)
        self.assertAlmostEqual(new_seconds, seconds, delta=0.2 * seconds)

    def test_a_video_is_never_in_memory_as_a_whole(self):
        """Each frame is painted before many more are read: two for each thread, and a batch."""
        path, events = self.write_video('drive.mp4', frames=40), []
        get_reader, paint = imageio.get_reader, classes.Road.paint

        def get_counting_reader(*args, **kwargs):
            reader = get_reader(*args, **kwargs)
            iter_data = reader.iter_data
            reader.iter_data = lambda: (events.append(1) or frame for frame in iter_data())
            return reader

        with mock.patch.object(imageio, 'get_reader', get_counting_reader), \
                mock.patch.object(saved_model, 'BATCH_PIXELS', 2 * 40 * 64), mock.patch.object(images, 'THREADS', 2), \
                mock.patch.object(classes.Road, 'paint', lambda *args: events.append(-1) or paint(*args)):
            self.predict(path)
        self.assertEqual((len(events), sum(events)), (80, 0))
        self.assertLess(max(np.cumsum(events)), 12)

    def test_a_video_that_is_cut_off_is_painted_as_far_as_it_goes(self):
        path = self.write_video('cut.mkv', frames=60)
        cut(path)
        self.predict(path)
        self.assertRegex(self.printed.getvalue(), r'cut.mkv: ends after \d+ frames, [\d.]+ of 4.8 seconds')

    def test_an_overlay_that_cannot_be_written_is_reported(self):
        path = self.write_video('drive.mkv')
        with full_disk(500):
            self.refused('drive.mkv: its overlay (cannot be written|is incomplete)', path)

    def test_what_is_neither_picture_nor_video_is_refused(self):
        os.mkdir(self.path('empty'))
        for name, content in (('text.txt', 'text'), ('text.mp4', 'text'), ('text.png', 'text'),
                              ('photo.webp', 'text'), ('list.m3u8', '#EXTM3U\n#EXTINF:1\nhttp://127.0.0.1:9/a.ts\n')):
            with open(self.path(name), 'w') as file:
                file.write(content)
        for name, expected in (('nowhere', 'no such picture'), ('empty', 'no PNG or JPEG pictures'),
                               ('text.txt', 'nor a video'), ('text.mp4', 'nor a video'), ('list.m3u8', 'nor a video'),
                               ('photo.webp', 'photo.webp: .* python -c'), ('text.png', 'cannot be read as a picture')):
            with self.subTest(name):
                self.refused(expected, self.path(name))
