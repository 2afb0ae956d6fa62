"""What there is to compute with: the GPU or the CPU, and in which precision."""
from tf1 import tf

from tensorflow.python.client import device_lib


# Height and width in pixels. Where fewer than four pixels are left for a 7x7 kernel, parts of it are never used, and in
# bfloat16 TensorFlow leaves their gradients unset: what lies in the memory may be nan.
MIN_SIZE_FOR_BFLOAT16 = 128


def choose_precision(amp, image_shape):
    """The session's settings, with TensorFlow's rewrite of the graph to mixed precision where amp asks for it.

    image_shape: height and width of what the network sees.

    Returns (tf.ConfigProto, 'float32', 'float16' or 'bfloat16'): float32 where the device has no other.
    """
    config = tf.ConfigProto()
    rewriter = config.graph_options.rewrite_options
    gpu = tf.config.experimental.list_physical_devices('GPU')
    if not amp:
        return config, 'float32'
    if gpu and tf.test.is_gpu_available(min_cuda_compute_capability=(7, 0)):
        rewriter.auto_mixed_precision = rewriter.ON
        return config, 'float16'
    if not gpu and cpu_has_bfloat16() and hasattr(rewriter, 'auto_mixed_precision_onednn_bfloat16'):
        if min(image_shape) < MIN_SIZE_FOR_BFLOAT16:
            print('--amp has no effect: on a CPU it needs pictures of at least {0}x{0} pixels'.format(
                MIN_SIZE_FOR_BFLOAT16))
            return config, 'float32'
        rewriter.auto_mixed_precision_onednn_bfloat16 = rewriter.ON
        return config, 'bfloat16'
    print('--amp has no effect: it needs a GPU with tensor cores, or a CPU with bfloat16 and TensorFlow 2')
    return config, 'float32'


def cpu_has_bfloat16():
    """Whether the CPU multiplies bfloat16 in hardware; False where the system does not tell."""
    try:
        with open('/proc/cpuinfo') as file:
            return 'avx512_bf16' in file.read()
    except OSError:
        return False


def report_device(precision):
    """Print what trains; returns the name of the GPU, None where there is none."""
    name = None
    if tf.config.experimental.list_physical_devices('GPU'):
        name = next(device.physical_device_desc for device in device_lib.list_local_devices()
                    if device.device_type == 'GPU')
    print('TensorFlow {} {} in {}'.format(
        tf.__version__, 'trains on ' + name if name else 'found no GPU and trains on the CPU', precision))
    return name
