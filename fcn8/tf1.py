"""TensorFlow's 1.x interface, as `tf`, in TensorFlow 1.15 and in TensorFlow 2, without the log lines.

In 1.15 `tf` is the module that `import tensorflow as tf` gives; in 2.x it is tensorflow.compat.v1 with the graph mode
of 1.x switched on. To see all log lines, and the stack trace of a failed import, set the environment variable
TF_CPP_MIN_LOG_LEVEL to 0.
"""
import contextlib
import importlib.util
import logging
import os
import signal
import subprocess
import sys
import time
import warnings

from fcn8 import launcher

NEEDED = ('Python 3.7 with TensorFlow 1.15.0, or Python 3.10 to 3.13 with TensorFlow 2.21, and the packages of '
          'requirements.txt: python -m pip install -r requirements.txt')

GPUS = launcher.use_first_gpu(os.environ)  # of which this process uses one; before TensorFlow looks for it

# Information lines, and the two by which a machine without an NVIDIA driver says so: device.py does that in a line.
CHATTER = (r'WARNING: All log messages before absl::InitializeLog|I\d{4} |\S+ \S+: I '
           r'|.*Could not load dynamic library .libcuda\.so\.1.|.*failed call to cuInit: .*\(303\)')
FILTER = """
import re, sys
for line in sys.stdin.buffer:
    if not re.match(sys.argv[1], line.decode('utf-8', 'replace')):
        sys.stderr.buffer.write(line)
        sys.stderr.flush()
"""


@contextlib.contextmanager
def _without_native_chatter():
    """Filter the chatter out of what the C++ side writes to stderr in the meantime."""
    # With several processes TensorFlow warns of each session that is closed, and reports a lost process in ten lines.
    if os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '1' if launcher.SIZE == 1 else '3') == '0':
        yield
        return
    # In a process of its own, so that the last lines before an abort get through; no Ctrl-C reaches its session.
    process = subprocess.Popen([sys.executable, '-c', FILTER, CHATTER], stdin=subprocess.PIPE, start_new_session=True)
    sys.stderr.flush()
    stderr = os.dup(2)
    os.dup2(process.stdin.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)
        process.communicate()


def _import_tensorflow():
    # tf.layers of TensorFlow 2 lives in tf_keras, which is asked for by this variable, before the import.
    os.environ['TF_USE_LEGACY_KERAS'] = '1'
    # Of a GPU's memory as much as is needed, instead of all of it at the start.
    os.environ.setdefault('TF_FORCE_GPU_ALLOW_GROWTH', 'true')
    logging.getLogger('tensorflow').addFilter(lambda record: 'deprecated' not in record.getMessage())
    warnings.filterwarnings('ignore', message=r'`tf\.layers\.\w+` is deprecated')
    with _without_native_chatter():
        import tensorflow
        if not tensorflow.__version__.startswith('1.'):
            tensorflow = importlib.import_module('tensorflow.compat.v1')
            tensorflow.disable_v2_behavior()
        assert tensorflow.layers.conv2d  # loaded when first used: a missing tf_keras shows now
        # TensorFlow logs its first search for a GPU: here that is filtered.
        tensorflow.config.experimental.list_physical_devices('GPU')
    return tensorflow


# Ctrl-C ends an import at once; as an exception it would show a trace, or be swallowed on the way.
_on_ctrl_c = signal.signal(signal.SIGINT, signal.SIG_DFL)
try:
    for package in ('numpy', 'scipy.ndimage', 'imageio', 'imageio_ffmpeg', 'PIL', 'tqdm', 'h5py', 'jinja2'):
        importlib.import_module(package)
    if not importlib.util.find_spec('matplotlib'):  # loaded only when a run has ended
        raise ImportError("No module named 'matplotlib'")
    tf = _import_tensorflow()
except Exception as error:  # a TensorFlow among the wrong packages fails with any of a dozen exceptions
    if os.environ.get('TF_CPP_MIN_LOG_LEVEL') == '0':
        raise
    problem = (str(error).splitlines() or [repr(error)])[0].rstrip('.')
    if sys.version_info[:2] not in ((3, 7), (3, 10), (3, 11), (3, 12), (3, 13)):
        problem += ' (and this is Python {}.{})'.format(*sys.version_info)
    if not getattr(error, 'errno', None):  # otherwise the packages are there, and a disk is full, for example
        problem += f'. Needed: {NEEDED}'
    if launcher.PARENT and launcher.RANK:
        time.sleep(5)  # the chief says the same, and all end with it
    sys.stderr.write(f'error: a package cannot be imported: {problem}\n')
    sys.exit(2)
finally:
    signal.signal(signal.SIGINT, _on_ctrl_c)
