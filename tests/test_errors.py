"""How the program ends: errors in one line, a first Ctrl-C, a second one, and signals that come in pairs."""
import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
import unittest
from unittest import mock

from fcn8.tf1 import tf

import helper
import main
from fcn8 import errors
from fcn8.errors import UserError
from tests.support import ROOT, Case, RunCase


class InOneLine(Case):
    def ended(self, error):
        """What stderr shows when errors.in_one_line() has ended the program with exit status 2."""
        stderr = io.StringIO()
        with contextlib.redirect_stderr(stderr), self.assertRaises(SystemExit) as ended:
            with errors.in_one_line('a smaller --batch-size'):
                raise error
        self.assertEqual(ended.exception.code, 2)
        return stderr.getvalue()

    def test_errors_that_a_user_can_cause(self):
        out_of_memory = 'error: out of memory: try a smaller --batch-size\n'
        on_gpu = out_of_memory[:-1] + ', and stop other programs on the GPU (nvidia-smi lists them)\n'
        for error, expected in (
                (UserError('two\nlines'), 'error: two lines\n'),
                (FileNotFoundError(2, 'No such file', 'a/file'), 'error: a/file: No such file\n'),
                (OSError('the network is down'), 'error: the network is down\n'),
                (MemoryError(), out_of_memory),
                (tf.errors.ResourceExhaustedError(None, None, 'OOM when allocating\nmore lines'), out_of_memory),
                # How GPUs say it
                (tf.errors.ResourceExhaustedError(None, None, 'OOM when allocating on device:GPU:0'), on_gpu),
                (tf.errors.InternalError(None, None, 'Dst tensor is not initialized.'), on_gpu),
                (tf.errors.InternalError(None, None, 'cudaGetDevice() failed. Status: out of memory'), on_gpu),
                (tf.errors.UnknownError(None, None, 'Failed to get convolution algorithm. This is'), on_gpu)):
            with self.subTest(type(error)):
                self.assertEqual(self.ended(error), expected)

    def test_tensorflow_s_long_messages(self):
        """The reason alone, without the places in the graph that TensorFlow lists."""
        left, right = tf.placeholder(tf.float32), tf.placeholder(tf.float32)
        with tf.Session() as sess, self.assertRaises(tf.errors.OpError) as caught:
            sess.run(tf.matmul(left, right), {left: [[1, 2]], right: [[1, 2, 3]]})
        self.assertIn('[[', str(caught.exception))
        self.assertRegex(self.ended(caught.exception),
                         r'^error: TensorFlow failed: ((?!\[\[)[^\n])*\[1,3\]((?!\[\[)[^\n])*\. --debug shows where\n$')

    def test_errors_of_the_program_itself_are_not_hidden(self):
        for error in (ValueError('a bug'), AssertionError('a bug')):
            with self.assertRaises(type(error)), errors.in_one_line('nothing'):
                raise error


class Signals(Case):
    def start(self, context, *code):
        """Start a program that runs lines of code in a context of fcn8.errors, and wait until it prints `ready`."""
        lines = ['import time', 'from fcn8 import errors', f'with errors.{context} as stop_requested:'] + [
            '    ' + line for line in code]
        process = subprocess.Popen([sys.executable, '-c', '\n'.join(lines)], cwd=ROOT, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, universal_newlines=True)
        for cleanup in (process.stdout.close, process.stderr.close, process.wait, process.kill):  # the last one first
            self.addCleanup(cleanup)
        self.assertEqual(process.stdout.readline(), 'ready\n')
        return process

    def test_a_second_ctrl_c_stops_at_once(self):
        """Wherever the program hangs after the first."""
        for context, code in (
                ('stop_between_steps()', ['print("ready", flush=True)', 'while not stop_requested(): time.sleep(0.01)',
                                          'print("first", flush=True)', 'time.sleep(60)']),
                ('in_one_line("nothing")', ['try:', '    print("ready", flush=True)', '    time.sleep(60)',
                                            'except KeyboardInterrupt:', '    print("first", flush=True)',
                                            '    time.sleep(60)'])):
            with self.subTest(context):
                process = self.start(context, *code)
                process.send_signal(signal.SIGINT)
                self.assertEqual(process.stdout.readline(), 'first\n')
                time.sleep(2 * errors.SAME_SIGNAL)
                process.send_signal(signal.SIGINT)
                self.assertEqual(process.communicate()[1].strip(), 'stopped at once: what was not saved is lost')
                self.assertEqual(process.returncode, 130)

    def test_a_first_signal_ends_the_program_in_one_line(self):
        for signum, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            process = self.start('in_one_line("nothing")', 'print("ready", flush=True)', 'time.sleep(60)')
            process.send_signal(signum)
            self.assertEqual(process.communicate(), ('', '\nstopped\n'))
            self.assertEqual(process.returncode, status)

    def test_a_pair_of_signals_is_one(self):
        before = signal.getsignal(signal.SIGTERM)
        with mock.patch.object(errors, 'SAME_SIGNAL', 60), self.assertRaises(errors.Stopped) as stopped, \
                errors.stop_between_steps() as stop_requested:
            self.assertIsNone(stop_requested())
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            while not stop_requested():
                time.sleep(0.01)
        self.assertEqual((stop_requested(), stopped.exception.signum), (signal.SIGTERM, signal.SIGTERM))
        self.assertEqual(signal.getsignal(signal.SIGTERM), before)

    def test_a_signal_that_is_not_heeded(self):
        with errors.stop_between_steps(heeded=False) as stop_requested:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        self.assertIsNone(stop_requested())


class Program(RunCase):
    """The stops and errors of main.py outside the training steps."""

    def stopped(self, signum, module, function):
        """The last line of main.py, and its exit status, when a signal comes in a function."""
        with mock.patch.object(os, '_exit') as end, mock.patch.object(
                module, function, lambda *_: os.kill(os.getpid(), signum)):
            _, stderr = self.main('--epochs', '1')
        (status,), _ = end.call_args
        return stderr.splitlines()[-1], status

    def test_before_the_training(self):
        self.assertEqual(self.stopped(signal.SIGTERM, main, 'load_vgg'), ('stopped', 143))
        self.assertEqual(os.listdir('runs'), [])

    def test_after_the_training(self):
        line, status = self.stopped(signal.SIGINT, helper, 'save_inference_samples')
        self.assertEqual(status, 130)
        folder = 'runs/' + os.readlink('runs/latest')
        self.assertEqual(
            line, 'stopped after the last epoch; to go on: python main.py --resume ' + folder)
        self.assertEqual(self.main('--resume', folder)[0], 0)
        self.assertEqual(len(self.history(folder)), 1)
        self.assertTrue(os.path.exists(os.path.join(folder, 'index.html')))

    def test_out_of_memory_while_painting(self):
        """A smaller batch would not help: the training has ended."""
        error = tf.errors.ResourceExhaustedError(None, None, 'OOM when allocating')
        with mock.patch.object(helper, 'save_inference_samples', side_effect=error):
            status, stderr = self.main('--epochs', '1')
        folder = 'runs/' + os.readlink('runs/latest')
        self.assertEqual((status, stderr.splitlines()[-1]), (
            2, 'error: out of memory after the last epoch; the last checkpoint is kept. Free some memory, then run '
               f'python main.py --resume {folder}'))

    def test_debug_shows_the_stack_trace(self):
        shutil.rmtree('data/vgg/variables')
        status, stderr = self.main('--debug')
        self.assertEqual(status, 2)
        self.assertIn('Traceback (most recent call last)', stderr)
        self.assertRegex(stderr.splitlines()[-1], '^error: data/vgg: variables/variables.index is missing')


if __name__ == '__main__':
    unittest.main()
