"""Which of several processes this one is, and which GPU it gets, as told by the environment."""
import shutil
import unittest
from unittest import mock

from fcn8 import launcher
from tests.support import Case, write


class Prepare(unittest.TestCase):
    def test_each_process_gets_the_gpu_of_its_local_rank(self):
        for devices, expected in ((None, '2'), ('4,5,6,7', '6'), ('3', '3'), ('0,1', ''), ('', '')):
            for prefix in ('HOROVOD_', 'OMPI_COMM_WORLD_'):
                with self.subTest(devices=devices, prefix=prefix):
                    environment = {prefix + 'RANK': '6', prefix + 'SIZE': '8', prefix + 'LOCAL_RANK': '2'}
                    if devices is not None:
                        environment['CUDA_VISIBLE_DEVICES'] = devices
                    self.assertEqual(launcher.prepare(environment), (6, 8))
                    self.assertEqual(environment['CUDA_VISIBLE_DEVICES'], expected)

    def test_one_process_has_all_gpus(self):
        for environment in ({}, {'HOROVOD_RANK': '0', 'HOROVOD_SIZE': '1', 'HOROVOD_LOCAL_RANK': '0'},
                            {'HOROVOD_RANK': '0', 'HOROVOD_SIZE': ''}, {'HOROVOD_RANK': '0', 'HOROVOD_SIZE': 'two'}):
            with self.subTest(environment):
                self.assertEqual(launcher.prepare(environment), (0, 1))
                self.assertNotIn('CUDA_VISIBLE_DEVICES', environment)


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
