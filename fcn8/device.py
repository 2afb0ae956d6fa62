"""What there is to compute with: a GPU or the CPU, and in which precision."""
import os
import re

from fcn8 import launcher
from fcn8.tf1 import GPUS, tf  # first: it prepares the import of TensorFlow

from tensorflow.python.client import device_lib

# Height and width in pixels. Where fewer than four pixels are left for a 7x7 kernel, parts of it are never used, and in
# bfloat16 TensorFlow leaves their gradients unset: what lies in the memory may be nan.
MIN_SIZE_FOR_BFLOAT16 = 128


def choose_precision(amp, image_shape):
    """'float32', or with amp the mixed precision that is faster on the device: 'float16' or 'bfloat16'.

    image_shape: (height, width) of the network's input in pixels.
    """
    if not amp:
        return 'float32'
    gpu = gpu_name()
    if gpu and compute_capability(gpu) >= (7, 0):
        return 'float16'
    if gpu or not cpu_is_faster_in_bfloat16() or tf.__version__.startswith('1.'):
        reason = ('it needs a GPU with tensor cores, or TensorFlow 2 on an Intel CPU with AMX or an AMD CPU with '
                  'AVX512_BF16')
    elif launcher.SIZE > 1:  # in sessions of TensorFlow's servers bfloat16 has no kernels
        reason = 'on a CPU it works with a single process only'
    elif min(image_shape) < MIN_SIZE_FOR_BFLOAT16:
        reason = f'on a CPU it needs an --image-shape of at least {MIN_SIZE_FOR_BFLOAT16} pixels in height and width'
    else:
        return 'bfloat16'
    print(f'--amp has no effect: {reason}')
    return 'float32'


def session_config(precision='float32'):
    """The tf.ConfigProto of a session in this precision: TensorFlow rewrites its graphs."""
    config = tf.ConfigProto()
    rewriter = config.graph_options.rewrite_options
    if precision == 'float16':
        rewriter.auto_mixed_precision = rewriter.ON
    if precision == 'bfloat16':
        rewriter.auto_mixed_precision_onednn_bfloat16 = rewriter.ON
    return config


def loss_scale():
    """The loss scale of a training in float16, which falls while gradients overflow and rises while none does.

    As the loss is a mean over hundreds of thousands of pixels, the gradients of the layers' outputs are tiny, while
    the gradients of the decoder's kernels, sums over as many pixels, are large and limit the scale
    (benchmarks/gradients.py). So it starts high, since too high a scale costs a step for each halving, and tries the
    next one after 50 good steps, not TensorFlow's 2000: a whole training has 2900.
    """
    return tf.train.experimental.DynamicLossScale(initial_loss_scale=2. ** 20, increment_period=50)


def cpu_is_faster_in_bfloat16():
    """Whether TensorFlow trains faster in bfloat16 than in float32 on the CPU; False where the system does not say.

    Intel's may have AVX512_BF16 and no AMX, as in virtual machines that hide it: on one of them a training step took
    1.6 times as long in bfloat16 as in float32 (docs/performance.md).
    """
    if os.environ.get('TF_ENABLE_ONEDNN_OPTS', '1').lower() in ('0', 'false'):
        return False
    cpu = cpu_info()
    return 'amx_bf16' in cpu or 'avx512_bf16' in cpu and 'AuthenticAMD' in cpu


def cpu_info():
    """What Linux says of the CPU, as text; empty on other systems."""
    try:
        with open('/proc/cpuinfo') as file:
            return file.read()
    except OSError:
        return ''


def gpu_name():
    """TensorFlow's description of the GPU that is used, the first one; None without one."""
    if not tf.config.experimental.list_physical_devices('GPU'):
        return None  # without listing the CPUs, which takes a second
    return next((device.physical_device_desc for device in device_lib.list_local_devices()
                 if device.device_type == 'GPU'), None)  # one that is listed may still be unusable


def gpu_advice(gpu):
    """How to make use of the machine's GPUs, in a sentence; None if this process uses all of them.

    gpu: gpu_name().
    """
    if gpu:
        return f'One of {GPUS} GPUs is used: --processes {GPUS} uses all' * (GPUS > launcher.SIZE) or None
    if not GPUS:
        return None
    return 'An NVIDIA driver is installed, but TensorFlow finds no GPU. ' + (
        "Install CUDA 10.0 and cuDNN 7, or start in NVIDIA's container: docker run --gpus all -it "
        'nvcr.io/nvidia/tensorflow:23.03-tf1-py3' if tf.__version__.startswith('1.') else
        'Install CUDA and cuDNN with: python -m pip install -r requirements-gpu.txt'
    ) + ' (TF_CPP_MIN_LOG_LEVEL=0 shows what it looks for)'


def uses_tf32(gpu):
    """Whether TensorFlow multiplies float32 in TF32 (10-bit mantissa) on this GPU; False for None.

    gpu: gpu_name().
    """
    # NVIDIA's TensorFlow 1.15 has TF32, but does not say so.
    enabled = getattr(tf.config.experimental, 'tensor_float_32_execution_enabled', lambda: True)
    return bool(gpu) and compute_capability(gpu) >= (8, 0) and enabled() and os.environ.get(
        'NVIDIA_TF32_OVERRIDE') != '0'


def compute_capability(gpu):
    """The (major, minor) compute capability in a GPU's description; from 7.0 on it has tensor cores."""
    found = re.search(r'compute capability: (\d+)\.(\d+)', gpu)
    return tuple(map(int, found.groups())) if found else (0, 0)
