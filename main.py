#!/usr/bin/env python3
"""Road segmentation on KITTI: FCN-8 on a pre-trained VGG-16, in TensorFlow 1.x.

The network is that of Fully Convolutional Networks for Semantic Segmentation, Shelhamer, Long and Darrell, 2016,
https://arxiv.org/abs/1605.06211. From top to bottom: the network, its training, the run. Everything else is in fcn8/.
"""
from fcn8 import command_line

if __name__ == '__main__':
    OPTIONS = command_line.begin()  # before TensorFlow is loaded, which takes seconds

import dataclasses

from fcn8.tf1 import tf

import helper
from fcn8 import device, distributed
from fcn8.data import vgg16
from fcn8.results.segmenter import Segmenter
from fcn8.settings import PUBLISHED, Settings
from fcn8.training import features, few_channel_gradients, variables
from fcn8.training.callback import Callback
from fcn8.training.run_folder import RunFolder

# Not as published: see ClippedAdam
CLIP_NORM = 0.3  # global norm of the gradients
EPSILON = 1e-5


def load_vgg(sess, vgg_path, image_shape=None):
    """Load the pre-trained VGG-16 with its weights into the session and its graph.

    vgg_path: folder of the SavedModel with the tag `vgg16`.
    image_shape: (height, width) of the pictures in pixels; if given, it is checked that the model takes them.

    Returns (image_input, keep_prob, layer3_out, layer4_out, layer7_out), tensors of the graph: the pictures, float32
    [n, h, w, 3], red green blue, 0 to 255, from which the graph itself subtracts ImageNet's mean; the scalar share of
    units that dropout keeps; and the outputs of pooling 3 [n, h/8, w/8, 256], of pooling 4 [n, h/16, w/16, 512] and of
    fc7 [n, h/32, w/32, 4096], after ReLU and dropout.

    Raises UserError if the folder does not hold that model.
    """
    with vgg16.loading(vgg_path):
        tf.saved_model.loader.load(sess, ['vgg16'], vgg_path)
        tensors = tuple(sess.graph.get_tensor_by_name(name + ':0') for name in (
            'image_input', 'keep_prob', 'layer3_out', 'layer4_out', 'layer7_out'))
    if image_shape:
        vgg16.check(vgg_path, image_shape, tensors)
    return tensors


def layers(vgg_layer3_out, vgg_layer4_out, vgg_layer7_out, num_classes, l2=Settings.l2):
    """Build the decoder of FCN-8 on the outputs of VGG-16.

    vgg_layer3_out, vgg_layer4_out, vgg_layer7_out: float32 [n, h/8, w/8, 256], [n, h/16, w/16, 512] and
    [n, h/32, w/32, 4096], where h and w are multiples of 32.
    l2: weight of half the sum of the squares of the kernels, which joins the regularisation losses of the graph.

    Returns the scores of the classes, float32 [n, h, w, num_classes].
    """
    options = dict(padding='same',
                   kernel_initializer=tf.truncated_normal_initializer(stddev=0.01),
                   kernel_regularizer=lambda kernel: l2 * tf.nn.l2_loss(kernel))

    def score(features):
        return tf.layers.conv2d(features, num_classes, 1, **options)

    def upsample(scores, factor):
        return tf.layers.conv2d_transpose(scores, num_classes, 2 * factor, strides=factor, **options)

    with tf.variable_scope(None, default_name='decoder'):
        scores = score(vgg_layer7_out)
        scores = tf.add(upsample(scores, 2), score(vgg_layer4_out))  # first skip connection
        scores = tf.add(upsample(scores, 2), score(vgg_layer3_out))  # second skip connection
        return upsample(scores, 8)


class ClippedAdam(tf.train.AdamOptimizer):
    """Adam that clips the global norm of the gradients to CLIP_NORM.

    At a constant rate the loss can jump once the gradients have become small: Adam's second moment, with a memory of a
    thousand steps, does not follow the large gradients of a hard batch (on such a lag: Bai et al. 2025,
    https://arxiv.org/abs/2506.04805), and the step becomes many times as long as usual, most of all in the first layer.
    Clipped (Pascanu et al. 2013, https://arxiv.org/abs/1211.5063, section 3.2), the gradient of a hard batch is no
    longer than those of the first epochs, nearly all of which are clipped.

    EPSILON, larger than usual, shortens the steps of weights whose gradients are tiny, such as those of fc6: the first
    ones, which would spoil what VGG-16 has learned, and those of the last epochs (Choi et al. 2019,
    https://arxiv.org/abs/1910.05446). Jumps become less likely, but are not ruled out: docs/results.md.
    """

    # Here the gradients have been averaged over the processes, and divided by the loss scale again: see optimize().
    def apply_gradients(self, grads_and_vars, global_step=None, name=None):
        gradients, trained = zip(*grads_and_vars)
        clipped, _ = tf.clip_by_global_norm(gradients, CLIP_NORM)
        return super().apply_gradients(zip(clipped, trained), global_step, name)


def optimize(nn_last_layer, correct_label, learning_rate, num_classes, loss_scaling=False):
    """Build the loss and the training op.

    nn_last_layer: float32 [n, h, w, num_classes], the decoder's output.
    correct_label: bool or any number type, [n, h, w, num_classes], one-hot; an all-zero pixel is ignored.
    learning_rate: float32 scalar.
    loss_scaling: keeps small gradients from vanishing where they are computed in float16.

    Returns (logits, train_op, cross_entropy_loss): logits float32 [n*h*w, num_classes]; the loss is the mean cross
    entropy in nats over the pixels that are not ignored, without the regularisation that train_op, a step of Adam, also
    minimises.
    """
    logits = tf.reshape(nn_last_layer, [-1, num_classes], name='logits')
    labels = tf.reshape(tf.cast(correct_label, tf.float32), [-1, num_classes])
    # Not tf.nn.softmax_cross_entropy_with_logits: its gradient takes every label for a distribution, and an all-zero
    # label would push the logits of its pixel down without limit. Class by class, since CPUs are slow at sums over
    # rows of two numbers. TensorFlow would turn tf.transpose(labels) into one of bool, at which oneDNN complains.
    by_class, labels_by_class = tf.transpose(logits), tf.stack(tf.unstack(labels, axis=1))
    cross_entropy = tf.reduce_sum(labels_by_class * (tf.reduce_logsumexp(by_class, axis=0) - by_class))
    # Divided by the mean number of pixels of a process: so the mean over the processes is that over all their pixels.
    cross_entropy_loss = cross_entropy / tf.maximum(distributed.mean(tf.reduce_sum(labels)), 1.0)
    optimizer = distributed.average_gradients(ClippedAdam(learning_rate, epsilon=EPSILON))
    if loss_scaling:
        optimizer = tf.train.experimental.MixedPrecisionLossScaleOptimizer(optimizer, device.loss_scale())
    train_op = optimizer.minimize(cross_entropy_loss + tf.losses.get_regularization_loss())
    return logits, train_op, distributed.mean(cross_entropy_loss)


def train_nn(sess, epochs, batch_size, get_batches_fn, train_op, cross_entropy_loss, input_image, correct_label,
             keep_prob, learning_rate, callback=None):
    """Train, and print a line for each epoch.

    get_batches_fn: get_batches_fn(batch_size) gives the (images, labels) of one epoch, or of the rest of it.
    train_op, cross_entropy_loss: what a step runs.
    input_image, correct_label, keep_prob, learning_rate: the placeholders that a step is fed with.
    callback: training.callback.Callback, which knows the epoch to continue with, and what to feed.

    Returns the mean cross entropy of each epoch, a list of floats.

    Raises UserError if the loss is not finite, and if there are no batches.
    """
    callback = callback or Callback(Settings(epochs=epochs))
    for _ in range(callback.next_epoch, epochs + 1):
        callback.on_epoch_begin()
        for images, labels in get_batches_fn(batch_size):
            _, loss = sess.run([train_op, cross_entropy_loss], {
                input_image: images, correct_label: labels, keep_prob: callback.keep_prob,
                learning_rate: callback.learning_rate})
            callback.on_batch_end(loss, len(labels))
        callback.on_epoch_end()
    return [entry['cross_entropy'] for entry in callback.history]


def train_decoder(settings, get_batches_fn, callback):
    """Train the decoder alone: run()'s sequence, on the features of a frozen VGG-16 that get_batches_fn holds.

    Returns {name: value} of the decoder's variables.
    """
    # In a graph of its own: TensorFlow's graph optimiser can rewrite that of VGG-16 so that it needs the picture even
    # though the layers are fed.
    with tf.Graph().as_default() as graph, distributed.session() as sess:
        tf.set_random_seed(settings.seed)
        vgg_layers = tuple(tf.placeholder(tf.float32, (None,) + rows.shape[1:]) for rows in get_batches_fn.features)
        num_classes = len(get_batches_fn.classes)
        with graph.gradient_override_map(few_channel_gradients.OVERRIDES):  # equal, and faster for few classes on CPUs
            nn_last_layer = layers(*vgg_layers, num_classes, settings.l2)
        correct_label = tf.placeholder(tf.bool, [None, None, None, num_classes])
        keep_prob = tf.placeholder(tf.float32)  # without effect: dropout is in the frozen part
        learning_rate = tf.placeholder(tf.float32)
        logits, train_op, cross_entropy_loss = optimize(nn_last_layer, correct_label, learning_rate, num_classes)
        segmenter = Segmenter(sess, logits, keep_prob, vgg_layers, settings.image_shape, get_batches_fn.classes)
        with callback.training(segmenter, {}):
            train_nn(sess, callback.settings.epochs, settings.batch_size, get_batches_fn, train_op, cross_entropy_loss,
                     vgg_layers, correct_label, keep_prob, learning_rate, callback)
        return {variable.op.name: sess.run(variable) for variable in tf.trainable_variables()}


def prepare_decoder(settings, get_batches_fn, run_folder, precision):
    """Train the decoder alone if the settings say so: for all epochs, or for some at the start.

    Returns {name: value} of the decoder's variables, empty if it starts at random, and the Callback for what follows.
    """
    frozen = settings.freeze_encoder
    if not frozen and (run_folder.is_resumed() or not settings.decoder_first):
        return {}, run_folder.callback
    get_batches_fn.features = features.compute(settings, get_batches_fn, precision, load_vgg)
    if frozen:
        decoder = train_decoder(settings, get_batches_fn, run_folder.callback)
        callback = run_folder.callback.for_trained_network()
    else:
        print('Training the decoder first')
        at_first = dataclasses.replace(settings, epochs=settings.decoder_first, decay=False,
                                       learning_rate=Settings.learning_rate)
        decoder = train_decoder(settings, get_batches_fn, Callback(at_first, get_batches_fn))
        print('Training the whole network')
        callback = run_folder.callback
    get_batches_fn.features = None
    return decoder, callback


@distributed.together()
def run(settings=PUBLISHED):
    """Train FCN-8 on KITTI, and paint the road on its test pictures.

    Returns the folder of the run; fcn8/training/run_folder.py says what it holds.
    """
    helper.maybe_download_pretrained_vgg(settings.data_dir)
    helper.maybe_download_kitti_road(settings.data_dir)
    get_batches_fn = helper.gen_batch_function(
        settings.training_folder, settings.image_shape, settings.seed, settings.cache_mb, settings.validation,
        settings.augment, settings.classes)
    num_classes = len(get_batches_fn.classes)
    precision = device.choose_precision(settings.amp, settings.image_shape)
    with RunFolder(settings, get_batches_fn, precision) as run_folder:
        decoder, callback = prepare_decoder(settings, get_batches_fn, run_folder, precision)
        with tf.Graph().as_default(), distributed.session(device.session_config(precision)) as sess:
            tf.set_random_seed(settings.seed)
            input_image, keep_prob, layer3_out, layer4_out, layer7_out = load_vgg(
                sess, settings.vgg_path, settings.image_shape)
            if settings.freeze_encoder:
                variables.freeze()
            nn_last_layer = layers(layer3_out, layer4_out, layer7_out, num_classes, settings.l2)
            correct_label = tf.placeholder(tf.bool, [None, None, None, num_classes], name='correct_label')
            learning_rate = tf.placeholder(tf.float32, name='learning_rate')
            logits, train_op, cross_entropy_loss = optimize(
                nn_last_layer, correct_label, learning_rate, num_classes, loss_scaling=precision == 'float16')
            segmenter = Segmenter(sess, logits, keep_prob, input_image, settings.image_shape, get_batches_fn.classes)
            with callback.training(segmenter, decoder):  # initialises or restores, and ends with the best weights
                # With a frozen encoder no epoch is left: the decoder is trained already.
                train_nn(sess, settings.epochs, settings.batch_size, get_batches_fn, train_op, cross_entropy_loss,
                         input_image, correct_label, keep_prob, learning_rate, callback)
            if distributed.is_chief():
                helper.save_inference_samples(settings.runs_dir, settings.data_dir, sess, settings.image_shape, logits,
                                              keep_prob, input_image, run_folder.report)
                run_folder.save_results(segmenter)
    return callback.folder


if __name__ == '__main__':
    command_line.execute(OPTIONS, run)
