"""Which of several processes this one is, and which GPU it gets, according to the environment."""
import json
import shutil
import unittest
from unittest import mock

from fcn8 import launcher
from tests.support import Case, write

WORKERS = ['one:2000', 'other:2000', 'one:2001', 'other:2001', 'other:2002']


def tf_config(index, worker=WORKERS, kind='worker'):
    return {'TF_CONFIG': json.dumps({'cluster': {kind: worker}, 'task': {'type': 'worker', 'index': index}})}


class Prepare(unittest.TestCase):
    def test_each_process_gets_the_gpu_of_its_local_rank(self):
        for devices, expected in ((None, '2'), ('4,5,6,7', '6'), ('3', '3'), ('0,1', ''), ('', '')):
            for started in (tf_config(4), {'HOROVOD_RANK': '4', 'HOROVOD_SIZE': '5', 'HOROVOD_LOCAL_RANK': '2'},
                            {'OMPI_COMM_WORLD_RANK': '4', 'OMPI_COMM_WORLD_SIZE': '5',
                             'OMPI_COMM_WORLD_LOCAL_RANK': '2'}):
                with self.subTest(devices=devices, started=started):
                    environment = dict(started, **({} if devices is None else {'CUDA_VISIBLE_DEVICES': devices}))
                    self.assertEqual(launcher.prepare(environment)[:3], (4, 5, 2))
                    self.assertEqual(environment['CUDA_VISIBLE_DEVICES'], expected)

    def test_one_process_has_all_gpus(self):
        for environment in ({}, {'HOROVOD_RANK': '0', 'HOROVOD_SIZE': '1', 'HOROVOD_LOCAL_RANK': '0'},
                            {'HOROVOD_RANK': '0', 'HOROVOD_SIZE': ''}, {'HOROVOD_RANK': '0', 'HOROVOD_SIZE': 'two'},
                            {'TF_CONFIG': ''}, {'TF_CONFIG': '{"cluster": {}}'}, tf_config(0, WORKERS[:1])):
            with self.subTest(environment):
                self.assertEqual(launcher.prepare(environment)[:3], (0, 1, 0))
                self.assertNotIn('CUDA_VISIBLE_DEVICES', environment)

    def test_addresses(self):
        self.assertEqual(launcher.prepare(tf_config(1))[3], [
            ('one', 2000), ('other', 2000), ('one', 2001), ('other', 2001), ('other', 2002)])

    def test_a_cluster_of_a_chief_and_workers(self):
        cluster = {'worker': WORKERS[1:3], 'chief': WORKERS[:1]}
        for task, index, expected in (('chief', 0, (0, 3, 0)), ('worker', 0, (1, 3, 0)), ('worker', 1, (2, 3, 1))):
            config = {'TF_CONFIG': json.dumps({'cluster': cluster, 'task': {'type': task, 'index': index}})}
            *found, workers = launcher.prepare(config)
            self.assertEqual((tuple(found), workers), (expected, [('one', 2000), ('other', 2000), ('one', 2001)]))


class UseFirstGpu(Case):
    def test_a_process_that_is_alone_sees_one_gpu(self):
        for driver, devices, size, left, count in (
                (3, None, 1, '0', 3), (3, '5,7', 1, '5', 2), (3, '7', 1, '7', 1), (1, None, 1, None, 1),
                (3, None, 2, None, 3), (3, '', 1, '', 0), (3, '-1', 1, '-1', 0), (0, None, 1, None, 0),
                (0, '0', 1, '0', 0)):
            for number in range(driver):
                write(self.path(f'{driver} GPUs', str(number)), b'')
            environment = {} if devices is None else {'CUDA_VISIBLE_DEVICES': devices}
            with self.subTest(driver=driver, devices=devices, size=size), \
                    mock.patch.object(launcher, 'DRIVERS_GPUS', self.path(f'{driver} GPUs', '*')), \
                    mock.patch.object(launcher, 'SIZE', size), \
                    mock.patch.object(shutil, 'which', return_value=None):
                self.assertEqual(launcher.use_first_gpu(environment), count)
                self.assertEqual(environment.get('CUDA_VISIBLE_DEVICES'), left)

    def test_a_driver_without_a_folder_in_proc(self):
        with mock.patch.object(launcher, 'DRIVERS_GPUS', self.path('none', '*')), \
                mock.patch.object(shutil, 'which', return_value='/usr/lib/wsl/lib/nvidia-smi'):
            self.assertEqual(launcher.use_first_gpu({}), 1)


class WrongTfConfig(Case):
    def test_ends_a_training_in_one_line(self):
        for wrong in (tf_config(5), tf_config(-1), tf_config(0, ['one', 'other']), tf_config(0, ['one:-1', 'other:1']),
                      tf_config(0, kind='ps'), tf_config(0, kind='chief'), tf_config(None), {'TF_CONFIG': '{'},
                      {'TF_CONFIG': '[1]'}, {'TF_CONFIG': '{"cluster": [1]}'}):
            with self.subTest(wrong):
                self.assertRaisesRegex(ValueError, 'TF_CONFIG is not of the form', launcher.prepare, dict(wrong))
        status, output = self.run_program('--data-dir', '.', **tf_config(5))
        self.assertEqual(status, 2)
        self.assertRegex(output, '^error: TF_CONFIG is not of the form [^\n]*\n$')

    def test_matters_to_a_training_only(self):
        self.assertEqual(self.run_program('--help', **tf_config(5))[0], 0)
