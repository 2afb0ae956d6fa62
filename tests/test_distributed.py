"""Several processes that train together. Some tests start some; in TensorFlow 1.15 with Horovod, if it is there."""
import glob
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import unittest
import uuid
from unittest import mock

from fcn8.tf1 import tf

import imageio.v2 as imageio
import numpy as np

import helper
import main
from fcn8 import collectives, command_line, device, distributed, launcher, processes
from fcn8.data.classes import IGNORED
from fcn8.errors import UserError
from fcn8.settings import Settings
from fcn8.training.run_folder import RunFolder
from tests.support import LABEL, ROOT, SHAPE, Case, RunCase, read

try:
    import horovod.tensorflow
except ImportError:
    horovod = None

STEPS = dict(epochs=2, keep_prob=1., image_shape=SHAPE)
PROGRAM = os.path.join(ROOT, 'main.py')
LOST = r'(another process|process {} \(127\.0\.0\.1:\d+\)) of the run has ended, and so does this one'


def train_and_keep_weights(settings):
    """What each process of test_two_processes_take_the_steps_of_one does, and what one alone does."""
    train_nn = main.train_nn

    def train(sess, *args):
        first_epoch = args[-1].next_epoch
        losses = train_nn(sess, *args)
        if first_epoch <= len(losses):  # with a frozen encoder the last call only gets the best weights, in the chief
            weights = {variable.op.name: variable for variable in tf.trainable_variables()}
            np.savez(f'weights-{distributed.rank()}.npz', **sess.run(weights))
        return losses

    # As on a GPU with tensor cores, of which the scaling of the loss can be had here, too.
    precision = 'float16' if settings.get('amp') else 'float32'
    with mock.patch.object(main, 'train_nn', train), \
            mock.patch.object(device, 'choose_precision', return_value=precision):
        return main.run(Settings(**settings))


def gather_ranks(number):
    """Print what the chief gets when all processes gather their ranks."""
    children = []
    for environment in processes._environments(number):
        children.append(os.fork())  # importing TensorFlow so often would take half a minute
        if not children[-1]:
            launcher.RANK, launcher.SIZE, _, launcher.WORKERS = launcher.prepare(environment)
            found = collectives.Collectives(None).gather(launcher.RANK)
            if not launcher.RANK:
                print(found, flush=True)
                os._exit(0)
            time.sleep(60)
    os.waitpid(children[0], 0)
    for child in children[1:]:
        os.kill(child, signal.SIGKILL)


def fail_in_the_second():
    """main.py, where one process cannot read a picture in the middle of the training."""
    train_nn = main.train_nn

    def train(*args):
        if distributed.rank() == 1:
            raise UserError('picture.png: damaged')
        return train_nn(*args)

    with mock.patch.object(main, 'train_nn', train):
        command_line.execute(command_line.parse(), main.run)


class Start(Case):
    def test_without_horovod(self):
        alone, broken = mock.MagicMock(), mock.MagicMock()
        alone.tensorflow.size.return_value = 1  # as if built without support for what has started the processes
        broken.tensorflow.init.side_effect = tf.errors.NotFoundError(None, None, 'undefined symbol')
        for version, found, expected in (
                ('1.15.0', None, ', and Horovod cannot be used: .*pip install .* -r requirements-distributed.txt'),
                ('2.21.0', None, ' of Horovod, which is for TensorFlow 1.15, .*2.21.0: start with --processes 2'),
                ('1.15.0', alone, '.*built without support for what started'),
                ('1.15.0', broken, '.*undefined symbol')):
            modules = {'horovod': found, 'horovod.tensorflow': found and found.tensorflow}
            with mock.patch.multiple(launcher, RANK=1, SIZE=2), mock.patch.object(tf, '__version__', version), \
                    mock.patch.dict(sys.modules, modules):
                settings = Settings(data_dir=self.folder, runs_dir=self.folder)
                self.assertRegex(self.assert_user_error(main.run, settings),
                                 'this is process 1 of 2' + expected)

    def test_tf_config_in_tensorflow_1(self):
        with mock.patch.multiple(launcher, RANK=1, SIZE=2, WORKERS=[('one', 1), ('other', 1)]), \
                mock.patch.object(tf, '__version__', '1.15.0'):
            self.assertRegex(self.assert_user_error(main.run, Settings()), 'TF_CONFIG needs TensorFlow 2, .*horovodrun')

    def test_a_second_training_in_a_program(self):
        with mock.patch.multiple(launcher, SIZE=2, WORKERS=[('one', 1), ('other', 1)]), \
                mock.patch.object(distributed, '_engine', mock.Mock()):
            self.assertIn('a program can train only once', self.assert_user_error(main.run, Settings()))

    def test_processes_that_have_found_different_things(self):
        found = {'TensorFlow': '1.15.0', 'precision': 'float32'}
        with mock.patch.object(distributed, 'gather', lambda value: [value, value, dict(value, precision='float16')]):
            self.assertRegex(self.assert_user_error(distributed.compare, found),
                             'precision differs: it is float16 in process 2, and float32 in process 0')
        with mock.patch.object(distributed, 'gather', lambda value: [None, value]):  # None is of another gather
            self.assertIn('start all of them with the same options',
                          self.assert_user_error(distributed.compare, found))

    def test_a_model_is_used_by_one_process(self):
        process = subprocess.run([sys.executable, PROGRAM, '--predict', 'x.png', '--model', 'runs/1.5'],
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                 env=dict(os.environ, HOROVOD_RANK='0', HOROVOD_SIZE='2'))
        self.assertEqual(process.returncode, 2)
        self.assertRegex(process.stdout, '^error: --predict and --evaluate work with a single process only')


class FewTestPictures(RunCase):
    def test_there_may_be_fewer_than_processes(self):
        """Only the pictures to train on are shared."""
        settings = Settings(image_shape=SHAPE)
        with mock.patch.multiple(launcher, RANK=0, SIZE=3):
            batches = helper.gen_batch_function(settings.training_folder, SHAPE, seed=0)
            with RunFolder(settings, batches, 'float32'):
                self.assertEqual(len(os.listdir(os.path.join(settings.testing_folder, 'image_2'))), 2)


@unittest.skipUnless(horovod or not tf.__version__.startswith('1.'), 'Horovod is not installed')
class Together(RunCase):
    def start(self, processes, *command):
        """What `python main.py --processes N` does, for any command of python."""
        self.mark = f'FCN8_TEST={uuid.uuid4()}'
        start = f'import sys; from fcn8 import processes; del sys.argv[0]; sys.orig_argv = [""] + sys.argv; ' \
                f'processes.run({processes})'
        program = subprocess.Popen([sys.executable, '-c', start] + list(command), stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True,
                                   # There is no proxy: no process may ask it for the way to another.
                                   env=dict(os.environ, PYTHONPATH=ROOT, http_proxy='http://127.0.0.1:9',
                                            **dict([self.mark.split('=')])))
        self.addCleanup(program.stdout.close)
        self.addCleanup(program.terminate)
        return program

    def train_in_two(self, **settings):
        """The folder of the run, and the weights of each process after the training."""
        code = f'import tests.test_distributed as t; t.train_and_keep_weights({settings!r})'
        program = self.start(2, '-c', code)
        output = program.communicate()[0]
        self.assertEqual(program.returncode, 0, output)
        self.assertEqual(len(re.findall('Epoch 2/2: cross', output)), 1)  # of the chief alone
        return os.path.realpath('runs/latest'), [dict(np.load(f'weights-{rank}.npz')) for rank in range(2)]

    def assert_equal_weights(self, first, second, atol):
        self.assertEqual(set(first), set(second))
        for name in first:
            np.testing.assert_allclose(first[name], second[name], rtol=0, atol=atol, err_msg=name)

    def test_two_processes_take_the_steps_of_one(self):
        """And all have equal weights in the end."""
        self.write_kitti('data/data_road/training', count=10)
        label = imageio.imread(LABEL)
        label[:, :SHAPE[1] // 2] = IGNORED  # so a process that has it has fewer pixels
        imageio.imwrite(LABEL, label)
        for settings in (dict(validation=0.2, amp=True), dict(validation=0.2, freeze_encoder=True)):
            with self.subTest(**settings):
                one = train_and_keep_weights(dict(STEPS, batch_size=4, **settings))
                alone = dict(np.load('weights-0.npz'))
                two, (first, second) = self.train_in_two(batch_size=2, **dict(STEPS, **settings))
                self.assert_equal_weights(first, second, atol=0)
                self.assert_equal_weights(first, alone, atol=1e-5)
                for entry, others in zip(self.history(one), self.history(two)):
                    np.testing.assert_allclose(entry['cross_entropy'], others['cross_entropy'], atol=1e-5)
                    for name, score in entry.get('validation', {}).items():
                        np.testing.assert_allclose(score, others['validation'][name], atol=1e-2)

    def processes(self):
        """{rank: process id} of those that start() has started, without the launcher."""
        found = {}
        for path in glob.glob('/proc/[0-9]*/environ'):
            try:
                environment = read(path).decode().split('\0')
                command = read(os.path.join(os.path.dirname(path), 'cmdline')).decode().split('\0')
            except OSError:  # another user's, or it has just ended
                continue
            if self.mark in environment:
                rank, size, *_ = launcher.prepare(dict(line.split('=', 1) for line in environment if '=' in line))
                if size > 1 and 'python' in command[0] and any(part.endswith('main.py') for part in command):
                    found[rank] = int(path.split('/')[2])
        return found

    def test_a_killed_process_ends_all_and_one_or_two_can_resume(self):
        self.write_kitti('data/data_road/training', count=8)
        unbroken = self.history(main.run(Settings(runs_dir='unbroken', epochs=24, batch_size=2, keep_prob=1.,
                                                  image_shape=SHAPE)))
        arguments = ['--epochs', '24', '--batch-size', '1', '--keep-prob', '1', '--image-shape'] + list(map(str, SHAPE))
        for killed in (1, 0):
            with self.subTest(killed=killed):
                program, output = self.start(2, PROGRAM, *arguments), ''
                for line in program.stdout:
                    if 'Epoch 5/' in line and 'Epoch 5/' not in output:
                        processes = self.processes()
                        self.assertEqual(sorted(processes), [0, 1])
                        os.kill(processes[killed], signal.SIGKILL)
                    output += line
                self.assertNotEqual(program.wait(), 0)
                folder = os.path.join('runs', os.readlink('runs/latest'))
                # The second where horovodrun is faster than the lost connection.
                self.assertRegex(output, f'(error: {LOST.format(killed)}|stopped).*to go on: python main.py '
                                         f'--processes 2 --resume {folder}')
                self.assertFalse(self.processes())
        self.resume(2, folder, stop=1)
        for entry, others in list(zip(self.history(folder), unbroken))[:9]:  # later rounding errors have grown
            np.testing.assert_allclose(entry['cross_entropy'], others['cross_entropy'], atol=3e-4)
        self.assertEqual(self.main('--resume', folder, '--epochs', '26')[0], 0)
        self.assertEqual(len(self.history(folder)), 26)

    def resume(self, number, folder, *options, stop=None):
        """Resume with this number of processes; the one of rank `stop` is asked to stop, which only the chief heeds."""
        program, output = self.start(number, PROGRAM, '--resume', folder, *options), ''
        for line in program.stdout:
            output += line
            if stop and 'Epoch 10/' in line:
                os.kill(self.processes()[stop], signal.SIGTERM)
                stop = None
        self.assertEqual(program.wait(), 0, output)
        self.assertIn('Resuming in epoch', output)
        self.assertIn('Page: ', output)

    def test_a_stop_says_how_to_resume(self):
        # With horovodrun, a launcher that is killed takes its processes with it, and the others find out otherwise.
        for signum in (signal.SIGTERM,) if horovod else (signal.SIGTERM, signal.SIGKILL):
            with self.subTest(signum):
                program, output = self.start(2, PROGRAM, '--epochs', '2000', '--image-shape', *map(str, SHAPE)), ''
                for line in program.stdout:
                    if 'Epoch 3/' in line and 'Epoch 3/' not in output:
                        program.send_signal(signum)
                    output += line
                self.assertNotEqual(program.wait(), 0)
                self.assertRegex(output, '(?m)(^|:)stopped in epoch .*to go on: python main.py --processes 2 --resume ')
                if signum == signal.SIGTERM and not horovod:
                    self.assertNotIn('has ended', output)
                self.assertFalse(self.processes())

    @unittest.skipIf(horovod, 'Horovod has connections of its own')
    def test_ranks_of_two_digits(self):
        """TensorFlow gathers in the order of the names: 0, 1, 10, 2 and so on."""
        code = 'import tests.test_distributed as t; t.gather_ranks(11)'
        output = subprocess.run([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True, timeout=120,
                                env=dict(os.environ, PYTHONPATH=ROOT)).stdout
        self.assertEqual(output, f'{list(range(11))}\n')

    @unittest.skipIf(horovod, 'which looks for ports itself')
    def test_a_port_of_another_program(self):
        """Which answers, so only the first exchange shows that it is not of the training."""
        other, free = socket.socket(), socket.socket()
        for one in (other, free):
            one.bind(('127.0.0.1', 0))
        other.listen(100)
        self.addCleanup(other.close)
        workers = [f'127.0.0.1:{one.getsockname()[1]}' for one in (free, other)]
        free.close()
        code = 'import main, tests.test_distributed as t; t.collectives.CONNECTION_LIMIT = 1; ' \
               't.command_line.execute(t.command_line.parse(), main.run)'
        joined = 'error: all addresses of TF_CONFIG answer, but not all have joined'
        for order, index, expected in ((1, 1, fr'error: cannot listen on {workers[1]} \(.*Is the port taken'),
                                       (1, 0, joined), (-1, 1, joined)):  # the other one as worker, and as the chief
            config = json.dumps({'cluster': {'worker': workers[::order]}, 'task': {'type': 'worker', 'index': index}})
            done = subprocess.run([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True, timeout=120, env=dict(os.environ, PYTHONPATH=ROOT, TF_CONFIG=config))
            self.assertEqual(done.returncode, 2)
            self.assertRegex(done.stdout, f'(?m)^{expected}')

    def test_an_error_in_one_process_is_shown_and_ends_all(self):
        code = 'import tests.test_distributed as t; t.fail_in_the_second()'
        program = self.start(2, '-c', code, '--epochs', '1', '--image-shape', *map(str, SHAPE))
        output = program.communicate()[0]
        self.assertNotEqual(program.returncode, 0)
        self.assertRegex(output, '(?m)(^|:)error: picture.png: damaged')
        self.assertRegex(output, f'(?m)(^|:)(error: {LOST.format(1)}|stopped)')
        self.assertNotIn('main.py", line', output)
