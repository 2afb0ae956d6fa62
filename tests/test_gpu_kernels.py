"""What a GPU would run: TensorFlow lists its kernels, and rewrites a graph for a GPU, on a machine without one, too."""
from fcn8.tf1 import tf

import glob
import os
import socket
import unittest
from unittest import mock

from tensorflow.core.protobuf import device_properties_pb2
from tensorflow.python.framework import kernels
from tensorflow.python.grappler import cluster, tf_optimizer

import main
from fcn8 import device, distributed, launcher, lifeline
from fcn8.collectives import Collectives
from fcn8.data.classes import KITTI_ROAD, Classes
from fcn8.results import saved_model
from fcn8.training import few_channel_gradients
from tests.support import FIXTURES, Case, build_fcn

PLACES = '/job:localhost/replica:0/task:0/device:'
CONVOLUTIONS = {'Conv2D', 'Conv2DBackpropFilter', 'Conv2DBackpropInput'}


def virtual_gpu():
    """A grappler cluster of a CPU and a GPU with tensor cores."""
    devices = [device_properties_pb2.NamedDevice(name=f'{PLACES}{kind}:0') for kind in ('GPU', 'CPU')]
    for named, kind in zip(devices, ('GPU', 'CPU')):
        named.properties.type, named.properties.num_cores, named.properties.frequency = kind, 8, 1000
    devices[0].properties.environment.update(architecture='7.0', cuda='12000', cudnn='90000')
    return cluster.Cluster(devices=devices)


def rewritten(ops, precision='float32'):
    """The nodes that compute some ops on a GPU once TensorFlow has rewritten their graph for a precision."""
    meta_graph = tf.MetaGraphDef()
    meta_graph.graph_def.CopyFrom(tf.graph_util.extract_sub_graph(ops[0].graph.as_graph_def(), [op.name for op in ops]))
    for node in meta_graph.graph_def.node:
        node.device = PLACES + ('CPU:0' if node.device.endswith('CPU:0') else 'GPU:0')
    meta_graph.collection_def['train_op'].node_list.value.extend(op.name for op in ops)
    return tf_optimizer.OptimizeGraph(device.session_config(precision), meta_graph, cluster=virtual_gpu()).node


def without_gpu_kernel(nodes):
    """The types of some nodes, whose attributes count, for which TensorFlow has no GPU kernel."""
    def takes(kernel, node):
        return kernel.device_type in ('GPU', 'DEFAULT') and all(
            node.attr[each.name].type in each.allowed_values.list.type for each in kernel.constraint)

    return sorted({node.op for node in nodes if node.op not in ('NoOp', 'Placeholder') and 'CPU' not in node.device
                   and not any(takes(kernel, node)
                               for kernel in kernels.get_registered_kernels_for_op(node.op).kernel)})


def types_of(nodes, *ops):
    """The types in which the nodes of these ops compute."""
    return {tf.as_dtype(node.attr['T'].type).name for node in nodes if node.op in ops}


class GpuKernels(Case):
    def assert_mixed_precision(self, nodes):
        """Everything has a GPU kernel; convolutions are in float16, loss, regularisation and optimiser in float32."""
        self.assertEqual(without_gpu_kernel(nodes), [])
        self.assertEqual(types_of(nodes, *CONVOLUTIONS), {'float16'})
        for op in ('Exp', 'Log', 'Sum', 'L2Loss', 'ApplyAdam'):
            self.assertEqual(types_of(nodes, op), {'float32'}, op)

    def test_the_whole_network(self):
        vgg_path = self.write_vgg()
        with tf.Session() as sess:
            _, (logits, train_op, loss) = build_fcn(sess, vgg_path, loss_scaling=True)
            nodes = rewritten([train_op, loss.op], 'float16')
            self.assert_mixed_precision(nodes)
            self.assertEqual({node.op for node in nodes} & CONVOLUTIONS, CONVOLUTIONS)
            for ops in ([train_op, loss.op], [tf.nn.softmax(logits).op]):
                nodes = rewritten(ops)
                self.assertEqual(without_gpu_kernel(nodes), [])
                # The layout in which cuDNN computes in float32; without a rewrite it would be NHWC.
                self.assertEqual({node.attr['data_format'].s for node in nodes if node.op in CONVOLUTIONS}, {b'NCHW'})
                self.assertEqual(types_of(nodes, *CONVOLUTIONS), {'float32'})

    def test_the_decoder_on_features(self):
        features = [tf.placeholder(tf.float32, [None, 8 // scale, 8 // scale, 4]) for scale in (1, 2, 4)]
        with tf.get_default_graph().gradient_override_map(few_channel_gradients.OVERRIDES):
            last_layer = main.layers(*features, 2)
        _, train_op, loss = main.optimize(last_layer, tf.placeholder(tf.bool, [None, None, None, 2]), 0.1, 2)
        self.assertEqual(without_gpu_kernel(rewritten([train_op, loss.op])), [])
        self.assert_mixed_precision(rewritten([train_op, loss.op], 'float16'))

    def test_an_exported_model_and_the_resizing_of_its_result(self):
        run = glob.glob(os.path.join(FIXTURES, 'TensorFlow-*'))[0]
        for classes in (KITTI_ROAD, Classes([dict(name='a', grey=1, counts=True)])):  # the model has one channel
            with mock.patch.object(saved_model, 'read_classes', return_value=classes), \
                    mock.patch.object(classes, 'output', KITTI_ROAD.output), saved_model.load(run):
                graph = tf.get_default_graph()
                result, graph_def = graph.get_operations()[-1].name, graph.as_graph_def()
            for node in graph_def.node:
                if node.name + ':0' == saved_model.RESIZED:
                    del node.input[:]  # it is fed
            nodes = tf.graph_util.extract_sub_graph(graph_def, [result]).node
            self.assertIn('ResizeBilinear', {node.op for node in nodes})
            self.assertEqual(without_gpu_kernel(nodes), [])

    @unittest.skipIf(tf.__version__.startswith('1.'), 'TensorFlow 1 trains in several processes with Horovod')
    def test_the_whole_network_in_two_processes(self):
        vgg_path = self.write_vgg()
        with socket.create_server(('127.0.0.1', 0)) as free:
            workers = [free.getsockname(), ('127.0.0.1', 1)]
        with mock.patch.multiple(launcher, SIZE=2, WORKERS=workers), \
                mock.patch.multiple(lifeline, wait_for=mock.DEFAULT, watch=mock.DEFAULT), \
                mock.patch.object(Collectives, '_gather'), \
                mock.patch.object(distributed, '_engine', Collectives(None)), distributed.session() as sess:
            _, (_, train_op, loss) = build_fcn(sess, vgg_path, loss_scaling=True)
        nodes = rewritten([train_op, loss.op], 'float16')
        self.assert_mixed_precision(nodes)
        self.assertEqual(types_of(nodes, 'CollectiveReduce'), {'float32'})

    def test_a_kernel_that_is_missing_is_found(self):
        resized = tf.raw_ops.ScaleAndTranslate(images=tf.zeros([1, 2, 2, 1]), size=[4, 4], scale=[2., 2.],
                                               translation=[0., 0.])
        self.assertEqual(without_gpu_kernel([resized.op.node_def]), ['ScaleAndTranslate'])
        self.assertEqual(without_gpu_kernel([tf.constant('text').op.node_def]), ['Const'])


class ComputeCapability(Case):
    def test_is_read_from_the_description(self):
        text = 'device: 0, name: Tesla V100, pci bus id: 0000:00:04.0, compute capability: 7.0'
        self.assertEqual(device.compute_capability(text), (7, 0))
        self.assertEqual(device.compute_capability('device: 0'), (0, 0))
