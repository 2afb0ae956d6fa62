"""A network in a session, as a function from pictures to probabilities."""
import numpy as np

from fcn8.data import kitti
from fcn8.errors import UserError
from fcn8.tf1 import tf


def softmax_of(logits):
    """The softmax of logits (float32 [n, classes]), built by the first call and found by later ones.

    So inference adds nothing to a graph that is final.
    """
    for operation in logits.consumers():
        if operation.type == 'Softmax':
            return operation.outputs[0]
    return tf.nn.softmax(logits)


class Segmenter:
    """Classifies every pixel of a picture: called with pictures, it returns their probabilities.

    logits: float32 [n*h*w, classes], computed from input_image and keep_prob.
    keep_prob: scalar placeholder.
    input_image: placeholder of the pictures, float32 [n, h, w, 3], or the tuple of placeholders of their features.
    image_shape: (height, width) in pixels.
    classes: data.classes.Classes.
    """

    def __init__(self, sess, logits, keep_prob, input_image, image_shape, classes):
        self.sess, self.keep_prob, self.input_image = sess, keep_prob, input_image
        self.image_shape, self.classes = tuple(image_shape), classes
        self.softmax = softmax_of(logits)

    def __call__(self, pictures):
        """The probabilities that classes.select() gives, float32 [n, height, width] or [n, height, width, classes].

        pictures: uint8 [n, height, width, 3], or the tuple of their features.

        Raises UserError if they are not finite.
        """
        softmax = self.sess.run(self.softmax, {self.input_image: pictures, self.keep_prob: 1.0})
        if not np.isfinite(softmax).all():
            raise UserError('the probabilities are nan: try a lower --learning-rate, or a lower --l2')
        probability = self.classes.select(softmax)
        return probability.reshape((-1,) + self.image_shape + probability.shape[1:])

    def segment(self, paths):
        """Yield (path, picture uint8 [height, width, 3], its probability) for each of the pictures."""
        remaining = iter(paths)
        for pictures in kitti.read_batches(paths, self.image_shape):
            for picture, probability in zip(pictures, self(pictures)):
                yield next(remaining), picture, probability
