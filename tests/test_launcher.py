"""Which of several processes this one is, and which GPU it gets, as told by the environment."""
import unittest

from fcn8 import launcher


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
