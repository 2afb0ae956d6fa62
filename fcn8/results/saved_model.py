"""The trained network as a SavedModel of its own: written at the end of a run, loaded by predict and evaluate.

The model has the tag `serve` and one signature, `serving_default`: from `pictures`, uint8 [n, h, w, 3], red green blue,
of any size, to `road_probability`, float32 [n, h, w]; with other classes, which are in classes.json beside it, to
`class_probabilities`, float32 [n, h, w, classes]. It has no variables, and nothing but the pictures is fed;
TensorFlow 1.15 and 2.21 load each other's.
"""
import contextlib
import json
import os

import numpy as np

from fcn8.data.classes import KITTI_ROAD, read_classes
from fcn8.data.kitti import INFERENCE_BATCH
from fcn8.errors import UserError, cannot_write, is_out_of_memory, reason
from fcn8.files import scratch_folder
from fcn8.tf1 import tf

BATCH_PIXELS = 4e6  # of pictures that go through the network at once, unless it is one: 8 of KITTI's have as many


def export(segmenter, path):
    """Write the network of a Segmenter as a SavedModel, whole or not at all, in the place of one that is there.

    path: the folder to write; its parent is there.

    Raises UserError if it cannot be written.
    """
    sess, classes, softmax = segmenter.sess, segmenter.classes, segmenter.softmax
    network = tf.graph_util.convert_variables_to_constants(sess, sess.graph_def, [softmax.op.name])
    with tf.Graph().as_default(), tf.Session() as new_sess:
        pictures = tf.placeholder(tf.uint8, [None, None, None, 3], name='pictures')
        # Whole numbers, as in the training.
        resized = tf.round(_resize(tf.cast(pictures, tf.float32), segmenter.image_shape))
        inputs = {segmenter.input_image: resized, segmenter.keep_prob: tf.constant(1.)}
        needed = {node.name for node in network.node}  # a network without dropout has no keep_prob
        softmax, = tf.import_graph_def(
            network, {tensor.name: value for tensor, value in inputs.items() if tensor.op.name in needed},
            [softmax.name], name='network')
        del network  # as large as the weights
        probability = classes.select(softmax)
        channels = 1 if probability.shape.ndims == 1 else len(classes)
        probability = tf.reshape(probability, (-1,) + segmenter.image_shape + (channels,))
        # Rounding in the resizing can exceed 1.
        probability = tf.clip_by_value(_resize(probability, tf.shape(pictures)[1:3]), 0., 1.)
        probability = tf.identity(probability[..., 0] if channels == 1 else probability, name=classes.output)
        signature = tf.saved_model.signature_def_utils.predict_signature_def(
            {'pictures': pictures}, {classes.output: probability})
        _write(new_sess, signature, path, classes)


def _resize(pictures, shape):
    """Bilinear, and without aliasing where it makes them smaller: as Pillow does it, which makes the batches."""
    factors = tf.cast(shape, tf.float32) / tf.cast(tf.shape(pictures)[1:3], tf.float32)
    return tf.raw_ops.ScaleAndTranslate(images=pictures, size=shape, scale=factors, translation=tf.zeros([2]),
                                        kernel_type='triangle', antialias=True)


def _write(sess, signature, path, classes):
    folder, name = os.path.split(path)
    try:
        with scratch_folder(folder) as scratch:
            builder = tf.saved_model.builder.SavedModelBuilder(os.path.join(scratch, name))
            # Without the attributes that an older version might not know and does not need.
            builder.add_meta_graph_and_variables(sess, ['serve'], {'serving_default': signature},
                                                 strip_default_attrs=True)
            builder.save()
            if classes is not KITTI_ROAD:
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
    predict: from pictures, uint8 [n, h, w, 3], to probabilities, float32 [n, h, w] or [n, h, w, classes].
    """

    def __init__(self, classes, predict):
        self.classes, self._predict = classes, predict

    def segment(self, pictures):
        """Yield (picture, probability) for pictures, uint8 [h, w, 3]: as many at once as have one size and fit."""
        batch = []
        for picture in pictures:
            if batch and picture.shape != batch[0].shape:
                yield from zip(batch, self._predict(np.array(batch)))
                batch = []
            batch.append(picture)
            if len(batch) == INFERENCE_BATCH or (len(batch) + 1) * picture[..., 0].size > BATCH_PIXELS:
                yield from zip(batch, self._predict(np.array(batch)))
                batch = []
        if batch:
            yield from zip(batch, self._predict(np.array(batch)))


@contextlib.contextmanager
def load(run):
    """Yield the Model that the run in this folder has trained.

    Raises UserError if there is no such model.
    """
    path = os.path.join(run, 'model')
    if not os.path.isdir(path):
        raise UserError(f'{run}: ' + (
            'no folder `model` in it: a run writes that when it ends. Name another run, or finish this one with '
            '--resume' if os.path.isdir(run) else 'no such folder. Name the folder of a run'))
    its_classes = os.path.join(path, 'classes.json')
    classes = read_classes(its_classes if os.path.exists(its_classes) else None)
    # TensorFlow's graph optimiser copies the constants, which are the weights, over and over.
    config = tf.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    with tf.Graph().as_default(), tf.Session(config=config) as sess:
        try:
            signature = tf.saved_model.loader.load(sess, ['serve'], path).signature_def['serving_default']
            if classes.output not in signature.outputs:
                raise ValueError(f'no {classes.output}: is {its_classes} missing or wrong?')
            pictures, probability = (sess.graph.get_tensor_by_name(info.name) for info in (
                signature.inputs['pictures'], signature.outputs[classes.output]))
            if len(probability.shape) == 4 and probability.shape.as_list()[-1] != len(classes):
                raise ValueError(f'its classes are not those of {its_classes}')
        except Exception as error:  # what damaged files make TensorFlow raise depends on where the damage is
            if is_out_of_memory(error):
                raise
            raise UserError(f'{path}: not the model of a run, or damaged ({reason(error)}). Name another run, or train '
                            'again') from error
        sess.graph.finalize()
        yield Model(classes, lambda batch: sess.run(probability, {pictures: batch}))
