"""The checks of what goes wrong: bad input, runs that are stopped or killed, disks that are full. No network."""
import contextlib
import glob
import io
import json
import os
import resource
import shutil
import signal
import stat
import struct
import subprocess
import sys
import time
import zlib
from unittest import mock

from tf1 import tf

import imageio.v2 as imageio
import numpy as np
from PIL import Image

import helper
import main
import palettes
import recorder
import safety
import vgg16
from unit_tests import Case, HERE, SHAPE

LAYERS = main.layers
PICTURE = 'data/data_road/training/image_2/um_000001.png'
LABEL = 'data/data_road/training/gt_image_2/um_road_000001.png'


class Run(Case):
    """A test with a data folder of small pictures and a slim VGG-16."""

    def setUp(self):
        super().setUp()
        here = os.getcwd()
        self.addCleanup(os.chdir, here)
        os.chdir(self.folder)
        self.write_kitti('data/data_road/training')
        self.write_kitti('data/data_road/testing', count=2)
        vgg16.write_slim('data/vgg', seed=1, width=1 / 64)
        for patch in (mock.patch.object(main, 'IMAGE_SHAPE', SHAPE),
                      mock.patch.multiple(helper, VGG_URL='http://127.0.0.1:9/', KERAS_URL='http://127.0.0.1:9/',
                                          KITTI_URL='http://127.0.0.1:9/')):
            patch.start()
            self.addCleanup(patch.stop)
        for signum in (signal.SIGINT, signal.SIGTERM):
            self.addCleanup(signal.signal, signum, signal.getsignal(signum))

    def main(self, *arguments):
        """What main.py does with these arguments; returns (exit status, what it wrote to stderr)."""
        errors = io.StringIO()
        with mock.patch.object(sys, 'argv', ['main.py'] + list(arguments)), contextlib.redirect_stderr(errors):
            try:
                main.main()
            except SystemExit as ended:
                return ended.code, errors.getvalue()
        return 0, errors.getvalue()

    def refused(self, expected, *arguments):
        """main.py ends in one line that matches, with exit status 2, and writes nothing."""
        before = self.files()
        status, errors = self.main(*(arguments or ('--epochs', '1')))
        self.assertEqual(status, 2, errors)
        last = errors.splitlines()[-1]
        self.assertRegex(last, '^(main.py: )?error: ')
        self.assertRegex(last, expected)
        self.assertNotIn('Traceback', errors)
        self.assertEqual(self.files(), before)

    def accepted(self):
        """main.py trains and paints with what is there."""
        status, errors = self.main('--epochs', '1')
        self.assertEqual(status, 0, errors)

    def files(self):
        """{path: content} of all there is but the folder of the runs."""
        found = {}
        for folder, folders, names in os.walk('.'):
            found.update((os.path.join(folder, name), None) for name in folders if name != 'runs')
            for path in (os.path.join(folder, name) for name in names):
                regular = os.path.isfile(path) and stat.S_ISREG(os.lstat(path).st_mode)
                found[path] = open(path, 'rb').read() if regular else None
        return found

    def new_run(self, epochs=1, **settings):
        settings = dict(dict(epochs=epochs, batch_size=2, learning_rate=0.01, image_shape=SHAPE), **settings)
        return main.run('data', 'runs', **settings)

    def history(self, folder):
        with open(os.path.join(folder, 'history.jsonl')) as file:
            return [json.loads(line) for line in file]


def write(path, content):
    with open(path, 'wb') as file:
        file.write(content)


def cut(path):
    with open(path, 'r+b') as file:
        file.truncate(os.path.getsize(path) // 2)


def png(*chunks):
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))
        for name, content in chunks)


def png_header(width, height):
    """A PNG that says it has so many pixels and holds none."""
    return png((b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)), (b'IDAT', zlib.compress(b'')),
               (b'IEND', b''))


def png_with_a_short_chunk():
    """Whole but for one chunk, which Pillow reads after the pixels."""
    return png((b'IHDR', struct.pack('>IIBBBBB', SHAPE[1], SHAPE[0], 8, 2, 0, 0, 0)),
               (b'IDAT', zlib.compress(bytes((1 + 3 * SHAPE[1]) * SHAPE[0]))), (b'gAMA', b'x'), (b'IEND', b''))


class ManyPictures(Run):
    """More than are read before the first step."""

    def setUp(self):
        super().setUp()
        self.write_kitti('data/data_road/training', count=7)
        checked = mock.patch.object(helper, 'CHECKED', 3)
        checked.start()
        self.addCleanup(checked.stop)
        self.picture, self.label = (path.replace('000001', '000002') for path in (PICTURE, LABEL))  # not among the 3

    def test_only_some_are_read(self):
        with mock.patch.object(helper, 'read_picture', wraps=helper.read_picture) as read:
            helper.gen_batch_function('data/data_road/training', SHAPE)
        self.assertEqual([os.path.basename(call[0][0]) for call in read.call_args_list],
                         ['um_00000{}.png'.format(number) for number in (0, 3, 6)])

    def test_others_that_are_cut_off_or_none_are_found_too(self):
        for path in (self.picture, self.label):
            for damage in (cut, lambda path: write(path, b''), lambda path: write(path, b'no picture')):
                with self.subTest(path):
                    shutil.copy(path, 'sound')
                    damage(path)
                    self.refused(path + ': cannot be read as a picture')
                    shutil.move('sound', path)

    def test_others_that_are_damaged_inside_are_found_when_they_are_used(self):
        with open(self.picture, 'r+b') as file:
            file.seek(os.path.getsize(self.picture) // 2)
            file.write(b'damage')
        status, errors = self.main('--epochs', '1', '--cache-mb', '0')
        self.assertEqual(status, 2)
        self.assertRegex(errors.splitlines()[-1], '^error: ' + self.picture + ': cannot be read as a picture')

    def test_what_follows_a_picture_is_no_damage(self):
        Image.open(self.picture).save('um_000002.jpg')
        shutil.move('um_000002.jpg', os.path.dirname(self.picture))
        os.remove(self.picture)
        for path in (self.picture.replace('.png', '.jpg'), self.label):
            with open(path, 'ab') as file:
                file.write(b'what some cameras add')
        self.accepted()


class BadPictures(Run):
    def test_data_folder(self):
        self.refused('nowhere: no such folder', '--data-dir', 'nowhere')
        os.makedirs('empty')
        self.refused('VGG-16 cannot be had from .*--demo', '--data-dir', 'empty')
        shutil.copytree('data/vgg', 'empty/vgg')
        self.refused('KITTI road set cannot be had from .*--demo', '--data-dir', 'empty')

    def test_no_pictures(self):
        for split in ('training', 'testing'):
            with self.subTest(split):
                folder = 'data/data_road/{}/image_2'.format(split)
                os.rename(folder, 'away')
                os.makedirs(folder)
                self.refused(split + '/image_2: no PNG or JPEG pictures')
                os.rmdir(folder)
                os.rename('away', folder)

    def test_labels(self):
        def strange_colour():
            label = imageio.imread(LABEL)
            label[20, 30:32] = (0, 200, 7)
            imageio.imwrite(LABEL, label)

        def all_black():
            for path in glob.glob('data/data_road/training/gt_image_2/*'):
                Image.new('RGB', SHAPE[::-1]).save(path)

        for damage, expected in (
                (lambda: os.remove(LABEL), 'um_000001.png: its label um_road_000001.png is missing'),
                (lambda: Image.new('RGB', (40, 50)).save(LABEL), 'um_road_000001.png: the label has 40x50 pixels'),
                (strange_colour, r'um_road_000001.png: the colour \(0, 200, 7\) in row 20, column 30, and 1 more such'),
                (all_black, 'gt_image_2: the labels together need two classes at least, of background .255, 0'),
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

        for damage, expected in (
                (lambda path: write(path, b'no picture'), 'cannot be read as a picture'),
                (lambda path: write(path, b''), 'cannot be read as a picture'),
                (lambda path: write(path, self.sound[:len(self.sound) // 2]), 'cannot be read as a picture'),
                (lambda path: write(path, png_header(60000, 60000)), 'cannot be read as a picture .*pixels'),
                (lambda path: write(path, png_header(11000, 11000)), 'cannot be read as a picture .*pixels'),
                (lambda path: Image.new('RGB', (1, 1)).save(path), '1x1 pixels are too few'),
                (lambda path: write(path, png_with_a_short_chunk()), 'cannot be read as a picture'),
                (lambda path: write(path, b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n'),
                 'cannot be read as a picture'),  # for which Pillow would start Ghostscript
                (loop, 'cannot be read as a picture .*symbolic links'),
                (os.mkfifo, 'cannot be read as a picture .*not a file'),
                (os.mkdir, 'cannot be read as a picture .*not a file')):
            for path in (PICTURE, LABEL, PICTURE.replace('training', 'testing')):
                os.rename(path, 'away')
                with open('away', 'rb') as file:
                    self.sound = file.read()
                damage(path)
                with self.subTest(path + ' ' + expected):
                    self.refused(path + ': ' + expected)
                os.rmdir(path) if os.path.isdir(path) else os.remove(path)
                os.rename('away', path)

    def test_names(self):
        folder = os.path.dirname(PICTURE)
        for name, expected in (('street.png', 'street.png: a name of the form'),
                               ('um_000001.jpg', 'um_000001.jpg and .*um_000001.png')):
            shutil.copy(PICTURE, os.path.join(folder, name))
            with self.subTest(name):
                self.refused(expected)
            os.remove(os.path.join(folder, name))

    def test_strange_but_sound_pictures(self):
        picture = Image.open(PICTURE)
        picture.load()
        for number, image in enumerate((
                picture.convert('L'), picture.convert('RGBA'), picture.quantize(16),
                Image.fromarray(np.asarray(picture.convert('L')).astype(np.uint16) * 256))):
            image.save('data/data_road/training/image_2/um_{:06d}.png'.format(number))
        for stem in ('um m_000009', 'stra\u00dfe_000009'):
            image = picture.resize((120, 80))
            image.convert('CMYK').save('data/data_road/training/image_2/{}.jpg'.format(stem))
            label = Image.new('RGB', image.size, palettes.ROAD)
            label.save('data/data_road/training/gt_image_2/{}.png'.format(stem.replace('_', '_road_')))
            image.save('data/data_road/testing/image_2/{}.png'.format(stem))
            label.save('data/data_road/testing/gt_image_2/{}.png'.format(stem.replace('_', '_road_')))
        self.accepted()
        self.assertEqual(len(glob.glob('runs/latest/stra\u00dfe_000009.png')), 1)

    def test_image_shape(self):
        for shape in (['100', '96'], ['0', '96'], ['64', '1e2'], ['64']):
            self.refused('argument --image-shape: .*(multiple of 32|2 arguments)', '--image-shape', *shape)


class BadModel(Run):
    def write_model(self, tag='vgg16', channels=(4, 8, 64), leave_out=None, dtype=tf.float32,
                    picture=(None, None, None, 3)):
        """A SavedModel with the names of VGG-16, whose layers are placeholders with a variable on top."""
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

    def test_folder_missing(self):
        shutil.rmtree('data/vgg')
        self.refused('VGG-16 cannot be had from http.*Unpack vgg.zip to data/vgg by hand')

    def test_parts(self):
        for damage, expected in ((lambda: shutil.rmtree('data/vgg/variables'), 'variables.index is missing'),
                                 (lambda: cut(glob.glob('data/vgg/variables/*.data*')[0]), 'weights in .*damaged'),
                                 (lambda: cut('data/vgg/variables/variables.index'), 'weights in .*damaged'),
                                 (lambda: cut('data/vgg/saved_model.pb'), 'not the VGG-16 model')):
            shutil.copytree('data/vgg', 'sound')
            damage()
            with self.subTest(expected):
                self.refused('data/vgg: .*' + expected)
            shutil.rmtree('data/vgg')
            os.rename('sound', 'data/vgg')

    def test_other_models(self):
        for settings, expected in ((dict(tag='serve'), 'vgg16'), (dict(leave_out='layer4_out'), 'layer4_out'),
                                   (dict(channels=(4, 8, 0)), 'layer7_out is float32'),
                                   (dict(channels=(4, None, 64)), 'channels of layer4_out are not known'),
                                   (dict(picture=[None, 224, 224, 3]), 'image_input is float32'),
                                   (dict(dtype=tf.int32), 'layer3_out is int32')):
            with self.subTest(expected):
                self.write_model(**settings)
                self.refused('data/vgg: not the VGG-16 model: .*' + expected)

    def test_layers_that_do_not_fit_together(self):
        """Found by TensorFlow only when it computes."""
        with mock.patch.object(main, 'layers', lambda layer3, layer4, layer7, **_: tf.layers.conv2d(
                layer3 + layer3[:, 1:, 1:], 2, 1)):
            status, errors = self.main('--epochs', '1')
        self.assertEqual(status, 2)
        self.assertRegex(errors.splitlines()[-1], '^error: TensorFlow cannot go on: Incompatible shapes.*--debug')
        self.assertNotIn('Traceback', errors)

    def test_debug_shows_the_trace(self):
        shutil.rmtree('data/vgg/variables')
        status, errors = self.main('--debug')
        self.assertEqual(status, 2)
        self.assertIn('Traceback (most recent call last)', errors)
        self.assertRegex(errors.splitlines()[-1], '^error: data/vgg: variables/variables.index is missing')


class BadRuns(Run):
    """What --resume refuses."""

    def setUp(self):
        super().setUp()
        self.run_folder = self.new_run(epochs=2)
        self.settings = os.path.join(self.run_folder, 'settings.json')

    def change(self, **changes):
        with open(self.settings) as file:
            content = json.load(file)
        for part, values in changes.items():
            content[part].update(values)
        with open(self.settings, 'w') as file:
            json.dump(content, file)

    def test_no_run(self):
        os.makedirs('empty')
        for folder in ('nowhere', 'empty', 'data'):
            self.refused(folder + ': no run', '--resume', folder)
        self.refused('settings.json: cannot be read', '--resume', self.settings)
        for content in (b'', b'{', b'[]', b'\xff\xfe', b'[' * 100000, b'{"settings": 3}', b'{"settings": {}}',
                        b'{"settings": {}, "made_with": {}, "about": 3, "changes": []}',
                        b'__import__("os").mkdir("evaluated")'):
            with self.subTest(content[:30]):
                write(self.settings, content)
                self.refused('settings.json: ', '--resume', self.run_folder)

    def test_settings_that_make_no_sense(self):
        for name, value in (('epochs', -1), ('epochs', None), ('batch_size', 0), ('learning_rate', 'nan'), ('l2', [1]),
                            ('seed', True), ('amp', 5), ('help', True), ('resume', 'x'), ('data_dir', 'nowhere'),
                            ('data_dir', False)):
            with self.subTest('{} {}'.format(name, value)):
                shutil.copy(self.settings, 'sound')
                self.change(settings={name: value})
                expected = value if value == 'nowhere' else name.replace('_', '.')
                self.refused(expected, '--resume', self.run_folder)
            shutil.move('sound', self.settings)

    def test_other_options(self):
        for options in (['--seed', '0'], ['--demo'], ['--amp'], ['--runs-dir', 'runs'], ['--epochs', '1']):
            self.refused(options[0], '--resume', self.run_folder, *options)

    def test_made_with_something_else(self):
        self.change(made_with={'TensorFlow': '3.0'})
        self.refused('another TensorFlow: 3.0, and here it is ' + tf.__version__, '--resume', self.run_folder)
        self.change(made_with={'TensorFlow': tf.__version__, 'precision': 'float16'})
        self.refused('another precision: float16', '--resume', self.run_folder)
        self.change(made_with={'precision': 'float32'})
        with open('classes.json', 'w') as file:
            json.dump([dict(name=name, colour=colour) for name, colour in (
                ('background', palettes.BACKGROUND), ('road', palettes.ROAD), ('sky', (0, 0, 0)))], file)
        self.refused('another palette: ', '--resume', self.run_folder, '--classes', 'classes.json')
        os.remove('classes.json')
        with mock.patch.object(main, 'layers', lambda *layers, **settings: LAYERS(
                *(tf.tile(layer, [1, 1, 1, 2]) for layer in layers), **settings)):
            self.refused('of another network', '--resume', self.run_folder)
        shutil.rmtree('data/vgg')
        vgg16.write_slim('data/vgg', seed=2, width=1 / 64)
        self.refused('another VGG-16', '--resume', self.run_folder)
        shutil.rmtree('data/vgg')
        vgg16.write_slim('data/vgg', seed=1, width=1 / 64)
        os.remove(PICTURE)
        os.remove(LABEL)
        self.refused('another set of training pictures', '--resume', self.run_folder)

    def test_in_use(self):
        other = recorder.Recorder('runs', {}, {}, {}, self.run_folder)
        with other:
            self.refused('another process is at this run', '--resume', self.run_folder)
        self.assertEqual(self.main('--resume', self.run_folder)[0], 0)

    def test_no_checkpoint_is_whole(self):
        for path in glob.glob(os.path.join(self.run_folder, 'checkpoints', '*', 'weights.index')):
            cut(path)
        self.refused('no checkpoint is whole', '--resume', self.run_folder)


class Resume(Run):
    def stop_in(self, step, act, **settings):
        """A run of three epochs in which `act` happens after a step."""
        steps = iter(range(1, 99))
        add_step = recorder.Progress.add_step

        def add_step_and_act(progress, *args):
            if next(steps) == step:
                act()
            add_step(progress, *args)
        with mock.patch.object(recorder.Progress, 'add_step', add_step_and_act):
            try:
                self.new_run(epochs=3, **settings)
            except KeyboardInterrupt as stopped:
                return stopped
        return None

    def kill(self, signum):
        os.kill(os.getpid(), signum)

    def losses(self, folder):
        return [entry['cross_entropy'] for entry in self.history(folder)]

    def assert_equal_runs(self, folder, expected):
        """Both have the same history, and the same weights after the same best epoch."""
        np.testing.assert_allclose(self.losses(folder), self.losses(expected), atol=1e-6)
        self.assertEqual([entry['best'] for entry in self.history(folder)],
                         [entry['best'] for entry in self.history(expected)])
        with np.load(os.path.join(folder, 'checkpoints', 'best.npz')) as ours, \
                np.load(os.path.join(expected, 'checkpoints', 'best.npz')) as others:
            self.assertEqual(set(ours), set(others))
            for name in ours:
                np.testing.assert_allclose(ours[name], others[name], atol=1e-4, err_msg=name)

    def test_a_resumed_run_equals_an_unbroken_one(self):
        for freeze_encoder in (False, True):
            with self.subTest(freeze_encoder=freeze_encoder):
                unbroken = self.new_run(epochs=3, batch_size=3, freeze_encoder=freeze_encoder)
                # Of the two steps of an epoch, in the middle of the second
                stopped = self.stop_in(3, lambda: self.kill(signal.SIGTERM), batch_size=3,
                                       freeze_encoder=freeze_encoder)
                folder = os.path.join('runs', os.readlink('runs/latest'))
                self.assertEqual(stopped.signum, signal.SIGTERM)
                self.assertEqual(str(stopped),
                                 'after 1 epochs and 3 pictures; to go on: python main.py --resume ' + folder)
                self.assertEqual(len(self.losses(folder)), 1)
                self.assertEqual(self.main('--resume', folder, '--epochs', '3')[0], 0)
                self.assert_equal_runs(folder, unbroken)
                self.assertEqual([entry['epoch'] for entry in self.history(folder)], [1, 2, 3])
                self.assertEqual(len(glob.glob(os.path.join(folder, '*.png'))), 2)

    def test_more_epochs_are_recorded(self):
        unbroken = self.losses(self.new_run(epochs=3))
        folder = self.new_run(epochs=2)
        os.rename('data', 'moved')
        self.assertEqual(self.main('--resume', folder + '/', '--epochs', '3', '--data-dir', 'moved')[0], 0)
        np.testing.assert_allclose(self.losses(folder), unbroken, atol=1e-6)
        with open(os.path.join(folder, 'settings.json')) as file:
            content = json.load(file)
        self.assertEqual(content['changes'], [{'epochs': 3, 'data_dir': 'moved'}])
        self.assertEqual(content['settings']['epochs'], 3)

    def test_a_run_without_a_checkpoint_starts_again(self):
        unbroken = self.losses(self.new_run(epochs=3))
        with mock.patch.object(recorder.Recorder, 'save'):
            self.stop_in(4, lambda: self.kill(signal.SIGINT))
        folder = os.path.join('runs', os.readlink('runs/latest'))
        self.assertEqual(os.listdir(os.path.join(folder, 'checkpoints')), [])
        self.assertEqual(self.main('--resume', folder)[0], 0)
        np.testing.assert_allclose(self.losses(folder), unbroken, atol=1e-6)

    def test_a_damaged_checkpoint_gives_way_to_the_one_before(self):
        def flip(path):
            with open(path, 'r+b') as file:
                file.seek(os.path.getsize(path) // 2)
                byte = file.read(1)
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte[0] ^ 1]))

        with mock.patch.object(recorder, 'SAVE_INTERVAL', 0):
            unbroken = self.new_run(epochs=3)
        def replace_by_a_folder(path):
            os.remove(path)
            os.mkdir(path)

        for name, damages in (('weights.index', [flip, os.remove]), ('weights.data-00000-of-00001', [flip, cut]),
                              ('state.json', [flip, replace_by_a_folder])):
            for damage in damages:
                with self.subTest(name):
                    folder = shutil.copytree(unbroken, 'runs/copy')
                    newest, = glob.glob('runs/copy/checkpoints/epoch-00003-*')
                    damage(os.path.join(newest, name))
                    os.makedirs('runs/copy/checkpoints/.fcn8-scratch-of-a-kill/epoch-00003-picture-000002')
                    os.utime('runs/copy/checkpoints/.fcn8-scratch-of-a-kill', (0, 0))
                    self.printed.truncate(0)
                    self.assertEqual(self.main('--resume', folder)[0], 0)
                    self.assertIn(newest + ': damaged', self.printed.getvalue())
                    self.assert_equal_runs(folder, unbroken)
                    self.assertEqual([name for name in os.listdir('runs/copy/checkpoints') if 'scratch' in name], [])
                    shutil.rmtree(folder)

    def test_a_killed_process(self):
        """With SIGKILL, and after that with two Ctrl-C."""
        unbroken = self.losses(main.run('data', 'unbroken', epochs=40, batch_size=2, image_shape=SHAPE))
        arguments = ['--epochs', '40', '--batch-size', '2', '--image-shape'] + [str(side) for side in SHAPE]
        for signum, epoch, status in ((signal.SIGKILL, 1, -9), (signal.SIGINT, 3, 130)):
            process = subprocess.Popen([sys.executable, os.path.join(HERE, 'main.py')] + arguments,
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
            for line in process.stdout:
                if line.startswith('Epoch {}/'.format(epoch)):
                    process.send_signal(signum)
                    time.sleep(2 * safety.SAME_SIGNAL)
                    process.send_signal(signum)  # a second Ctrl-C, if the first has not yet stopped it
                    break
            errors = process.communicate()[1]
            self.assertEqual(process.returncode, status, errors)
            self.assertNotIn('Traceback', errors)
            folder = os.path.join('runs', os.readlink('runs/latest'))
            arguments = ['--resume', folder]
            if signum != signal.SIGKILL:
                self.assertRegex(errors.splitlines()[-1],
                                 '^stopped (after .*python main.py --resume ' + folder + '|at once)')
        self.assertEqual(self.main(*arguments)[0], 0)
        np.testing.assert_allclose(self.losses(folder), unbroken, atol=1e-4)


class Signals(Run):
    def test_a_second_ctrl_c_stops_at_once(self):
        code = ('import safety, time\n'
                'with safety.stop_between_steps() as stop_requested:\n'
                '    print("ready", flush=True)\n'
                '    while not stop_requested(): time.sleep(0.01)\n'
                '    print("first", flush=True)\n'
                '    time.sleep(60)\n')
        process = subprocess.Popen([sys.executable, '-c', code], env=dict(os.environ, PYTHONPATH=HERE),
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
        self.assertEqual(process.stdout.readline(), 'ready\n')
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.stdout.readline(), 'first\n')
        time.sleep(2 * safety.SAME_SIGNAL)
        start = time.time()
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.communicate()[1].strip(), 'stopped at once')
        self.assertEqual(process.returncode, 130)
        self.assertLess(time.time() - start, 30)

    def test_a_pair_of_signals_is_one(self):
        with mock.patch.object(safety, 'SAME_SIGNAL', 60), self.assertRaises(safety.Stopped), \
                safety.stop_between_steps() as stop_requested:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            while not stop_requested():
                time.sleep(0.01)
        self.assertEqual(stop_requested(), signal.SIGTERM)

    def test_before_the_training(self):
        with mock.patch.object(os, '_exit') as end, mock.patch.object(
                main, 'load_vgg', lambda *_: os.kill(os.getpid(), signal.SIGTERM)):
            _, errors = self.main('--epochs', '1')
        end.assert_called_once_with(143)
        self.assertEqual(errors.splitlines()[-1], 'stopped')

    def test_while_painting(self):
        with mock.patch.object(os, '_exit') as end, mock.patch.object(
                helper, 'save_inference_samples', lambda *_: os.kill(os.getpid(), signal.SIGINT)):
            _, errors = self.main('--epochs', '1')
        end.assert_called_once_with(130)
        self.assertRegex(errors.splitlines()[-1], 'stopped after 1 epochs and 0 pictures; .*--resume runs/')


class Disk(Run):
    @contextlib.contextmanager
    def file_size_limit(self, size):
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)

    def test_full_while_a_checkpoint_is_written(self):
        """The one before is intact, and nothing else is left."""
        unbroken = self.new_run(epochs=3)
        folder = self.new_run(epochs=2)
        checkpoints = os.path.join(folder, 'checkpoints')
        before = sorted(os.listdir(checkpoints))
        for what, patch in (('the checkpoint', mock.patch.object(recorder.Recorder, '_write_event')),
                            ("TensorBoard's events", contextlib.suppress())):
            with self.file_size_limit(50000), patch:
                status, errors = self.main('--resume', folder, '--epochs', '3')
            self.assertEqual(status, 2)
            self.assertRegex(errors.splitlines()[-1],
                             '^error: .*{} cannot be written .*File too large.*--resume {}'.format(what, folder))
            self.assertEqual(sorted(os.listdir(checkpoints)), before)
        self.assertEqual(self.main('--resume', folder)[0], 0)
        np.testing.assert_allclose([entry['cross_entropy'] for entry in self.history(folder)],
                                   [entry['cross_entropy'] for entry in self.history(unbroken)], atol=1e-6)

    def test_room_is_looked_for_before_the_training(self):
        with mock.patch.object(shutil, 'disk_usage', return_value=mock.Mock(free=1e3)):
            self.refused(r'runs: 0\.0 MB are free, and checkpoints and model need [\d.]+ MB')
            self.refused(r'data: 0\.0 MB are free, and the features need [\d.]+ MB', '--freeze-encoder')

    def test_what_a_killed_process_has_left_is_removed_unless_it_is_in_use(self):
        left, used, young, foreign = [safety.SCRATCH + name for name in ('left', 'used', 'young')] + ['.scratch']
        for name in (left, used, young, foreign):
            os.makedirs(os.path.join(name, 'data_road'))
            if name != young:
                os.utime(name, (0, 0))
        with safety.locked(used), safety.scratch_folder('.') as scratch:
            self.assertEqual(set(glob.glob('.*')), {used, young, foreign, os.path.basename(scratch)})
        self.assertEqual(set(glob.glob('.*')), {used, young, foreign})

    def test_read_only(self):
        with mock.patch.object(main, 'train_nn') as train_nn:
            self.refused('/proc: no folder to write to', '--runs-dir', '/proc')  # which not even root can write to
        self.assertFalse(train_nn.called)

    def test_names_of_folders_that_tensorflow_takes_for_something_else(self):
        for name in ('a[1]', 'a\\b', os.fsdecode(b'\xff')):
            self.refused('Rename it', '--runs-dir', name)
            self.refused('Rename it', '--data-dir', name)

    def test_runs_of_the_same_moment_get_folders_of_their_own(self):
        times = iter([5., 5., 6.])
        with mock.patch.object(recorder.time, 'time', lambda: next(times)):
            records = [recorder.Recorder('.', {}, {}, {}) for _ in range(2)]
            for record in records:
                record._make_folder()
        self.assertEqual([record.folder for record in records], ['./5.0', './6.0'])


class Checkpoints(Run):
    def record(self):
        """A recorder that saves one small variable, its session, and a clock that stands still."""
        self.now = 0.
        clock = mock.patch.object(recorder.time, 'time', lambda: self.now)
        clock.start()
        self.addCleanup(clock.stop)
        variable = tf.get_variable('x', [1000], initializer=tf.zeros_initializer())
        sess = tf.Session()
        self.addCleanup(sess.close)
        sess.run(variable.initializer)
        record = recorder.Recorder('.', {}, {}, {})
        self.addCleanup(record.__exit__, None, None, None)
        self.assertFalse(record.begin(sess, tf.constant(0.5)))
        return record, sess

    def names(self, record):
        return sorted(os.listdir(os.path.join(record.folder, 'checkpoints')))

    def train(self, record, sess, losses):
        for epoch, loss in zip(record.epochs(len(record.history) + len(losses)), losses):
            record.add_step(sess, loss, 3)
            record.add_epoch(sess)
            record.save(sess)

    def test_the_last_two_are_kept_and_the_weights_of_the_best_epoch_once(self):
        record, sess = self.record()
        other = os.path.join(record.folder, 'checkpoints', 'epoch-notes')
        os.makedirs(other)
        variable, = tf.trainable_variables()
        for loss in [5, 4, 1, 3, 2, 1, 6]:
            variable.load(np.full(1000, loss + 10 * len(record.history)), sess)
            self.train(record, sess, [loss])
        os.rmdir(other)
        self.assertEqual(self.names(record), ['best.npz'] + [
            'epoch-0000{}-picture-000000'.format(epoch) for epoch in (6, 7)])
        with np.load(os.path.join(record.folder, 'checkpoints', 'best.npz')) as best:
            self.assertEqual(set(best['x']), {21})
        self.assertEqual([entry['best'] for entry in self.history(record.folder)], [True] * 3 + [False] * 4)
        record.use_best(sess)
        self.assertEqual(set(sess.run(variable)), {21})
        self.assertIn('best epoch, epoch 3 of 7: cross entropy 1.0000\n', self.printed.getvalue())

    def test_saving_takes_a_twentieth_of_the_time(self):
        record, sess = self.record()
        saver = record._saver

        def save_slowly(*args, **kwargs):
            self.now += 3
            tf.train.Saver.save(saver, *args, **kwargs)
        saves = []
        with mock.patch.object(saver, 'save', side_effect=save_slowly) as save:
            next(record.epochs(1))
            for _ in range(200):
                self.now += 1
                record.add_step(sess, 1., 1)
                saves.append(save.call_count)
        # The first after 20 times what 4000 bytes are guessed to take; then three seconds in 63
        self.assertEqual([saves.index(count) for count in (1, 2, 3, 4)], [0, 61, 122, 183])
        self.assertEqual(record.seconds, 200)

    def test_history(self):
        record, sess = self.record()
        self.train(record, sess, [2, 1])
        entry = dict(epoch=2, cross_entropy=1, seconds=0, pictures_per_second=mock.ANY, regularisation=0.5, best=True)
        self.assertEqual(self.history(record.folder)[1], entry)

    def test_a_regularisation_that_is_not_finite_stops_the_run(self):
        record, sess = self.record()
        record._regularisation = tf.constant(float('inf'))
        self.assertIn('lower --l2', self.assert_user_error(self.train, record, sess, [2]))
