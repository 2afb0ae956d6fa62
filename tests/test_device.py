"""The precision that --amp gives on each device, and how it reaches the training."""
from fcn8.tf1 import tf

import builtins
import contextlib
import json
import os
from unittest import mock

import numpy as np

import main
from fcn8 import device
from fcn8.device import device_lib
from fcn8.settings import Settings
from tests.support import Case, RunCase


@contextlib.contextmanager
def machine(*capabilities, bfloat16=False, listed=0):
    """A machine with GPUs of these compute capabilities, and a CPU that is faster in bfloat16 or is not.

    listed: GPUs that are listed but cannot be opened.
    """
    devices = [mock.Mock(device_type='CPU', physical_device_desc='')]
    for number, capability in enumerate(capabilities):
        description = f'device: {number}, name: GPU {number}, pci bus id: 00:1e.0, compute capability: {capability}'
        devices.append(mock.Mock(device_type='GPU', physical_device_desc=description))
    with mock.patch.object(tf.config.experimental, 'list_physical_devices', return_value=devices[1:] or [1] * listed), \
            mock.patch.object(device_lib, 'list_local_devices', return_value=devices), \
            mock.patch.object(device, 'cpu_is_faster_in_bfloat16', return_value=bfloat16):
        yield


class Precision(Case):
    def choose(self, amp=True, image_shape=Settings.image_shape):
        """The precision, and what is printed."""
        self.printed.truncate(0)
        return device.choose_precision(amp, image_shape), self.printed.getvalue()

    def test_amp_takes_what_is_fast_on_the_device(self):
        for capability, expected in (('7.0', 'float16'), ('9.0', 'float16'), ('12.0', 'float16'), ('6.1', 'float32')):
            with self.subTest(capability), machine(capability, bfloat16=True):
                precision, printed = self.choose()
                self.assertEqual(precision, expected)
                self.assertEqual('--amp has no effect' in printed, precision == 'float32')
        with machine(bfloat16=True):
            precision, printed = self.choose()
            self.assertEqual(precision, 'float32' if tf.__version__.startswith('1.') else 'bfloat16')
            self.assertEqual('--amp has no effect' in printed, precision == 'float32')
        # The first one trains, whatever the others have.
        for capabilities, expected in ((('6.1', '8.0'), 'float32'), (('8.0', '6.1'), 'float16')):
            with machine(*capabilities):
                self.assertEqual(self.choose()[0], expected)
                self.assertIn('name: GPU 0', device.gpu_name())
        with machine(listed=1):
            self.assertEqual((self.choose()[0], device.gpu_name()), ('float32', None))
        with machine():
            precision, printed = self.choose()
            self.assertEqual(precision, 'float32')
            self.assertIn('--amp has no effect: it needs a GPU with tensor cores, or TensorFlow 2 on an Intel CPU with '
                          'AMX', printed)

    def test_cpus_that_are_faster_in_bfloat16(self):
        """Intel's need AMX, which virtual machines may hide."""
        for cpu, expected in (('AuthenticAMD avx512f avx512_bf16', True), ('AuthenticAMD avx512f', False),
                              ('GenuineIntel avx512_bf16 amx_tile amx_bf16', True),
                              ('GenuineIntel avx512_bf16 avx512_fp16', False), ('', False)):
            with self.subTest(cpu), mock.patch.object(device, 'cpu_info', return_value=cpu), \
                    mock.patch.dict(os.environ, TF_ENABLE_ONEDNN_OPTS='1'):
                self.assertIs(device.cpu_is_faster_in_bfloat16(), expected)
        with mock.patch.object(builtins, 'open', side_effect=FileNotFoundError):
            self.assertEqual(device.cpu_info(), '')

    def test_a_cpu_whose_fast_kernels_are_switched_off(self):
        """Other kernels leave bfloat16 out without a word."""
        with mock.patch.object(device, 'cpu_info', return_value='AuthenticAMD avx512_bf16'):
            for value, expected in (('1', True), ('0', False), ('False', False)):
                with mock.patch.dict(os.environ, TF_ENABLE_ONEDNN_OPTS=value):
                    self.assertIs(device.cpu_is_faster_in_bfloat16(), expected)

    def test_small_pictures_keep_float32_on_a_cpu(self):
        with machine(bfloat16=True):
            self.assertEqual(self.choose(image_shape=(128, 128))[0], self.choose()[0])
            precision, printed = self.choose(image_shape=(96, 320))
        self.assertEqual(precision, 'float32')
        self.assertIn('--amp has no effect', printed)
        if not tf.__version__.startswith('1.'):
            self.assertIn('--image-shape of at least 128 pixels', printed)
        with machine('8.0'):
            self.assertEqual(self.choose(image_shape=(96, 320)), ('float16', ''))

    def test_float32_without_amp(self):
        with machine('9.0', bfloat16=True):
            self.assertEqual(self.choose(amp=False), ('float32', ''))
        self.assertEqual(device.session_config('float32'), tf.ConfigProto())
        self.assertNotEqual(device.session_config('float16'), tf.ConfigProto())


class Gpus(Case):
    def test_tf32_on_gpus_that_have_it(self):
        ampere, turing = (f'name: GPU, compute capability: {capability}' for capability in ('8.0', '7.5'))
        self.assertIs(device.uses_tf32(ampere), True)
        self.assertIs(device.uses_tf32(turing), False)
        self.assertIs(device.uses_tf32(None), False)
        with mock.patch.dict(os.environ, NVIDIA_TF32_OVERRIDE='0'):
            self.assertIs(device.uses_tf32(ampere), False)
        if not tf.__version__.startswith('1.'):
            self.addCleanup(tf.config.experimental.enable_tensor_float_32_execution, True)
            tf.config.experimental.enable_tensor_float_32_execution(False)
            self.assertIs(device.uses_tf32(ampere), False)

    def test_advice(self):
        advice = 'CUDA 10.0 and cuDNN 7, .* docker run ' if tf.__version__.startswith('1.') else \
            'python -m pip install -r requirements-gpu.txt '
        for gpus, gpu, expected in ((0, None, '^None$'), (1, 'a GPU', '^None$'), (1, None, advice), (2, None, advice),
                                    (2, 'a GPU', 'One of 2 GPUs is used: --processes 2 uses')):
            with self.subTest(gpus=gpus, gpu=gpu), mock.patch.object(device, 'GPUS', gpus):
                self.assertRegex(str(device.gpu_advice(gpu)), expected)


class Training(RunCase):
    def test_a_run_says_that_a_gpu_is_not_found(self):
        with mock.patch.object(device, 'GPUS', 1):
            folder = self.new_run()
        self.assertRegex(self.printed.getvalue(), 'found no GPU and trains on the CPU in float32\n.*driver.*\nSettings')
        with open(os.path.join(folder, 'settings.json')) as file:
            about = json.load(file)['about']
        self.assertEqual((about['device'], about['tf32']), ('CPU', False))

    def test_a_run_in_mixed_precision_learns_as_in_float32(self):
        settings = dict(image_shape=(128, 128), epochs=2)
        amd_cpu = mock.patch.object(device, 'cpu_info', return_value=device.cpu_info() + ' AuthenticAMD')
        amd_cpu.start()  # Intel's AVX512_BF16 may be slow, but trains as well
        self.addCleanup(amd_cpu.stop)
        precision = device.choose_precision(True, settings['image_shape'])
        if precision == 'float32':
            self.skipTest(f'TensorFlow {tf.__version__} has no mixed precision on this device')
        losses = {}
        for amp in (True, False):
            self.printed.truncate(0)
            losses[amp] = [entry['cross_entropy'] for entry in self.history(self.new_run(amp=amp, **settings))]
            self.assertIn(f'in {precision if amp else "float32"}\n', self.printed.getvalue())
        np.testing.assert_allclose(losses[True], losses[False], rtol=0.02)
        self.assertNotEqual(losses[True], losses[False])  # otherwise nothing was rewritten

    def test_the_precision_reaches_session_and_optimizer(self):
        config = tf.ConfigProto(intra_op_parallelism_threads=1)  # harmless, and unlike the default
        with mock.patch.object(device, 'choose_precision', return_value='float16'), \
                mock.patch.object(device, 'session_config', return_value=config) as session_config, \
                mock.patch.object(tf, 'Session', wraps=tf.Session) as session, \
                mock.patch.object(main, 'optimize', wraps=main.optimize) as optimize:
            folder = self.new_run(amp=True)
            self.assertIn('add --decoder-first 30, or leave out --amp\n', self.printed.getvalue())
            for settings in (dict(decoder_first=1), dict(freeze_encoder=True), dict(resume=folder)):
                self.printed.truncate(0)
                self.new_run(amp=True, **settings)
                self.assertNotIn('leave out --amp', self.printed.getvalue(), settings)
        session_config.assert_called_with('float16')
        session.assert_any_call(config=config)
        self.assertIs(optimize.call_args[1]['loss_scaling'], True)
        self.assertIn('in float16\n', self.printed.getvalue())
