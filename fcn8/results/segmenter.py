"""A network in a session, as a function from pictures to predictions."""
import numpy as np

from fcn8.data import kitti
from fcn8.errors import UserError
from fcn8.tf1 import tf  # first: it prepares the import of TensorFlow

from tensorflow.python.ops import op_selector


def _found_or_built(tensor, kind, build):
    """What the first call builds on a tensor, later ones find: so inference adds nothing to a graph that is final."""
    for operation in tensor.consumers():
        if operation.type == kind:
            return operation.outputs[0]
    return build(tensor)


def dropout_of(operations):
    """Those of some operations that draw the random numbers of dropout: 4-D, [n, h, w, channels]."""
    return [operation for operation in operations
            if operation.type == 'RandomUniform' and operation.outputs[0].shape.ndims == 4]


def make_saver(variables):
    """A tf.train.Saver of variables; its ops have the same names in every graph."""
    return tf.train.Saver(variables, allow_empty=True, name='export')


class Segmenter:
    """Classifies every pixel of a picture: called with pictures, it returns their predictions.

    logits: float32 [n*h*w, classes], computed from input_image and keep_prob.
    keep_prob: scalar placeholder.
    input_image: placeholder of the pictures, float32 [n, h, w, 3], or the tuple of placeholders of their features.
    image_shape: (height, width) in pixels.
    classes: data.classes.Classes.

    variables, saver: those that it needs, and their tf.train.Saver, once prepare_export() has been called.
    """

    def __init__(self, sess, logits, keep_prob, input_image, image_shape, classes):
        self.sess, self.keep_prob, self.input_image = sess, keep_prob, input_image
        self.image_shape, self.classes = tuple(image_shape), classes
        self.softmax = _found_or_built(logits, 'Softmax', tf.nn.softmax)
        # Of many classes, the probabilities would take longer to fetch than to compute.
        self._fetches = (self.softmax, self.softmax) if classes.is_road else (
            _found_or_built(self.softmax, 'ArgMax', lambda softmax: tf.argmax(softmax, -1, output_type=tf.int32)),
            _found_or_built(self.softmax, 'Sum', tf.reduce_sum))
        self._needed = op_selector.get_backward_walk_ops([self.softmax.op])
        # Any number will do, as dropout keeps all units: fed, they are not drawn, and the training that a seed fixes
        # does not depend on what is segmented in between.
        self._feed = {operation.outputs[0]: np.full([size or 1 for size in operation.outputs[0].shape.as_list()], 0.5)
                      for operation in dropout_of(self._needed)}
        self._feed[keep_prob] = 1.

    def prepare_export(self):
        """Make what saved_model.export() needs, while the graph is not final."""
        needed = set(self._needed)
        with self.sess.graph.as_default():
            self.variables = [variable for variable in tf.global_variables() if variable.op in needed]
            self.saver = make_saver(self.variables)

    def __call__(self, pictures):
        """The predictions of data.classes.Classes: road's probability, float32 [n, height, width], or classes, uint8.

        pictures: uint8 [n, height, width, 3], or the tuple of their features.

        Raises UserError if the probabilities are not finite.
        """
        prediction, finite = self.sess.run(self._fetches, {self.input_image: pictures, **self._feed})
        if not np.isfinite(finite).all():
            raise UserError('the probabilities are nan: try a lower --learning-rate, or a lower --l2')
        prediction = prediction[:, 1] if self.classes.is_road else prediction.astype(np.uint8)
        return prediction.reshape((-1,) + self.image_shape)

    def segment(self, paths):
        """Yield (path, picture uint8 [height, width, 3], its prediction) for each of the pictures."""
        remaining = iter(paths)
        for pictures in kitti.read_batches(paths, self.image_shape):
            for picture, prediction in zip(pictures, self(pictures)):
                yield next(remaining), picture, prediction
