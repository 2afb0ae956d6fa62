"""VGG-16 as a SavedModel: its check, and writing it with the ImageNet weights of Keras, or slim for the demo.

Very Deep Convolutional Networks for Large-Scale Image Recognition, Simonyan and Zisserman, 2014,
https://arxiv.org/abs/1409.1556. Its fully connected layers are convolutions here (7x7 and 1x1), so that a picture of
any size goes through; names, tag and preprocessing are those of the published archive.
"""
import contextlib
import os

import h5py
import numpy as np

from fcn8.errors import UserError, is_out_of_memory, reason
from fcn8.files import scratch_folder
from fcn8.tf1 import tf

CONVOLUTIONS_OF_BLOCK = (2, 2, 3, 3, 3)
LAYERS = [f'conv{block}_{number}'
          for block, count in enumerate(CONVOLUTIONS_OF_BLOCK, start=1)
          for number in range(1, count + 1)] + ['fc6', 'fc7']
MEAN_BGR = (103.939, 116.779, 123.68)  # of ImageNet's pixels


@contextlib.contextmanager
def loading(path):
    """Raise UserError instead of what a damaged or another SavedModel in the folder `path` makes TensorFlow raise."""
    try:
        yield
    except KeyError as error:
        raise _not_vgg(path, error.args[0].strip('".')) from error
    except Exception as error:  # what damaged files make TensorFlow raise depends on where the damage is
        if is_out_of_memory(error):
            raise
        raise _not_vgg(path, reason(error)) from error


def check(path, image_shape, tensors):
    """Raise UserError unless the five tensors of main.load_vgg() are what the decoder needs.

    path: of the SavedModel, for the message.
    image_shape: (height, width) of the pictures in pixels.
    """
    height, width = image_shape
    shapes = [[None, height, width, 3], []] + [[None, height // scale, width // scale, None] for scale in (8, 16, 32)]
    for tensor, shape in zip(tensors, shapes):
        if tensor.dtype != tf.float32 or not tensor.shape.is_compatible_with(shape):
            raise _not_vgg(path, f'{tensor.op.name} is {tensor.dtype.name} {tensor.shape}, and not float32 {shape}')
        if shape and (tensor.shape.ndims is None or tensor.shape.as_list()[-1] is None):
            raise _not_vgg(path, f'the number of channels of {tensor.op.name} is unknown')


def check_names(path):
    """Raise UserError if the SavedModel in the folder `path` has variables under the name of the decoder."""
    with loading(path):
        names = [name for name, _ in tf.train.list_variables(os.path.join(path, 'variables', 'variables'))]
    for name in names:
        if name.startswith('decoder/'):
            raise UserError(f'{path}: its variable {name} has a name of the decoder. Rename it, or train without '
                            '--freeze-encoder and --decoder-first')


def _not_vgg(path, problem):
    return UserError(f'{path}: not the VGG-16 model, or damaged: {problem}. Move the folder away, and the next start '
                     'replaces it')


def write_slim(path, seed, width=1 / 8):
    """Write a VGG-16 with `width` times the channels and random weights to the new folder `path`.

    The kernels are orthogonal (Saxe et al. 2013, https://arxiv.org/abs/1312.6120), with the gain of ReLU: so few
    channels lose less of the picture than with independent numbers, and the demo learns faster.
    """
    random = np.random.RandomState(seed)
    channels = {'conv1': 64, 'conv2': 128, 'conv3': 256, 'conv4': 512, 'conv5': 512, 'fc6': 4096, 'fc7': 4096}
    weights, depth_in = {}, 3
    for name in LAYERS:
        size = {'fc6': 7, 'fc7': 1}.get(name, 3)
        depth_out = int(width * channels[name.split('_')[0]])
        kernel = np.sqrt(2) * np.linalg.qr(random.normal(size=(size * size * depth_in, depth_out)))[0]
        weights[name] = kernel.reshape(size, size, depth_in, depth_out), np.zeros(depth_out)
        depth_in = depth_out
    write(path, weights, seed)


def write_from_keras(path, weights_file):
    """Write the VGG-16 of Keras's weights file `vgg16_weights_tf_dim_ordering_tf_kernels.h5` to the new folder `path`.

    The file is read with h5py itself: TensorFlow 1.15's Keras cannot read weights through h5py 3.

    Raises OSError if it is not an HDF5 file, KeyError if it does not hold VGG-16's layers.
    """
    with h5py.File(weights_file, 'r') as file:
        weights = {name: _read_keras_layer(file, name) for name in LAYERS}
    write(path, weights)


def _read_keras_layer(file, name):
    keras_name = {'fc6': 'fc1', 'fc7': 'fc2'}.get(name, name.replace('conv', 'block').replace('_', '_conv'))
    bias, kernel = sorted((array[()] for array in file[keras_name].values()), key=np.ndim)
    if name == 'fc6':  # its inputs are the 7x7 pixels of the last pooling layer, row by row, channels last
        kernel = kernel.reshape(7, 7, -1, kernel.shape[-1])
    if name == 'fc7':
        kernel = kernel[np.newaxis, np.newaxis]
    return kernel, bias


def write(path, weights, seed=0):
    """Write VGG-16 with the given weights as a SavedModel with the tag `vgg16`, whole or not at all.

    path: the folder to write; must not exist.
    weights: {name: (kernel float [size, size, depth_in, depth_out], bias float [depth_out])} for each name of LAYERS.
    seed: seeds dropout in every session that loads the model.

    Raises OSError where it cannot be written.
    """
    with tf.Graph().as_default(), tf.Session() as sess:
        tf.set_random_seed(seed)
        _build({name: kernel.shape for name, (kernel, _) in weights.items()})
        for variable in tf.global_variables():
            name, part = variable.op.name.split('/')
            value = weights[name][0 if part == 'filter' else 1]
            sess.run(variable.initializer, {variable.initial_value: value})
        with scratch_folder(os.path.dirname(os.path.abspath(path))) as scratch:
            written = os.path.join(scratch, 'vgg')
            builder = tf.saved_model.builder.SavedModelBuilder(written)
            try:
                builder.add_meta_graph_and_variables(sess, ['vgg16'])
                builder.save()
            except tf.errors.OpError as error:
                raise OSError(f'{path}: cannot be written ({reason(error)})') from error
            os.rename(written, path)


def _build(kernel_shapes):
    """Build the graph; the tensors that others ask for are image_input, keep_prob and layer3_out, 4 and 7."""
    def convolution(x, name):
        shape = kernel_shapes[name]
        with tf.variable_scope(name):
            # Zeros, not the weights: what does not restore the variables must not look as if it had.
            kernel = tf.get_variable('filter', shape, initializer=tf.zeros_initializer())
            bias = tf.get_variable('biases', shape[-1:], initializer=tf.zeros_initializer())
            return tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, kernel, [1, 1, 1, 1], 'SAME'), bias))

    image = tf.placeholder(tf.float32, [None, None, None, 3], name='image_input')
    keep_prob = tf.placeholder(tf.float32, name='keep_prob')
    x = tf.reverse(image, axis=[-1]) - tf.constant(MEAN_BGR)
    for block, count in enumerate(CONVOLUTIONS_OF_BLOCK, start=1):
        for number in range(1, count + 1):
            x = convolution(x, f'conv{block}_{number}')
        x = tf.nn.max_pool(x, [1, 2, 2, 1], [1, 2, 2, 1], 'SAME', name=f'pool{block}')
        if block in (3, 4):
            x = tf.identity(x, name=f'layer{block}_out')
    for name in ('fc6', 'fc7'):
        x = tf.nn.dropout(convolution(x, name), keep_prob=keep_prob)
    tf.identity(x, name='layer7_out')
