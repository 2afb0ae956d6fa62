"""Whether a GPU can run the graphs: TensorFlow tells which kernels it has, on a machine without a GPU, too."""
from fcn8.tf1 import tf

from tensorflow.python.framework import kernels

import main
from fcn8 import device
from fcn8.results.segmenter import softmax_of
from fcn8.training import few_channel_gradients
from tests.support import Case, build_fcn


def needed_for(op):
    """An op and all that it is computed from."""
    found, waiting = {op}, [op]
    while waiting:
        one = waiting.pop()
        new = {tensor.op for tensor in one.inputs} | set(one.control_inputs)
        waiting += new - found
        found |= new
    return found


def without_gpu_kernel(ops):
    """The types of some ops for which TensorFlow has no GPU kernel."""
    computing = {op.type for op in ops} - {'NoOp', 'Placeholder'}
    devices = {kind: {kernel.device_type for kernel in kernels.get_registered_kernels_for_op(kind).kernel}
               for kind in computing}
    return sorted(kind for kind in computing if not devices[kind] & {'GPU', 'DEFAULT'})


class GpuKernels(Case):
    def test_training_and_inference(self):
        vgg_path = self.write_vgg()
        with tf.Session() as sess:
            _, (logits, train_op, _) = build_fcn(sess, vgg_path)
            self.assertEqual(without_gpu_kernel(needed_for(train_op)), [])
            self.assertEqual(without_gpu_kernel(needed_for(softmax_of(logits).op)), [])

    def test_training_with_loss_scaling(self):
        train_op = main.optimize(tf.Variable(tf.zeros([1, 2, 2, 2])), tf.zeros([1, 2, 2, 2]), 0.1, 2,
                                 loss_scaling=True)[1]
        self.assertEqual(without_gpu_kernel(needed_for(train_op)), [])

    def test_the_decoder_on_features(self):
        features = [tf.placeholder(tf.float32, [None, 8 // scale, 8 // scale, 4]) for scale in (1, 2, 4)]
        with tf.get_default_graph().gradient_override_map(few_channel_gradients.OVERRIDES):
            last_layer = main.layers(*features, 2)
        train_op = main.optimize(last_layer, tf.placeholder(tf.bool, [None, None, None, 2]), 0.1, 2)[1]
        self.assertEqual(without_gpu_kernel(needed_for(train_op)), [])

    def test_a_kernel_that_is_missing_is_found(self):
        resized = tf.raw_ops.ScaleAndTranslate(images=tf.zeros([1, 2, 2, 1]), size=[4, 4], scale=[2., 2.],
                                               translation=[0., 0.])
        self.assertEqual(without_gpu_kernel(needed_for(resized.op)), ['ScaleAndTranslate'])


class ComputeCapability(Case):
    def test_is_read_from_the_description(self):
        text = 'device: 0, name: Tesla V100, pci bus id: 0000:00:04.0, compute capability: 7.0'
        self.assertEqual(device.compute_capability(text), (7, 0))
        self.assertEqual(device.compute_capability('device: 0'), (0, 0))
