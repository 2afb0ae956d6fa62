"""The values of the graph's variables, and the state of its dropout."""
from fcn8 import progress
from fcn8.results.segmenter import dropout_of
from fcn8.tf1 import tf


def initialize(sess, values):
    """Initialise the variables of the default graph that have no value yet: loaded weights stay as they are.

    values: {name: array}, used instead of the initialisers of these variables.

    Raises ValueError if there is no new variable with one of these names.
    """
    names = set(sess.run(tf.report_uninitialized_variables()))
    new = [variable for variable in tf.global_variables() if variable.op.name.encode() in names]
    unknown = set(values) - {variable.op.name for variable in new}
    if unknown:
        raise ValueError(f'no variables with the names {sorted(unknown)}')
    sess.run([variable.initializer for variable in new],
             {variable.initial_value: values[variable.op.name] for variable in new if variable.op.name in values})


def freeze():
    """Keep the variables that the default graph has so far out of the training."""
    tf.get_default_graph().clear_collection(tf.GraphKeys.TRAINABLE_VARIABLES)


def fast_forward_dropout(sess, image_shape, pictures):
    """Draw the random numbers of the dropout for a number of pictures, so that the next are those of an unbroken run.

    TensorFlow can neither save nor restore how many numbers an op has drawn. Without a seed it makes no difference.
    """
    random = [op for op in dropout_of(sess.graph.get_operations()) if op.get_attr('seed') or op.get_attr('seed2')]
    if not random:
        return
    shapes = [[image_shape[0] // 32, image_shape[1] // 32, op.outputs[0].shape.as_list()[-1]] for op in random]
    for start in progress.bar(range(0, pictures, 16), desc='Restore dropout', leave=False):
        count = min(16, pictures - start)
        sess.run(random, {op.inputs[0]: [count] + shape for op, shape in zip(random, shapes)})
