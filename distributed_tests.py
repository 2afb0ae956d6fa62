"""Checks of several processes that train together. With Horovod they start some; without, those tests are left out."""
import os
import re
import subprocess
import sys
import unittest
from unittest import mock

import distributed
from tf1 import tf

import imageio.v2 as imageio
import numpy as np

import device
import failure_tests
import helper
import main
import palettes
import safety
from unit_tests import HERE, SHAPE, Case

try:
    import horovod.tensorflow
    import psutil  # comes with it
except ImportError:
    horovod = None

STEPS = dict(epochs=2, keep_prob=1.0, image_shape=SHAPE)


def train_and_keep_weights(settings):
    """What each process of test_two_processes_take_the_steps_of_one does, and what one alone does."""
    train_nn = main.train_nn

    def train(sess, *args, **kwargs):
        losses = train_nn(sess, *args, **kwargs)
        weights = {variable.op.name: variable for variable in tf.trainable_variables()}
        for rank, others in enumerate(kwargs['progress'].workers.gather(sess.run(weights))):
            np.savez('weights-{}.npz'.format(rank), **others)
        return losses

    # As on a GPU with tensor cores, of which the scaling of the loss can be had here, too.
    precision = tf.ConfigProto(), 'float16' if settings.get('amp') else 'float32'
    with mock.patch.object(main, 'train_nn', train), \
            mock.patch.object(device, 'choose_precision', return_value=precision):
        print('Folder {}.'.format(main.run('data', 'runs', **settings)))


def fail_in_the_second():
    """main.py, where one process cannot read a picture in the middle of the training."""
    train_nn = main.train_nn

    def train(*args, **kwargs):
        if distributed.RANK == 1:
            raise safety.UserError('picture.png: damaged')
        train_nn(*args, **kwargs)

    with mock.patch.object(main, 'train_nn', train):
        main.main()


class Shares(Case):
    def setUp(self):
        super().setUp()
        self.folder_of_pictures = self.write_kitti(count=11)

    def batches(self, share, **settings):
        return helper.gen_batch_function(self.folder_of_pictures, SHAPE, seed=3, share=share, **settings)

    def epochs(self, share, batch_size, skipped=0, **settings):
        """The batches of two epochs, as lists of what tells pictures apart, after so many pictures of the first."""
        batches = self.batches(share, **settings)
        batches.skip(0, skipped)
        return [[images.reshape(len(images), -1)[:, :60].tolist() for images, _ in batches(batch_size)]
                for _ in range(2)]

    def test_together_they_are_the_batches_of_one(self):
        for skipped in (0, 3):
            alone = self.epochs((0, 1), 6, skipped)
            shares = [self.epochs((rank, 3), 2, skipped) for rank in range(3)]
            for epoch in range(2):
                self.assertEqual({len(share[epoch]) for share in shares}, {-(-(9 - skipped * (epoch == 0)) // 6)})
                for batch, parts in zip(alone[epoch], zip(*(share[epoch] for share in shares))):
                    self.assertEqual(len({len(part) for part in parts}), 1)
                    together = sum(parts, [])
                    self.assertEqual(len(together), len(batch) // 3 * 3)
                    self.assertEqual(sorted(together), sorted(batch[:len(together)]))

    def test_the_pictures_of_an_epoch_are_as_many_in_each(self):
        for rank in range(3):
            self.assertEqual(self.batches((rank, 3)).pictures, 9)
            self.assertEqual([sum(map(len, epoch)) for epoch in self.epochs((rank, 3), 2)], [3, 3])

    def test_too_few_to_share(self):
        self.assertIn('11 pictures to train on are too few for 12 processes',
                      self.assert_user_error(self.batches, (0, 12)))

    def test_validation_pictures_are_shared_too(self):
        alone = self.batches((0, 1), validation=0.5)
        shares = [self.batches((rank, 3), validation=0.5) for rank in range(3)]
        self.assertEqual(sorted(sum((share.validation_share for share in shares), [])), alone.validation_pictures)
        for share in shares:
            self.assertEqual(share.validation_pictures, alone.validation_pictures)
            self.assertEqual(sum(len(images) for images, _ in share.validation_batches()), len(share.validation_share))

    def test_features_are_computed_in_turn(self):
        paths = helper.list_pictures(self.folder_of_pictures)
        with mock.patch.object(helper, 'INFERENCE_BATCH', 2):
            alone = list(helper.read_batches(paths, SHAPE))
            turns = [list(helper.read_batches(paths, SHAPE, (rank, 4))) for rank in range(4)]
        self.assertEqual([len(batches) for batches in turns], [2, 2, 2, 2])
        np.testing.assert_array_equal(np.concatenate(alone), np.concatenate([
            batch for round_of_all in zip(*turns) for batch in round_of_all]))


class Start(Case):
    def test_each_process_has_the_gpu_of_its_local_rank(self):
        for devices, expected in ((None, '2'), ('4,5,6,7', '6'), ('3', '3'), ('0,1', ''), ('', '')):
            for starter in ('HOROVOD_', 'OMPI_COMM_WORLD_'):
                environment = {starter + 'RANK': '6', starter + 'SIZE': '8', starter + 'LOCAL_RANK': '2'}
                if devices is not None:
                    environment['CUDA_VISIBLE_DEVICES'] = devices
                self.assertEqual(distributed._prepare(environment), (6, 8))
                self.assertEqual(environment['CUDA_VISIBLE_DEVICES'], expected)
        for size in ('1', '', 'two'):
            environment = {'HOROVOD_RANK': '0', 'HOROVOD_SIZE': size}
            self.assertEqual(distributed._prepare(environment), (0, 1))
            self.assertNotIn('CUDA_VISIBLE_DEVICES', environment)

    def test_without_what_is_needed(self):
        alone, broken = mock.MagicMock(), mock.MagicMock()
        alone.tensorflow.size.return_value = 1  # as built without what has started the processes
        broken.tensorflow.init.side_effect = tf.errors.NotFoundError(None, None, 'undefined symbol')
        for version, horovod_here, expected in (
                ('1.15.0', None, 'horovod.*requirements-distributed.txt'),
                ('2.21.0', None, 'needs TensorFlow 1.15 on Python 3.7, and this is 2.21.0'),
                ('1.15.0', alone, 'built without what started'), ('1.15.0', broken, 'undefined symbol')):
            modules = {'horovod': horovod_here, 'horovod.tensorflow': horovod_here and horovod_here.tensorflow}
            with mock.patch.multiple(distributed, RANK=1, SIZE=2), mock.patch.object(tf, '__version__', version), \
                    mock.patch.dict(sys.modules, modules):
                self.assertRegex(self.assert_user_error(main.run, self.folder, self.folder),
                                 'process 1 of 2, and Horovod cannot be used here: .*' + expected)

    def test_what_is_for_one_process(self):
        with mock.patch.object(distributed, 'SIZE', 2), self.assertRaises(SystemExit), \
                mock.patch.object(sys, 'argv', ['main.py', '--predict', 'x.png', '--model', 'runs/1.5']):
            main.main()

    def test_processes_that_have_found_different_things(self):
        workers = distributed.Alone()
        workers.gather = lambda found: [found, found, dict(found, precision='float16')]
        self.assertRegex(self.assert_user_error(workers.compare, {'TensorFlow': '1.15.0', 'precision': 'float32'}),
                         'process 2 has found another precision than process 0: float16, and there it is float32')


@unittest.skipUnless(horovod, 'Horovod is not installed')
class Together(failure_tests.Run):
    def start(self, processes, *command):
        return subprocess.Popen([sys.executable, '-m', 'horovod.runner.launch', '-np', str(processes), sys.executable] +
                                list(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                universal_newlines=True, env=dict(os.environ, PYTHONPATH=HERE))

    def train(self, processes, **settings):
        """The folder of the run, its history, and the weights of each process after the training."""
        code = 'import distributed_tests; distributed_tests.train_and_keep_weights({!r})'.format(settings)
        process = self.start(processes, '-c', code)
        output = process.communicate()[0]
        self.assertEqual(process.returncode, 0, output)
        self.assertEqual(len(re.findall('Epoch 2/2: cross', output)), 1)  # of the first process alone
        weights = [dict(np.load('weights-{}.npz'.format(rank))) for rank in range(processes)]
        return re.search(r'Folder (\S+)\.', output).group(1), weights

    def assert_equal_weights(self, first, second, atol):
        self.assertEqual(set(first), set(second))
        for name in first:
            np.testing.assert_allclose(first[name], second[name], rtol=0, atol=atol, err_msg=name)

    def test_two_processes_take_the_steps_of_one(self):
        """And all have equal weights in the end."""
        self.write_kitti('data/data_road/training', count=10)
        label = imageio.imread(failure_tests.LABEL)
        label[:, :SHAPE[1] // 2] = palettes.DOES_NOT_COUNT  # so a process that has it has fewer pixels
        imageio.imwrite(failure_tests.LABEL, label)
        for settings in (dict(validation=0.2, amp=True), dict(validation=0.2, freeze_encoder=True, augment=True),
                         dict(decoder_first=1, decay=True)):
            with self.subTest(**settings):
                one, (alone,) = self.train(1, batch_size=4, **dict(STEPS, **settings))
                two, (first, second) = self.train(2, batch_size=2, **dict(STEPS, **settings))
                self.assert_equal_weights(first, second, atol=0)
                self.assert_equal_weights(first, alone, atol=1e-5)
                for mine, others in zip(self.history(one), self.history(two)):
                    np.testing.assert_allclose(mine['cross_entropy'], others['cross_entropy'], atol=1e-5)
                    for name, score in mine.get('validation', {}).items():
                        np.testing.assert_allclose(score, others['validation'][name], atol=1e-2)

    def processes(self, launcher):
        """{rank: psutil.Process} of those that horovodrun has started."""
        started = [process for process in psutil.Process(launcher.pid).children(recursive=True)
                   if any(part.endswith('main.py') for part in process.cmdline()) and 'sh' not in process.name()]
        return {int(process.environ()['HOROVOD_RANK']): process for process in started}

    def test_a_killed_process_ends_all_and_the_run_goes_on_with_any_number(self):
        self.write_kitti('data/data_road/training', count=8)
        unbroken = self.history(main.run('data', 'unbroken', epochs=60, batch_size=2, keep_prob=1., image_shape=SHAPE))
        program = os.path.join(HERE, 'main.py')
        arguments = ['--epochs', '60', '--batch-size', '1', '--keep-prob', '1', '--image-shape'] + list(map(str, SHAPE))
        for killed, other in ((1, 0), (0, 1)):
            with self.subTest(killed=killed):
                launcher, output, processes = self.start(2, program, *arguments), '', {}
                for line in launcher.stdout:
                    output += line
                    if 'Epoch 5/' in line and not processes:
                        processes = self.processes(launcher)
                        self.assertEqual(sorted(processes), [0, 1])
                        processes[killed].kill()
                self.assertNotEqual(launcher.wait(), 0)
                folder = os.path.join('runs', os.readlink('runs/latest'))
                # The second where horovodrun is faster than the lost connection.
                self.assertRegex(output, r'\[{}\]<stderr>:(error: another process of the run has ended|stopped after).*'
                                         r'horovodrun -np 2 python main.py --resume {}'.format(other, folder))
                self.assertFalse(any(process.is_running() for process in processes.values()))
        self.resume(2, folder, stop=1)
        for mine, others in list(zip(self.history(folder), unbroken))[:20]:  # later rounding has grown
            np.testing.assert_allclose(mine['cross_entropy'], others['cross_entropy'], atol=2e-3)
        self.resume(3, folder, '--epochs', '61')
        self.assertEqual(self.main('--resume', folder, '--epochs', '62')[0], 0)
        self.assertEqual(len(self.history(folder)), 62)

    def resume(self, number, folder, *options, stop=None):
        """Go on with so many processes; one of them is asked to stop, of which nothing comes if it is not the first."""
        launcher, output = self.start(number, os.path.join(HERE, 'main.py'), '--resume', folder, *options), ''
        for line in launcher.stdout:
            output += line
            if stop and 'Epoch 20/' in line:
                self.processes(launcher)[stop].terminate()
                stop = None
        self.assertEqual(launcher.wait(), 0, output)
        self.assertIn('Going on after', output)
        self.assertIn('Page: ', output)

    def test_a_stop_of_all_says_how_to_go_on(self):
        launcher, output = self.start(2, os.path.join(HERE, 'main.py'), '--epochs', '2000', '--image-shape',
                                      *map(str, SHAPE)), ''
        for line in launcher.stdout:
            if 'Epoch 3/' in line and 'Epoch 3/' not in output:
                launcher.terminate()
            output += line
        self.assertNotEqual(launcher.wait(), 0)
        self.assertRegex(output, r'\[0\]<stderr>:stopped after .*to go on: horovodrun -np 2 python main.py --resume ')

    def test_what_is_wrong_in_one_process_is_said_and_ends_all(self):
        code = 'import distributed_tests; distributed_tests.fail_in_the_second()'
        launcher = self.start(2, '-c', code, '--epochs', '1', '--image-shape', *map(str, SHAPE))
        output = launcher.communicate()[0]
        self.assertNotEqual(launcher.returncode, 0)
        self.assertRegex(output, r'\[1\]<stderr>:error: picture.png: damaged')
        self.assertRegex(output, r'\[0\]<stderr>:(error: another process of the run has ended|stopped)')
        self.assertNotIn('main.py", line', output)
