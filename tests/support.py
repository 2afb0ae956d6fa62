"""What the tests share: cases with a folder of their own, small pictures, a tiny VGG-16, runs of the program."""
import atexit
import contextlib
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
import tempfile
import unittest
import zlib
from unittest import mock

from fcn8.tf1 import tf

import imageio.v2 as imageio
import numpy as np

import main
from fcn8 import command_line
from fcn8.data import download, vgg16
from fcn8.data.classes import BACKGROUND, IGNORED, ROAD
from fcn8.errors import UserError
from fcn8.settings import Settings
from fcn8.training import validation, variables

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FIXTURES = os.path.join(ROOT, 'tests', 'fixtures')
SHAPE = (64, 96)  # height, width of the small pictures
PICTURE = 'data/data_road/training/image_2/um_000001.png'
LABEL = 'data/data_road/training/gt_image_2/um_road_000001.png'


class Case(unittest.TestCase):
    """A test with a folder of its own and a new default graph; what it prints is in self.printed."""

    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        graph = tf.Graph().as_default()
        graph.__enter__()
        self.addCleanup(graph.__exit__, None, None, None)
        self.printed = io.StringIO()
        for redirect in (contextlib.redirect_stdout(self.printed), contextlib.redirect_stderr(io.StringIO())):
            redirect.__enter__()
            self.addCleanup(redirect.__exit__, None, None, None)

    def path(self, *parts):
        """A path in the test's folder, whose parent is there."""
        path = os.path.join(self.folder, *parts)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def write_kitti(self, split='data_road/training', count=4, shape=SHAPE):
        """Bright road on dark ground, from left to right in another place each time; ignored pixels at the top."""
        for number in range(count):
            picture = np.random.RandomState(number).randint(0, 60, shape + (3,)).astype(np.uint8)
            label = np.full(shape + (3,), BACKGROUND, np.uint8)
            road = np.s_[shape[0] // 2:, shape[1] * number // 8:shape[1] * (number + 4) // 8]
            picture[road] += 150
            label[road] = ROAD
            label[:8] = IGNORED
            imageio.imwrite(self.path(split, 'image_2', f'um_{number:06d}.png'), picture)
            imageio.imwrite(self.path(split, 'gt_image_2', f'um_road_{number:06d}.png'), label)
            imageio.imwrite(self.path(split, 'gt_image_2', f'um_lane_{number:06d}.png'), label[::-1])
        return os.path.join(self.folder, split)

    def write_vgg(self, *parts):
        """A tiny VGG-16 in the folder `vgg`, or in that of another name."""
        return shutil.copytree(made_once('vgg', lambda path: vgg16.write_slim(path, seed=1, width=1 / 64)),
                               self.path(*(parts or ('vgg',))))

    def assert_user_error(self, function, *args, **kwargs):
        """The function raises a UserError of one line; returns it."""
        with self.assertRaises(UserError) as caught:
            function(*args, **kwargs)
        self.assertNotIn('\n', str(caught.exception))
        return str(caught.exception)

    def run_program(self, *arguments, **environment):
        """Run `python main.py` in the test's folder; returns its exit status and all that it printed."""
        process = subprocess.run([sys.executable, os.path.join(ROOT, 'main.py')] + list(arguments), cwd=self.folder,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                 env={**os.environ, **environment})
        return process.returncode, process.stdout


class RunCase(Case):
    """A test in a folder with `data`: small pictures and a tiny VGG-16."""

    def setUp(self):
        super().setUp()
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder)
        self.write_kitti('data/data_road/training')
        self.write_kitti('data/data_road/testing', count=2)
        self.write_vgg('data', 'vgg')
        no_network = mock.patch.multiple(download, VGG_URL='http://127.0.0.1:9/', KERAS_URL='http://127.0.0.1:9/',
                                         KITTI_URL='http://127.0.0.1:9/')
        no_network.start()
        self.addCleanup(no_network.stop)
        for signum in (signal.SIGINT, signal.SIGTERM):
            self.addCleanup(signal.signal, signum, signal.getsignal(signum))

    def main(self, *arguments):
        """What main.py does with these arguments, on small pictures; returns (exit status, its stderr)."""
        if not {'--resume', '--predict', '--evaluate', '--image-shape'} & set(arguments):
            arguments += ('--image-shape', *map(str, SHAPE))
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors):
            try:
                command_line.execute(command_line.parse(arguments), main.run)
            except SystemExit as ended:
                return ended.code, errors.getvalue()
        return 0, errors.getvalue()

    def refused(self, expected, *arguments):
        """main.py ends in one line that matches, with exit status 2, and writes nothing."""
        before = self.files()
        status, errors = self.main(*(arguments or ('--epochs', '1')))
        self.assertEqual(status, 2, errors)
        last = errors.splitlines()[-1]
        self.assertRegex(last, '^error: ')
        self.assertRegex(last, expected)
        self.assertNotIn('Traceback', errors)
        self.assertEqual(self.files(), before)

    def accepted(self):
        """main.py trains and paints with what is there."""
        status, errors = self.main('--epochs', '1')
        self.assertEqual(status, 0, errors)

    def files(self):
        """{path: content} of all there is but the folder of the runs and the locks."""
        found = {}
        for folder, folders, names in os.walk('.'):
            found.update((os.path.join(folder, name), None) for name in folders if name != 'runs')
            for path in (os.path.join(folder, name) for name in names if name != '.fcn8-lock'):
                regular = os.path.isfile(path) and stat.S_ISREG(os.lstat(path).st_mode)
                found[path] = read(path) if regular else None
        return found

    def new_run(self, epochs=1, **settings):
        """Train; returns the folder of the run."""
        return main.run(Settings(**dict(dict(epochs=epochs, batch_size=2, learning_rate=0.01, image_shape=SHAPE),
                                        **settings)))

    def history(self, folder):
        with open(os.path.join(folder, 'history.jsonl')) as file:
            return [json.loads(line) for line in file]


class TrainedCase(RunCase):
    """A test with a copy of a run that has trained with validation; all of them share one training."""

    def setUp(self):
        super().setUp()
        self.run_folder = shutil.copytree(made_once('run', self._train), 'runs/1.5')

    def _train(self, path):
        self.write_kitti('data/data_road/testing', count=1)
        os.rename('data/data_road/testing/image_2/um_000000.png', 'data/data_road/testing/image_2/<b>&_0.png')
        os.rename('data/data_road/testing/gt_image_2/um_road_000000.png',
                  'data/data_road/testing/gt_image_2/<b>&_road_0.png')
        with mock.patch.object(validation, 'SHARE_OF_TIME', 1):  # after each epoch, also once it is resumed
            shutil.move(self.new_run(epochs=2, validation=0.25), path)


def made_once(name, make):
    """The path of what make(path) has made, once for all tests of this process."""
    if name not in _made:
        folder = tempfile.mkdtemp()
        atexit.register(shutil.rmtree, folder)
        make(os.path.join(folder, name))
        _made[name] = os.path.join(folder, name)
    return _made[name]


_made = {}  # {name: path}


def build_fcn(sess, vgg_path, loss_scaling=False):
    """What main.run() builds: (placeholders to feed, (logits, train_op, cross_entropy_loss))."""
    image_input, keep_prob, layer3_out, layer4_out, layer7_out = main.load_vgg(sess, vgg_path)
    correct_label = tf.placeholder(tf.bool, [None, None, None, 2])
    learning_rate = tf.placeholder(tf.float32)
    last_layer = main.layers(layer3_out, layer4_out, layer7_out, 2)
    ops = main.optimize(last_layer, correct_label, learning_rate, 2, loss_scaling)
    variables.initialize(sess, {})
    return (image_input, correct_label, keep_prob, learning_rate), ops


def run_signature(model, pictures):
    """What the signature of an exported model gives for pictures, uint8 [n, h, w, 3]."""
    with tf.Graph().as_default(), tf.Session() as sess:
        signature = tf.saved_model.loader.load(sess, ['serve'], model).signature_def['serving_default']
        output, = signature.outputs.values()
        return sess.run(output.name, {signature.inputs['pictures'].name: pictures})


@contextlib.contextmanager
def full_disk(size):
    """No file can become larger than `size` bytes: for a writer that is like a full disk."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def read(path):
    with open(path, 'rb') as file:
        return file.read()


def write(path, content):
    with open(path, 'wb') as file:
        file.write(content)


def cut(path):
    """Cut off the second half of a file."""
    with open(path, 'r+b') as file:
        file.truncate(os.path.getsize(path) // 2)


def png(*chunks):
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))
        for name, content in chunks)


def png_header(width, height):
    """A PNG that claims this size and holds no pixels."""
    return png((b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)), (b'IDAT', zlib.compress(b'')),
               (b'IEND', b''))
