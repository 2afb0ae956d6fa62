"""A run that was stopped, killed, damaged or has ended goes on as if nothing had happened."""
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import unittest
from unittest import mock

from fcn8.tf1 import tf

import numpy as np

from fcn8 import errors
from fcn8.training.callback import Callback
from fcn8.training.checkpoints import list_checkpoints
from fcn8.training.run_folder import RunFolder
from fcn8.training.validation import Validation
from tests.support import ROOT, SHAPE, TrainedCase, full_disk, read


class Resume(TrainedCase):
    """self.run_folder holds the unbroken run: two epochs of two steps, with validation."""

    def stop_in(self, owner, method, number, signum, **settings):
        """Train until a signal comes in the method's call of this number; returns the exception."""
        calls, original = iter(range(1, 99)), getattr(owner, method)

        def with_signal(*args):
            if next(calls) == number:
                os.kill(os.getpid(), signum)
            return original(*args)

        with mock.patch.object(owner, method, with_signal), self.assertRaises(errors.Stopped) as stopped:
            self.new_run(epochs=2, validation=0.25, **settings)
        return stopped.exception

    def resume(self, folder, *arguments):
        status, stderr = self.main('--resume', folder, *arguments)
        self.assertEqual(status, 0, stderr)

    def assert_equal_runs(self, folder, expected):
        """Both have the same history, apart from times, and the same weights after the last epoch and the best one."""
        history, expected_history = self.history(folder), self.history(expected)
        self.assertEqual([(entry['epoch'], entry['best']) for entry in history],
                         [(entry['epoch'], entry['best']) for entry in expected_history])
        for entry, other in zip(history, expected_history):
            self.assertAlmostEqual(entry['cross_entropy'], other['cross_entropy'], places=5)
            self.assertEqual(entry['learning_rate'], other['learning_rate'])
            if 'validation' in other:
                self.assertAlmostEqual(entry['validation']['max_f'], other['validation']['max_f'], places=3)
        for weights, others in zip(read_weights(folder), read_weights(expected)):
            self.assertEqual(set(weights), set(others))
            for name in weights:
                np.testing.assert_allclose(weights[name], others[name], atol=1e-4, err_msg=name)

    def test_a_stopped_run_equals_an_unbroken_one(self):
        """Stopped in a step, and resumed and stopped in a validation; its last checkpoint may be damaged then."""
        stopped = self.stop_in(Callback, 'on_batch_end', 3, signal.SIGTERM)
        folder = 'runs/' + os.readlink('runs/latest')
        advice = f'to go on: python main.py --resume {folder}'
        self.assertEqual((stopped.signum, str(stopped)),
                         (signal.SIGTERM, 'in epoch 2, after 2 of its pictures; ' + advice))
        stopped = self.stop_in(Validation, 'run', 1, signal.SIGINT, resume=folder)
        self.assertEqual((stopped.signum, str(stopped)),
                         (signal.SIGINT, 'in epoch 2, after 3 of its pictures; ' + advice))
        self.assertEqual((len(self.history(folder)), glob.glob(folder + '/*.png')), (1, []))

        damaged = shutil.copytree(folder, 'runs/damaged')
        newest = list_checkpoints(damaged + '/checkpoints')[-1]
        with open(newest + '/weights.data-00000-of-00001', 'r+b') as file:
            file.write(bytes(100))
        for stopped_run in (folder, damaged):
            self.resume(stopped_run)
            self.assert_equal_runs(stopped_run, self.run_folder)
            self.assertEqual(len(glob.glob(stopped_run + '/*.png')), 2)
        self.assertIn(newest + ': damaged', self.printed.getvalue())

    def test_more_epochs_equal_an_unbroken_run_with_a_frozen_encoder_too(self):
        unbroken, folder = self.new_run(epochs=2, freeze_encoder=True), self.new_run(epochs=1, freeze_encoder=True)
        os.rename('data', 'moved')
        self.resume(folder + '/', '--epochs', '2', '--data-dir', 'moved')
        self.assert_equal_runs(folder, unbroken)
        content = json.loads(read(folder + '/settings.json').decode())
        self.assertEqual(content['changes'], [{'epochs': 2, 'data_dir': 'moved'}])
        self.assertEqual(content['settings']['epochs'], 2)

    def test_a_run_without_a_checkpoint_starts_again(self):
        unbroken = shutil.copytree(self.run_folder, 'unbroken')
        shutil.rmtree(self.run_folder + '/checkpoints')
        self.resume(self.run_folder)
        self.assert_equal_runs(self.run_folder, unbroken)

    def test_a_stop_as_the_run_gets_its_folder(self):
        with mock.patch.object(RunFolder, 'begin', side_effect=KeyboardInterrupt), \
                self.assertRaises(errors.Stopped) as stopped:
            self.new_run(epochs=2, validation=0.25)
        folder = 'runs/' + os.readlink('runs/latest')
        self.assertEqual(str(stopped.exception), f'while preparing; to go on: python main.py --resume {folder}')
        self.resume(folder)
        self.assert_equal_runs(folder, self.run_folder)

    def test_a_killed_process(self):
        """With SIGKILL, and after that with Ctrl-C, once or twice."""
        arguments = ['--epochs', '60', '--batch-size', '2', '--learning-rate', '0.01', '--validation', '0.25',
                     '--image-shape'] + list(map(str, SHAPE))
        for signum, epoch, status in ((signal.SIGKILL, 1, -9), (signal.SIGINT, 2, 130)):
            process = subprocess.Popen([sys.executable, os.path.join(ROOT, 'main.py')] + arguments,
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
            for line in process.stdout:
                if line.startswith(f'Epoch {epoch}/'):
                    process.send_signal(signum)
                    time.sleep(2 * errors.SAME_SIGNAL)
                    process.send_signal(signum)  # the second Ctrl-C, unless the first has stopped it already
                    break
            stderr = process.communicate()[1]
            self.assertEqual(process.returncode, status, stderr)
            self.assertNotIn('Traceback', stderr)
            folder = 'runs/' + os.readlink('runs/latest')
            arguments = ['--resume', folder]
        self.assertRegex(stderr.splitlines()[-1], f'^stopped (in epoch .* python main.py --resume {folder}|at once)$')
        history, unbroken = self.history(folder), self.history(self.run_folder)
        self.assertGreaterEqual(len(history), 2)
        for entry, expected in zip(history, unbroken):
            self.assertAlmostEqual(entry['cross_entropy'], expected['cross_entropy'], places=4)

    def test_a_stop_whose_output_has_gone(self):
        """Ctrl-C in a pipeline also ends what shows the bars, such as tee."""
        arguments = ['--epochs', '2000', '--batch-size', '2', '--image-shape'] + list(map(str, SHAPE))
        for stop, expected in ((True, 130), (False, 2)):
            process = subprocess.Popen([sys.executable, os.path.join(ROOT, 'main.py')] + arguments,
                                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                       env=dict(os.environ, TQDM_DISABLE=''))
            for line in process.stdout:
                if b'Epoch 3/2000: cross' in line:
                    break
            if stop:
                process.send_signal(signal.SIGINT)
            process.stdout.close()
            self.assertEqual(process.wait(60), expected)
            saved = list_checkpoints('runs/latest/checkpoints')[-1]
            self.assertNotIn('epoch-00000', saved)

    def test_a_full_disk(self):
        before = sorted(os.listdir(self.run_folder + '/checkpoints'))
        with full_disk(50000):
            status, stderr = self.main('--resume', self.run_folder, '--epochs', '3')
        self.assertEqual(status, 2)
        self.assertRegex(stderr.splitlines()[-1], f'^error: {self.run_folder}.* cannot be written .*File too large')
        self.assertEqual(sorted(os.listdir(self.run_folder + '/checkpoints')), before)
        self.resume(self.run_folder)
        self.assertEqual(len(self.history(self.run_folder)), 3)


def read_weights(folder):
    """All variables in the last checkpoint of a run, and the best weights, as dicts."""
    checkpoints = os.path.join(folder, 'checkpoints')
    last = tf.train.load_checkpoint(os.path.join(list_checkpoints(checkpoints)[-1], 'weights'))
    with np.load(os.path.join(checkpoints, 'best.npz')) as best:
        return {name: last.get_tensor(name) for name in last.get_variable_to_shape_map()}, dict(best)


if __name__ == '__main__':
    unittest.main()
