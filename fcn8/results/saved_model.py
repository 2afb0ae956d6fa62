"""The trained network as a SavedModel of its own: written at the end of a run, loaded by predict and evaluate.

The model has the tag `serve` and one signature, `serving_default`: from `pictures`, uint8 [n, h, w, 3], red green blue,
of any size, to `road_probability`, float32 [n, h, w]; with other classes, which are in classes.json beside it, to
`class_probabilities`, float32 [n, h, w, classes]. Nothing but the pictures is fed, and TensorFlow 1.15 and 2.21 load
each other's. Models of older runs have constants instead of variables.
"""
import contextlib
import json
import os

import numpy as np

from fcn8 import device
from fcn8.data import images
from fcn8.data.classes import read_classes
from fcn8.data.kitti import INFERENCE_BATCH
from fcn8.errors import UserError, cannot_write, is_out_of_memory, reason
from fcn8.files import scratch_folder
from fcn8.results.segmenter import make_saver
from fcn8.tf1 import tf

# Tensors in it: the pictures, float32 [n, height, width, 3], and the probabilities, float32 [n, height, width, 1 or
# classes], both in the network's size; the names are those in models of older runs.
RESIZED, PROBABILITY = 'Round:0', 'Reshape:0'
BATCH_PIXELS = 4e6  # of pictures that go through the network at once, unless it is one: 8 of KITTI's have as many


def export(segmenter, path):
    """Write the network of a Segmenter as a SavedModel, whole or not at all; one that is there is replaced.

    path: the folder to write; its parent is there.

    Raises UserError if it cannot be written.
    """
    classes, graph = segmenter.classes, segmenter.sess.graph
    network = tf.graph_util.extract_sub_graph(graph.as_graph_def(), [segmenter.softmax.op.name])
    with tf.Graph().as_default():
        pictures = tf.placeholder(tf.uint8, [None, None, None, 3], name='pictures')
        # Whole numbers, as in the training.
        resized = tf.round(_resize(tf.cast(pictures, tf.float32), segmenter.image_shape), name=RESIZED[:-2])
        inputs = {segmenter.input_image: resized, segmenter.keep_prob: tf.constant(1.)}
        inputs.update((variable.op.outputs[0], _declare(variable).op.outputs[0]) for variable in segmenter.variables)
        names = {node.name for node in network.node}  # a network without dropout has no keep_prob
        softmax, = tf.import_graph_def(
            network, {tensor.name: value for tensor, value in inputs.items() if tensor.op.name in names},
            [segmenter.softmax.name], name='network')
        probability = softmax[:, 1:] if classes.is_road else softmax
        probability = tf.reshape(probability, (-1,) + segmenter.image_shape + (probability.shape[-1],),
                                 name=PROBABILITY[:-2])
        probability = _enlarge(probability, tf.shape(pictures)[1:3])
        probability = tf.identity(probability[..., 0] if classes.is_road else probability, name=classes.output)
        make_saver(tf.global_variables())
        _write(segmenter, {'pictures': pictures}, {classes.output: probability}, path)


def _declare(variable):
    """The same variable in the default graph, without its value."""
    return tf.get_variable(variable.op.name, variable.shape, variable.dtype.base_dtype, tf.zeros_initializer(),
                           use_resource=variable.op.type == 'VarHandleOp')


def _resize(pictures, shape):
    """Bilinear, and without aliasing where it makes them smaller: as Pillow does it, which makes the batches."""
    factors = tf.cast(shape, tf.float32) / tf.cast(tf.shape(pictures)[1:3], tf.float32)
    return tf.raw_ops.ScaleAndTranslate(images=pictures, size=shape, scale=factors, translation=tf.zeros([2]),
                                        kernel_type='triangle', antialias=True)


def _enlarge(probability, shape):
    """Bilinear, with an op that GPUs have; rounding in it can exceed 1."""
    return tf.clip_by_value(tf.image.resize_bilinear(probability, shape, half_pixel_centers=True), 0., 1.)


def _write(segmenter, inputs, outputs, path):
    folder, name = os.path.split(path)
    classes = segmenter.classes
    signature = tf.saved_model.signature_def_utils.predict_signature_def(inputs, outputs)
    try:
        with scratch_folder(folder) as scratch:
            builder = tf.saved_model.builder.SavedModelBuilder(os.path.join(scratch, name))
            # The graph is the default one, the weights are those in the Segmenter's session: no copy of them is needed,
            # as the savers of both graphs have the same names. Without the attributes that an older version might not
            # know and does not need.
            builder.add_meta_graph_and_variables(segmenter.sess, ['serve'], {'serving_default': signature},
                                                 strip_default_attrs=True, saver=segmenter.saver)
            builder.save()
            if not classes.is_road:
                with open(os.path.join(scratch, name, 'classes.json'), 'w') as file:
                    json.dump(classes.description, file, indent=2)
            if os.path.exists(path):
                os.rename(path, os.path.join(scratch, 'old'))
            os.rename(os.path.join(scratch, name), path)
    except (OSError, tf.errors.OpError) as error:
        raise cannot_write(path, error) from error


class Model:
    """A trained network for pictures of any size.

    classes: the data.classes.Classes that it distinguishes.
    image_shape: (height, width) in pixels, to which pictures are resized for the network.
    predict: from resized pictures, uint8 [n, height, width, 3], and the (h, w) of the result to predictions, [n, h, w].
    """

    def __init__(self, classes, image_shape, predict):
        self.classes, self._image_shape, self._predict = classes, image_shape, predict

    def segment(self, items, read=lambda item: item):
        """Yield (picture, prediction) for pictures, uint8 [h, w, 3]: as many at once as have one size and fit.

        A prediction is one of data.classes.Classes, [h, w].

        items: the pictures, or with read, a function that threads call, what it makes them of, such as paths.
        """
        def read_and_resize(item):
            picture = read(item)
            return picture, images.resize(picture, self._image_shape)

        batch = []  # of (picture, resized picture)
        for picture, resized in images.in_order(read_and_resize, items):
            if batch and (picture.shape != batch[0][0].shape or len(batch) == INFERENCE_BATCH
                          or (len(batch) + 1) * picture[..., 0].size > BATCH_PIXELS):
                yield from self._segment(batch)
                batch = []
            batch.append((picture, resized))
        if batch:
            yield from self._segment(batch)

    def _segment(self, batch):
        pictures, resized = zip(*batch)
        return zip(pictures, self._predict(np.array(resized), pictures[0].shape[:2]))


@contextlib.contextmanager
def load(run):
    """Yield the Model that the run in this folder has trained.

    Raises UserError if there is no such model.
    """
    path = os.path.join(run, 'model')
    if not os.path.isdir(path):
        raise UserError(f'{run}: ' + (
            'the run has not ended, and has no folder `model`. Name another run, or finish this one with --resume'
            if os.path.exists(os.path.join(run, 'settings.json')) else
            'not the folder of a run: it holds no folder `model`' if os.path.isdir(run) else
            'no such folder. Name the folder of a run'))
    its_classes = os.path.join(path, 'classes.json')
    classes = read_classes(its_classes if os.path.exists(its_classes) else None)
    config = tf.ConfigProto()
    # Of an older run: the graph optimiser copies constants, which are its weights, over and over.
    config.graph_options.rewrite_options.disable_meta_optimizer = not os.path.exists(
        os.path.join(path, 'variables', 'variables.index'))
    with tf.Graph().as_default(), tf.Session(config=config) as sess:
        try:
            signature = tf.saved_model.loader.load(sess, ['serve'], path).signature_def['serving_default']
            if classes.output not in signature.outputs:
                raise ValueError(f'no {classes.output}: is {its_classes} missing or wrong?')
            resized, probability = map(sess.graph.get_tensor_by_name, (RESIZED, PROBABILITY))
            if probability.shape[-1] != (1 if classes.is_road else len(classes)):
                raise ValueError(f'its classes are not those of {its_classes}')
        except Exception as error:  # what damaged files make TensorFlow raise depends on where the damage is
            if is_out_of_memory(error):
                raise
            raise UserError(f'{path}: not the model of a run, or damaged ({reason(error)}). Name another run, or train '
                            'again') from error
        shape = tf.placeholder(tf.int32, [2])
        prediction = _enlarge(probability, shape)
        prediction = prediction[..., 0] if classes.is_road else tf.cast(tf.argmax(prediction, -1), tf.uint8)
        sess.graph.finalize()
        gpu = device.gpu_name()
        print('TensorFlow {} {}'.format(
            tf.__version__, f'segments on {gpu}' if gpu else 'found no GPU and segments on the CPU'))
        if not gpu and device.gpu_advice(gpu):
            print(device.gpu_advice(gpu))
        yield Model(classes, tuple(resized.shape.as_list()[1:3]),
                    lambda pictures, size: sess.run(prediction, {resized: pictures, shape: size}))
