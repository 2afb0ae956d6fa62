#!/usr/bin/env python3
"""Road segmentation on KITTI: FCN-8 on a pre-trained VGG-16, in TensorFlow 1.x.

The network is that of Fully Convolutional Networks for Semantic Segmentation, Shelhamer, Long and Darrell, 2016,
https://arxiv.org/abs/1605.06211. From top to bottom: the network, its training, the run, the command line.
"""
import distributed  # first, before TensorFlow is loaded
from tf1 import tf  # then this, because it says what is needed where a package is missing

import argparse
import glob
import inspect
import os
import platform
import re
import sys
import tempfile
import time

import numpy as np
import PIL
from tqdm import tqdm

import demo
import device
import features
import gradients
import helper
import inference
import metrics
import page
import palettes
import recorder
import safety
import vgg16

VGG_DATA = os.path.join('variables', 'variables.data-00000-of-00001')  # as large as the model that a run leaves

# The published hyper-parameters
IMAGE_SHAPE = (160, 576)  # height, width in pixels: multiples of 32, as five poolings halve them
EPOCHS = 50
BATCH_SIZE = 5
LEARNING_RATE = 9e-4
KEEP_PROB = 0.5
L2 = 1e-3

CLIP_NORM = 0.3  # not published: see ClippedAdam

# The demo: numbers of scenes, and what is set otherwise than published so that two minutes on two cores are enough
DEMO_TRAINING = 60
DEMO_TESTING = 24
DEMO_SETTINGS = dict(epochs=10, batch_size=1)

WARM_UP = 0.25  # share of the training in which the learning rate rises, with --decay

# Time for scoring a picture by that for training on it: one pass forward, and none backward. On features, where the
# network takes next to no time, the histograms count: this has been measured.
VALIDATION_COST, VALIDATION_COST_FROZEN = 1 / 3, 1.6
VALIDATION_SHARE = 0.1  # of the time, at most, is spent on validation
SHOWN = 3  # validation pictures in TensorBoard

# Options that ask for something else than a new training, and the options that each of them may have
MODES = {'resume': {'epochs', 'data_dir', 'classes'}, 'predict': {'model', 'save_masks'}, 'evaluate': {'model'}}

LONG_TRAINING = 600  # seconds from which on a training without a GPU says how long it takes


def load_vgg(sess, vgg_path):
    """Load the pre-trained VGG-16 with its weights into the session and its graph.

    vgg_path: folder of the SavedModel with the tag `vgg16`.

    Returns (image_input, keep_prob, layer3_out, layer4_out, layer7_out), tensors of the graph: the pictures, float32
    [n, h, w, 3], red green blue, 0 to 255; the scalar share of units that dropout keeps; and the outputs of pooling 3
    [n, h/8, w/8, 256], of pooling 4 [n, h/16, w/16, 512] and of the last layer [n, h/32, w/32, 4096].

    Raises safety.UserError where the folder does not hold that model.
    """
    try:
        tf.saved_model.loader.load(sess, ['vgg16'], vgg_path)
        return tuple(sess.graph.get_tensor_by_name(name + ':0')
                     for name in ('image_input', 'keep_prob', 'layer3_out', 'layer4_out', 'layer7_out'))
    except tf.errors.ResourceExhaustedError:
        raise
    except KeyError as error:
        problem = error.args[0].strip('".')
    except (OSError, RuntimeError) as error:
        problem = safety.reason(error)
    except Exception as error:  # what damaged files make TensorFlow raise depends on where the damage is
        if '[' in vgg_path or '\\' in vgg_path:
            raise safety.UserError('{}: TensorFlow cannot restore weights below a folder with [ or \\ in its name. '
                                   'Rename that folder'.format(vgg_path))
        problem = 'it, or its weights in {}, are missing or damaged ({})'.format(
            os.path.join(vgg_path, 'variables'), safety.reason(error))
    raise _not_vgg(vgg_path, problem)


def _not_vgg(vgg_path, problem):
    return safety.UserError('{}: not the VGG-16 model: {}. Move the folder away, and the next start gets a new '
                            'one'.format(vgg_path, problem))


def check_vgg(vgg_path, image_shape, image_input, keep_prob, *vgg_layers):
    """Raise safety.UserError unless the tensors that load_vgg returns are what the decoder and run() need."""
    height, width = image_shape
    expected = [(image_input, [None, height, width, 3]), (keep_prob, [])] + [
        (layer, [None, height // scale, width // scale, None]) for layer, scale in zip(vgg_layers, (8, 16, 32))]
    for tensor, shape in expected:
        if tensor.dtype != tf.float32 or not tensor.shape.is_compatible_with(shape):
            raise _not_vgg(vgg_path, '{} is {} {}, and not float32 {}'.format(
                tensor.op.name, tensor.dtype.name, tensor.shape, shape))
    for layer in vgg_layers:
        if layer.shape.ndims is None or layer.shape.as_list()[-1] is None:
            raise _not_vgg(vgg_path, 'the channels of {} are not known'.format(layer.op.name))


def layers(vgg_layer3_out, vgg_layer4_out, vgg_layer7_out, num_classes, l2=L2):
    """Build the decoder of FCN-8 on the outputs of VGG-16.

    vgg_layer3_out, vgg_layer4_out, vgg_layer7_out: float32 [n, h/8, w/8, 256], [n, h/16, w/16, 512] and
    [n, h/32, w/32, 4096], where h and w are multiples of 32.
    l2: weight of the kernels' L2 norm (half the sum of squares) among the graph's regularisation losses.

    Returns the scores of the classes, float32 [n, h, w, num_classes].
    """
    settings = dict(padding='same',
                    kernel_initializer=tf.truncated_normal_initializer(stddev=0.01),
                    kernel_regularizer=lambda kernel: l2 * tf.nn.l2_loss(kernel))

    def score(features):
        return tf.layers.conv2d(features, num_classes, 1, **settings)

    def upsample(scores, factor):
        return tf.layers.conv2d_transpose(scores, num_classes, 2 * factor, strides=factor, **settings)

    with tf.variable_scope(None, default_name='decoder'):
        scores = score(vgg_layer7_out)
        scores = tf.add(upsample(scores, 2), score(vgg_layer4_out))
        scores = tf.add(upsample(scores, 2), score(vgg_layer3_out))
        return upsample(scores, 8)


class ClippedAdam(tf.train.AdamOptimizer):
    """Adam with the norm of all gradients together clipped to CLIP_NORM.

    At a constant rate Adam breaks out when the gradients have become small: its second moment, with a memory of a
    thousand steps, does not follow the large gradients of a hard batch, and the step becomes many times as long as
    usual, most of all in the first layer (Bai et al. 2025, https://arxiv.org/abs/2506.04805). Clipped, a batch can do
    no more than the usual one of the first epochs. Pascanu et al. 2013, https://arxiv.org/abs/1211.5063, section 3.2.
    """

    # Here, where the gradients have been averaged over the processes and are no longer scaled.
    def apply_gradients(self, grads_and_vars, global_step=None, name=None):
        its_gradients, variables = zip(*grads_and_vars)
        clipped, _ = tf.clip_by_global_norm(its_gradients, CLIP_NORM)
        return super().apply_gradients(zip(clipped, variables), global_step, name)


def optimize(nn_last_layer, correct_label, learning_rate, num_classes, loss_scaling=False, workers=distributed.ALONE):
    """Build the loss and the training op.

    nn_last_layer: float32 [n, h, w, num_classes], the decoder's output.
    correct_label: any number type, [n, h, w, num_classes], one-hot; an all-zero pixel does not count.
    learning_rate: float32 scalar.
    loss_scaling: keeps small gradients from vanishing where they are computed in float16.
    workers: the processes that take this step together, each with its pictures.

    Returns (logits, train_op, cross_entropy_loss): logits float32 [n*h*w, num_classes]; the loss is the mean cross
    entropy in nats over the pixels that count, without the regularisation that train_op, a step of Adam, also
    minimises.
    """
    logits = tf.reshape(nn_last_layer, [-1, num_classes], name='logits')
    labels = tf.reshape(tf.cast(correct_label, tf.float32), [-1, num_classes])
    # Not tf.nn.softmax_cross_entropy_with_logits: its gradient takes every label for a distribution, and an all-zero
    # label would push the logits of its pixel down without limit. Class by class, since CPUs are slow at sums over
    # rows of two numbers.
    by_class, labels_by_class = tf.transpose(logits), tf.transpose(labels)
    cross_entropy = tf.reduce_sum(labels_by_class * (tf.reduce_logsumexp(by_class, axis=0) - by_class))
    # Over the mean number of pixels that count, not its own: so the mean over the processes is that over all pixels.
    cross_entropy_loss = cross_entropy / tf.maximum(workers.mean(tf.reduce_sum(labels)), 1.0)
    loss = cross_entropy_loss + tf.losses.get_regularization_loss()
    optimizer = workers.average_gradients(ClippedAdam(learning_rate))
    if loss_scaling:
        optimizer = tf.train.experimental.MixedPrecisionLossScaleOptimizer(optimizer, 'dynamic')
    return logits, optimizer.minimize(loss), workers.mean(cross_entropy_loss)


def train_nn(sess, epochs, batch_size, get_batches_fn, train_op, cross_entropy_loss, input_image, correct_label,
             keep_prob, learning_rate, keep_prob_value=KEEP_PROB, learning_rate_value=LEARNING_RATE, progress=None,
             validate=None, decay=False):
    """Train, and report each epoch in a line.

    get_batches_fn: get_batches_fn(batch_size) gives the (images, labels) of one epoch.
    train_op, cross_entropy_loss: what a step runs.
    input_image, correct_label, keep_prob, learning_rate: what a step is fed with.
    progress: a recorder.Progress, from which the training goes on: get_batches_fn then gives the rest of its epoch.
    validate: validate(epoch) gives the summary of metrics' scores after an epoch, or None.
    decay: whether the learning rate follows slanted_triangle().

    Returns the mean cross entropy of each epoch, a list of floats.

    Raises safety.UserError where the loss is not finite, and where there are no batches.
    """
    progress = progress or recorder.Progress()

    def rate(epoch):
        if not decay:
            return learning_rate_value
        # Resumed with more processes, there may be fewer pictures than have been trained on.
        done = min(progress.pictures / get_batches_fn.pictures, 1)
        return learning_rate_value * slanted_triangle((epoch - 1 + done) / epochs)

    for epoch in progress.epochs(epochs):
        with tqdm(desc='Epoch {}/{}'.format(epoch, epochs), total=getattr(get_batches_fn, 'pictures', None),
                  initial=progress.pictures, unit='picture', leave=False) as bar:
            for images, labels in get_batches_fn(batch_size):
                _, loss = sess.run([train_op, cross_entropy_loss],
                                   {input_image: images, correct_label: labels,
                                    keep_prob: keep_prob_value, learning_rate: rate(epoch)})
                if not np.isfinite(loss):
                    raise safety.UserError('the loss became {} in epoch {}, picture {}: try a lower --learning-rate '
                                           'than {}, or a lower --l2'.format(
                                               loss, epoch, progress.pictures + 1, learning_rate_value))
                progress.add_step(sess, loss, len(labels))
                bar.set_postfix_str('cross entropy {:.4f}'.format(progress.cross_entropy), refresh=False)
                bar.update(progress.pictures - bar.n)
        if not progress.pictures:
            raise safety.UserError('there are no pictures to train on')
        entry = progress.add_epoch(sess, learning_rate=rate(epoch),
                                   validation=validate(epoch) if validate else None)
        scores = 'validation {}, '.format(metrics.format_headline(entry['validation'])) if 'validation' in entry else ''
        print('Epoch {epoch}/{epochs}: cross entropy {cross_entropy:.4f}, {scores}{pictures_per_second:.1f} '
              'pictures/s, {seconds:.0f} s'.format(epochs=epochs, scores=scores, **entry))
    return [entry['cross_entropy'] for entry in progress.history]


def slanted_triangle(done):
    """The factor on the learning rate when this share of the training is done: up in the first quarter, then down to 0.

    Adam's first steps change each weight as much as it allows, however small the gradient is: at the full rate they
    spoil what VGG-16 has learned. Howard and Ruder 2018, https://arxiv.org/abs/1801.06146, section 3.2.
    """
    return min(done / WARM_UP, (1 - done) / (1 - WARM_UP))


def make_validate(sess, softmax, input_image, keep_prob, get_batches_fn, record, epochs, every, palette):
    """The function for train_nn that scores the network on the validation pictures after every n-th epoch and the last.

    softmax: float32 [n*h*w, classes].
    record: gets some of the overlays.
    """
    paths = get_batches_fn.validation_share
    shown = {paths[index] for index in np.linspace(0, len(paths) - 1, min(SHOWN, len(paths))).astype(int)}
    values = palette.probability(softmax)

    def validate(epoch):
        if epoch % every and epoch != epochs:
            return None
        scores, remaining = palette.scores(), iter(paths)
        with tqdm(desc='Validation', total=len(paths), unit='picture', leave=False) as bar:
            for images, labels in get_batches_fn.validation_batches():
                probabilities = sess.run(values, {input_image: images, keep_prob: 1.0})
                if not np.isfinite(probabilities).all():
                    raise safety.UserError('the probabilities became nan in epoch {}: try a lower --learning-rate, '
                                           'or a lower --l2'.format(epoch))
                probabilities = probabilities.reshape(labels.shape[:-1] + probabilities.shape[1:])
                scores.add(probabilities, labels)
                for probability, path in zip(probabilities, remaining):
                    if path in shown:
                        picture = helper.read_picture(path, probability.shape[:2])
                        record.add_overlay(os.path.basename(path), palette.paint(picture, probability))
                bar.update(len(labels))
        return sum(record.workers.gather(scores), palette.scores()).summary()

    return validate


def validation_interval(get_batches_fn, cost):
    """Every how many epochs the validation pictures are scored, so that it takes a tenth of the time at most.

    cost: the time for scoring a picture by that for training on it.
    """
    share = cost * len(get_batches_fn.validation_pictures) / get_batches_fn.pictures
    return max(1, int(np.ceil(share * (1 / VALIDATION_SHARE - 1))))


def initialize_new_variables(sess, values=()):
    """Initialise the variables of the default graph that have no value yet: what load_vgg loaded stays as it is.

    values: {name: array}, instead of what the initialisers of these variables would give.
    """
    names = set(sess.run(tf.report_uninitialized_variables()))
    new = [variable for variable in tf.global_variables() if variable.op.name.encode() in names]
    sess.run([variable.initializer for variable in new],
             {variable.initial_value: values[variable.op.name] for variable in new if variable.op.name in values})


def skip_dropout(sess, image_shape, pictures):
    """Draw the random numbers of the dropout for so many pictures, so that the next are those of an unbroken run.

    TensorFlow can neither save nor set what an op has drawn; but without a seed it makes no difference anyway.
    """
    uniform = [op for op in sess.graph.get_operations() if op.type == 'RandomUniform' and
               op.outputs[0].shape.ndims == 4 and (op.get_attr('seed') or op.get_attr('seed2'))]
    if not uniform:
        return
    shapes = [[image_shape[0] // 32, image_shape[1] // 32, op.outputs[0].shape.as_list()[-1]] for op in uniform]
    for start in tqdm(range(0, pictures, 16), desc='Skip dropout', leave=False):
        count = min(16, pictures - start)
        sess.run(uniform, {op.inputs[0]: [count] + shape for op, shape in zip(uniform, shapes)})


def fit(sess, input_image, keep_prob_input, nn_last_layer, get_batches_fn, record, epochs, batch_size, learning_rate,
        keep_prob, decay=False, image_shape=IMAGE_SHAPE, palette=palettes.PUBLISHED, decoder=(), epochs_before=0,
        loss_scaling=False, validation_cost=VALIDATION_COST, tell_long=False):
    """Complete the graph of nn_last_layer with all that the training and the pictures after it need, and train.

    record: a recorder.Progress, from whose last checkpoint the training goes on, and which knows who else trains.
    decoder: {name: array}, the first values of the variables that load_vgg has not loaded, where they are not random.
    epochs_before: those that get_batches_fn has given before the first one of this training.
    validation_cost: as in validation_interval().
    tell_long: whether a long training says how long it takes.

    Returns the logits, with the weights after the best epoch.
    """
    correct_label = tf.placeholder(tf.float32, [None, None, None, len(palette)], name='correct_label')
    learning_rate_input = tf.placeholder(tf.float32, name='learning_rate')
    logits, train_op, cross_entropy_loss = optimize(
        nn_last_layer, correct_label, learning_rate_input, len(palette), loss_scaling, record.workers)
    softmax = helper.softmax_of(logits)
    validate = make_validate(
        sess, softmax, input_image, keep_prob_input, get_batches_fn, record, epochs,
        validation_interval(get_batches_fn, validation_cost), palette) if get_batches_fn.validation_pictures else None
    initialize_new_variables(sess, decoder)
    if record.begin(sess, tf.losses.get_regularization_loss()):
        get_batches_fn.skip(epochs_before + len(record.history), record.pictures)
        trained = len(record.history) * get_batches_fn.pictures + record.pictures
        validated = sum('validation' in entry for entry in record.history) * len(get_batches_fn.validation_share)
        skip_dropout(sess, image_shape, trained // record.workers.size + validated)
    sess.graph.finalize()  # an op added in a loop would slow it down more and more: now it raises
    # The first process stops, and the others when it has gone: so the checkpoint has what all have done.
    with safety.stop_between_steps(heeded=record.workers.first) as stop_requested:
        record.stop_requested = stop_requested
        train_nn(sess, epochs, batch_size,
                 tell_duration(get_batches_fn, record, epochs) if tell_long else get_batches_fn, train_op,
                 cross_entropy_loss, input_image, correct_label, keep_prob_input, learning_rate_input, keep_prob,
                 learning_rate, progress=record, validate=validate, decay=decay)
        record.save(sess)
    record.use_best(sess)
    return logits


def open_vgg(sess, data_dir, image_shape):
    """What load_vgg() gives of data_dir/vgg, after a look whether it fits."""
    vgg_path = os.path.join(data_dir, 'vgg')
    vgg = load_vgg(sess, vgg_path)
    check_vgg(vgg_path, image_shape, *vgg)
    return vgg


def compute_features(data_dir, config, precision, mirrored=False, image_shape=IMAGE_SHAPE, workers=distributed.ALONE):
    """The outputs of VGG-16 for each training picture, without dropout; computed unless an earlier run has kept them.

    config, precision: what device.choose_precision() gives.
    mirrored: of the pictures with left and right exchanged.
    workers: the processes that take turns.

    Returns a tuple of arrays, float32 [pictures, ...], of layers 3, 4 and 7.
    """
    pictures = helper.list_pictures(os.path.join(data_dir, 'data_road', 'training'))
    model = sorted(path for path in glob.glob(os.path.join(glob.escape(data_dir), 'vgg', '**'), recursive=True)
                   if os.path.isfile(path))

    def compute():
        with tf.Graph().as_default(), tf.Session(config=config) as sess:
            vgg = open_vgg(sess, data_dir, image_shape)
            print('Computing the features of {} {}pictures, once: the next run finds them'.format(
                len(pictures), 'mirrored ' * mirrored))
            for batch in helper.read_batches(pictures, image_shape, (workers.rank, workers.size)):
                outputs = sess.run(vgg[2:], {vgg[0]: batch[:, :, ::-1] if mirrored else batch, vgg[1]: 1.0})
                for batch_outputs in workers.gather(outputs):
                    yield batch_outputs

    depends_on = [helper.__file__] + model + pictures  # helper.py, because it reads and resizes
    return features.compute_once(data_dir, precision + '-mirrored' * mirrored, depends_on, str(tuple(image_shape)),
                                 len(pictures), compute, workers)


def train_decoder(get_batches_fn, record, l2, seed, palette=palettes.PUBLISHED, **settings):
    """Train the decoder alone, on what the frozen VGG-16 says of the training pictures.

    get_batches_fn: with such features, computed by compute_features().
    The record and the settings are those of fit().

    Returns {name: value} of the decoder's variables.
    """
    # In a graph of its own: in that of VGG-16, TensorFlow's graph optimiser finds ways to ask for the picture although
    # the layers are fed.
    with tf.Graph().as_default() as graph, tf.Session() as sess:
        tf.set_random_seed(seed)
        vgg_layers = tuple(tf.placeholder(tf.float32, (None,) + rows.shape[1:]) for rows in get_batches_fn.features[0])
        with graph.gradient_override_map(gradients.OF_FEW_CHANNELS):
            nn_last_layer = layers(*vgg_layers, num_classes=len(palette), l2=l2)
        keep_prob_input = tf.placeholder(tf.float32)  # train_nn feeds it; dropout is in the frozen part
        fit(sess, vgg_layers, keep_prob_input, nn_last_layer, get_batches_fn, record, palette=palette,
            validation_cost=VALIDATION_COST_FROZEN, **settings)
        return {variable.op.name: sess.run(variable) for variable in tf.trainable_variables()}


def train_first_decoder(get_batches_fn, workers, decoder_first, l2, seed, **settings):
    """train_decoder() for the first epochs of a training of everything, of which nothing is recorded."""
    print('First the decoder alone')
    settings.update(epochs=decoder_first, learning_rate=LEARNING_RATE, decay=False)
    decoder = train_decoder(get_batches_fn, recorder.Progress(workers), l2, seed, **settings)
    print('Now everything')
    return decoder


def put_decoder(sess, nn_last_layer, decoder):
    """Give the decoder in the graph of VGG-16 the values that train_decoder() has returned; returns the logits."""
    logits = tf.reshape(nn_last_layer, [-1, nn_last_layer.shape.as_list()[-1]], name='logits')
    helper.softmax_of(logits)
    initialize_new_variables(sess, decoder)
    sess.graph.finalize()
    return logits


def tell_duration(get_batches_fn, progress, epochs):
    """get_batches_fn, which also says after the first steps how long the training up to `epochs` takes, if long.

    progress: the recorder.Progress of the training.
    """
    starts = []  # of the first three steps

    def get_timed_batches_fn(batch_size):
        for batch in get_batches_fn(batch_size):
            if len(starts) < 3:
                starts.append(time.time())
                if len(starts) == 3:  # the first step also prepares the graph: the second is as long as the others
                    say_duration((starts[2] - starts[1]) * (epochs - len(progress.history)) *
                                 -(-get_batches_fn.pictures // (batch_size * progress.workers.size)))
            yield batch

    get_timed_batches_fn.pictures = get_batches_fn.pictures

    def say_duration(seconds):
        if seconds > LONG_TRAINING:
            tqdm.write('At the speed of its first steps the training takes {:.1f} hours. With --freeze-encoder it '
                       'takes minutes: only the decoder is trained'.format(seconds / 3600))

    return get_timed_batches_fn


def made_with(data_dir, files, precision, palette):
    """What has to be the same for a run to be resumed, and in all its processes: {name: value}.

    files: the paths of the training pictures and their labels.
    """
    with open(os.path.join(data_dir, 'vgg', 'variables', 'variables.index'), 'rb') as file:
        weights = file.read()  # their names, shapes and checksums
    names_and_sizes = ['{} {}'.format(os.path.basename(path), os.path.getsize(path)) for path in files]
    pictures = recorder.fingerprint('\n'.join(names_and_sizes).encode('utf-8', 'replace'))
    return {'TensorFlow': tf.__version__, 'precision': precision, 'palette': palette.description,
            'VGG-16': recorder.fingerprint(weights), 'set of training pictures (by names and bytes)': pictures}


def check_name(folder):
    """Raise safety.UserError where TensorFlow would take the name of a folder for something else."""
    if re.search('[\\[\\\\\\0\ud800-\udfff]', folder):
        raise safety.UserError('{!r}: TensorFlow cannot work below a folder with [ or \\ in its name, or with a name '
                               'that is not UTF-8. Rename it, or name another'.format(folder))


def check_end(testing, runs_dir, image_shape, palette):
    """Look now at what the end of a run needs, rather than after hours of training.

    Returns the (picture, label) paths of the test pictures, none where they have no labels.
    """
    pairs = []
    if os.path.isdir(os.path.join(testing, 'gt_image_2')):
        pairs = helper.gen_batch_function(testing, image_shape, cache_mb=0, palette=palette).pairs
    else:
        helper.check_pictures(helper.list_pictures(testing))
    try:
        os.makedirs(runs_dir, exist_ok=True)
        tempfile.TemporaryFile(dir=runs_dir).close()
    except OSError as error:
        raise safety.UserError('{}: no folder to write to ({}). Make it writable, or name another with '
                               '--runs-dir'.format(runs_dir, error.strerror))
    return pairs


def fetch(data_dir):
    """Have VGG-16 and KITTI in their folders."""
    helper.maybe_download_pretrained_vgg(data_dir)
    helper.maybe_download_kitti_road(data_dir)


def make_record(workers, runs_dir, folder, settings, found, data_dir, gpu):
    """The recorder.Recorder of a run, or in all but the first of its processes a recorder.Progress.

    folder: of the run that is to be resumed.
    found: what made_with() gives.
    """
    if not workers.first:
        return recorder.Progress(workers)
    about = dict(python=platform.python_version(), numpy=np.__version__, Pillow=PIL.__version__, device=gpu or 'CPU',
                 processes=workers.size)
    model_size = os.path.getsize(os.path.join(data_dir, 'vgg', VGG_DATA))
    return recorder.Recorder(runs_dir, settings, found, about, folder, model_size, workers)


def run(data_dir='data', runs_dir='runs', epochs=EPOCHS, batch_size=BATCH_SIZE, learning_rate=LEARNING_RATE,
        keep_prob=KEEP_PROB, l2=L2, seed=0, freeze_encoder=False, amp=False, cache_mb=helper.CACHE_MB,
        validation=0., augment=False, decay=False, decoder_first=0, image_shape=IMAGE_SHAPE, classes=None, resume=None):
    """Train FCN-8 on data_dir/data_road/training and paint the road on data_dir/data_road/testing.

    What is missing of data_dir/vgg and data_dir/data_road is fetched. classes is a file for palettes.read(), if any.
    The seed fixes the order of the pictures and the decoder's first weights. With freeze_encoder VGG-16 stays as it is,
    and only the decoder is trained, in float32. decoder_first is the number of epochs for which that is done, with the
    published learning rate, before everything is trained. amp is for device.choose_precision(), decay for train_nn();
    cache_mb, validation and augment (its `augmented`) are for helper.gen_batch_function(). resume is the folder of a
    run that goes on from its last checkpoint.

    Returns the folder of all that it leaves, a new one in runs_dir: see leave_results() and recorder.py.
    """
    settings = dict(locals(), image_shape=list(image_shape))
    del settings['runs_dir'], settings['resume']
    image_shape, palette = tuple(image_shape), palettes.read(classes) if classes else palettes.PUBLISHED
    training_settings = dict(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, keep_prob=keep_prob,
                             decay=decay, image_shape=image_shape, palette=palette)
    check_name(data_dir)
    check_name(resume or runs_dir)
    training, testing = (os.path.join(data_dir, 'data_road', split) for split in ('training', 'testing'))

    with distributed.join() as workers:
        workers.in_turn(lambda: fetch(data_dir))
        get_batches_fn = helper.gen_batch_function(training, image_shape, seed, cache_mb, validation, augment, palette,
                                                   share=(workers.rank, workers.size))
        test_pairs = check_end(testing, resume or runs_dir, image_shape, palette) if workers.first else []
        config, precision = device.choose_precision(amp, image_shape)
        gpu = device.report_device(precision)
        found = made_with(data_dir, [path for pair in get_batches_fn.pairs for path in pair], precision, palette)
        workers.compare(dict({'--' + name.replace('_', '-'): value for name, value in settings.items()
                              if name not in ('data_dir', 'classes')}, device='GPU' if gpu else 'CPU', **found))
        with make_record(workers, runs_dir, resume, settings, found, data_dir, gpu) as record:
            decoder = {}
            if freeze_encoder or decoder_first and not workers.gather(record.has_checkpoint())[0]:
                get_batches_fn.features = [
                    compute_features(data_dir, config, precision, mirrored, image_shape, workers)
                    for mirrored in ((False, True) if augment else (False,))]
                decoder = train_decoder(get_batches_fn, record, l2, seed, **training_settings) if freeze_encoder else \
                    train_first_decoder(get_batches_fn, workers, decoder_first, l2, seed, **training_settings)
                get_batches_fn.features = None
            with tf.Graph().as_default(), tf.Session(config=config) as sess:
                tf.set_random_seed(seed)
                vgg = open_vgg(sess, data_dir, image_shape)
                input_image, keep_prob_input, nn_last_layer = vgg[0], vgg[1], layers(
                    *vgg[2:], num_classes=len(palette), l2=l2)
                if freeze_encoder:
                    logits = put_decoder(sess, nn_last_layer, decoder)
                else:
                    logits = fit(sess, input_image, keep_prob_input, nn_last_layer, get_batches_fn, record,
                                 decoder=decoder, epochs_before=decoder_first, tell_long=not gpu,
                                 loss_scaling=precision == 'float16', **training_settings)
                if workers.first:
                    leave_results(sess, input_image, keep_prob_input, logits, data_dir,
                                  get_batches_fn.validation_pictures, dict(get_batches_fn.pairs + test_pairs), record,
                                  image_shape, palette)
    return record.folder


def leave_results(sess, input_image, keep_prob, logits, data_dir, validation_pictures, label_of, record, image_shape,
                  palette):
    """Put into the folder of a run what its trained network is good for: model, overlays, and the page with the scores.

    validation_pictures: paths of those to be shown besides the test pictures.
    label_of: {path of a picture: path of its label}; pictures that have one are scored.
    """
    gallery, scores = page.Page(), {}

    def look(path, picture, probability, part='test'):
        section = 'Validation, the worst first' if part == 'validation' else ' '.join(
            ['Test', helper.category(path)])
        score = palette.scores()
        if path in label_of:
            score.add(probability, helper.read_label(label_of[path], image_shape, palette))
            scores[part] = scores.get(part, palette.scores()) + score
        title, value = next(iter(metrics.headline(score.summary()).items()))
        gallery.add(section, os.path.basename(path), picture, palette.paint(picture, probability),
                    palette.draw(probability), None if value is None else (title, value))

    inference.export(sess, input_image, keep_prob, logits, os.path.join(record.folder, 'model'), image_shape, palette)
    for sample in helper.segment(sess, logits, keep_prob, input_image, validation_pictures, image_shape, palette):
        look(*sample, part='validation')
    helper.save_inference_samples(os.path.dirname(record.folder), data_dir, sess, image_shape, logits, keep_prob,
                                  input_image, record.folder, look, palette)
    print('Painted test pictures: {}'.format(record.folder))
    scores = [(part, score.summary()) for part, score in scores.items()]
    if scores:
        print(metrics.format_table(scores))
    record.write_page(gallery, {part: metrics.titled(summary) for part, summary in scores})


def prepare_demo(data_dir, seed, classes=None):
    """Draw road scenes and write a slim VGG-16 with random weights, unless they are there.

    classes: where there is a file of classes, the labels tell those of demo-classes.json apart.

    Returns their folder, which has the layout that run() expects of a data_dir: data_dir/demo, or with the name of what
    is another than usual data_dir/demo-classes-<seed>.
    """
    folder = os.path.join(data_dir, 'demo' + '-classes' * bool(classes) + ('-{}'.format(seed) if seed else ''))
    os.makedirs(folder, exist_ok=True)
    for name, write in (('data_road', lambda path: demo.write_scenes(path, seed, DEMO_TRAINING, DEMO_TESTING,
                                                                     bool(classes))),
                        ('vgg', lambda path: vgg16.write_slim(path, seed))):
        path = os.path.join(folder, name)
        try:
            if not os.path.exists(path):
                write(path)
        except OSError:
            if not os.path.exists(path):  # otherwise another run was faster, and wrote the same
                raise
    return folder


def number(convert, name, accepts):
    """An argparse type: `convert`s the text, and refuses what is not accepted as an `invalid <name> value`."""
    def parse(text):
        value = convert(text)
        if not accepts(value):
            raise ValueError
        return value
    parse.__name__ = name
    return parse


def add_settings(parser):
    """Add the options that are arguments of run()."""
    count = number(int, 'whole number from 1 to 2147483647', lambda value: 0 < value < 2 ** 31)
    float32 = np.finfo(np.float32)
    positive = number(float, 'positive float32 number', lambda value: float32.tiny <= value <= float32.max)
    parser.add_argument('--data-dir', default='data', metavar='DIR', help='folder of vgg and data_road')
    parser.add_argument('--runs-dir', default='runs', metavar='DIR', help='folder in which each run makes its own')
    side = number(int, 'multiple of 32', lambda value: 0 < value < 2 ** 15 and not value % 32)
    parser.add_argument('--image-shape', type=side, nargs=2, default=IMAGE_SHAPE, metavar=('H', 'W'),
                        help='height and width of what the network sees, multiples of 32: pictures are resized to it')
    parser.add_argument('--classes', default=argparse.SUPPRESS, metavar='FILE',
                        help='JSON file with the names and colours of other classes than background and road')
    parser.add_argument('--epochs', type=count, default=EPOCHS, metavar='N', help='times to go through the pictures')
    parser.add_argument('--batch-size', type=count, default=BATCH_SIZE, metavar='N', help='pictures in a training step')
    parser.add_argument('--learning-rate', type=positive, default=LEARNING_RATE, metavar='X', help='of Adam')
    parser.add_argument('--decay', action='store_true', default=argparse.SUPPRESS,
                        help='let the learning rate rise from 0 in the first quarter of the training, and then fall '
                             'to 0')
    parser.add_argument('--keep-prob', type=number(float, 'probability', lambda value: float32.tiny <= value <= 1),
                        default=KEEP_PROB, metavar='X', help='share of units that dropout keeps')
    parser.add_argument('--l2', type=number(float, 'number from 0', lambda value: 0 <= value <= float32.max),
                        default=L2, metavar='X', help="weight of the L2 norm of the decoder's kernels in the loss")
    parser.add_argument('--freeze-encoder', action='store_true', default=argparse.SUPPRESS,
                        help='train the decoder alone, on features of VGG-16 that are computed once and kept in the '
                             'data folder: minutes on a CPU')
    parser.add_argument('--decoder-first', type=number(int, 'whole number from 0', lambda value: 0 <= value < 2 ** 31),
                        default=0, metavar='N', help='train the decoder alone for N epochs, as --freeze-encoder does, '
                                                     'and then everything')
    parser.add_argument('--amp', action='store_true', default=argparse.SUPPRESS,
                        help='mixed precision: float16 on GPUs with tensor cores, bfloat16 on CPUs that have it')
    parser.add_argument('--validation', type=number(float, 'share from 0 to below 1', lambda value: 0 <= value < 1),
                        default=0., metavar='X', help='share of the training pictures, of each category, that is not '
                                                      'trained on but scored; the best epoch is the one that is used')
    parser.add_argument('--augment', action='store_true', default=argparse.SUPPRESS,
                        help='mirror, shift, relight and shade the pictures anew in each epoch; with --freeze-encoder '
                             'they are mirrored')
    parser.add_argument('--cache-mb', type=number(int, 'whole number from 0', lambda value: value >= 0),
                        default=helper.CACHE_MB, metavar='N',
                        help='memory for pictures that have been read; the others are read again in each epoch')
    parser.add_argument('--seed', type=number(int, 'seed from 0 to 4294967295', lambda value: 0 <= value < 2 ** 32),
                        default=0, metavar='N', help="fixes the order of the pictures, the decoder's first weights "
                                                     'and the scenes of the demo')


def make_parser():
    """The command line."""
    parser = argparse.ArgumentParser(description='Train FCN-8 on VGG-16 with KITTI and paint the test pictures.',
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('--demo', action='store_true', default=argparse.SUPPRESS,
                        help='train on scenes drawn on the spot, with a slim VGG-16: needs no data, no network, no '
                             'GPU; sets --epochs {epochs} --batch-size {batch_size} where you do not'.format(
                                 **DEMO_SETTINGS))
    parser.add_argument('--resume', default=argparse.SUPPRESS, metavar='RUN',
                        help='go on with the run of this folder, runs/<time>, where it was stopped, with its own '
                             'settings; --epochs may ask for more, --data-dir and --classes say where its data and '
                             'its classes are now')
    parser.add_argument('--predict', default=argparse.SUPPRESS, metavar='PATH',
                        help='paint the road on a picture, the pictures of a folder or a video, with the model of '
                             '--model')
    parser.add_argument('--evaluate', default=argparse.SUPPRESS, metavar='FOLDER',
                        help="score the model of --model on a folder in KITTI's layout, of image_2 and gt_image_2")
    parser.add_argument('--model', default=argparse.SUPPRESS, metavar='RUN',
                        help='folder of the run, runs/<time>, that trained the model')
    parser.add_argument('--save-masks', action='store_true', default=argparse.SUPPRESS,
                        help='with --predict: write the road white on black, too')
    add_settings(parser)
    parser.add_argument('--debug', action='store_true', default=argparse.SUPPRESS,
                        help='show where in the program an error was found')
    parser.error = lambda message: parser.exit(2, 'error: {}. For the options see --help\n'.format(message))
    return parser


def parse_arguments():
    """The command line as a dict: what was given, and the defaults; with one of MODES only what was given."""
    parser = make_parser()
    arguments = vars(parser.parse_args())
    if 'demo' in arguments:
        parser.set_defaults(**DEMO_SETTINGS)
        arguments = vars(parser.parse_args())
    for mode, others in MODES.items():
        if mode in arguments:
            unset = argparse.Namespace(**dict.fromkeys(arguments))
            given = vars(parser.parse_args(namespace=unset))
            arguments = {name: value for name, value in given.items() if value is not None}
            for name in sorted(set(arguments) - others - {mode, 'debug'}):
                parser.error('--{} takes all settings from the run: leave out --{}'.format(
                    mode, name.replace('_', '-')))
    if distributed.SIZE > 1 and {'predict', 'evaluate'} & set(arguments):
        parser.error('--predict and --evaluate are for one process: start it without horovodrun')
    if 'save_masks' in arguments and 'predict' not in arguments:
        parser.error('--save-masks goes with --predict PATH')
    if arguments.get('decoder_first') and 'freeze_encoder' in arguments:
        parser.error('--freeze-encoder trains nothing but the decoder: leave out --decoder-first')
    if ('model' in arguments) != bool({'predict', 'evaluate'} & set(arguments)):
        parser.error('--model RUN goes with --predict PATH or --evaluate FOLDER, and each of them with it')
    return arguments


def resumed_settings(resume, **given):
    """The settings of the run in the folder `resume`, with `given` ones in their place; all are arguments of run().

    Raises safety.UserError where the folder holds no run, or its settings make no sense.
    """
    def refuse(message):
        raise safety.UserError('{}: {}'.format(os.path.join(resume, 'settings.json'), message))

    settings = recorder.read_settings(resume)['settings']
    expected = set(inspect.signature(run).parameters) - {'runs_dir', 'resume'}
    for name in expected ^ set(settings):
        refuse('"{}" is {}'.format(name, 'missing' if name in expected else 'no setting'))
    options = []
    for name, value in settings.items():
        flag = name in ('freeze_encoder', 'amp', 'augment', 'decay')
        if isinstance(value, bool) != flag:
            refuse('"{}" cannot be {}'.format(name, value))
        option = '--' + name.replace('_', '-')
        if name == 'image_shape':
            options += [option] + str(value).strip('[]').split(', ')
        elif name != 'classes' or value is not None:
            options += [option] * value if flag else ['{}={}'.format(option, value)]
    parser = make_parser()
    parser.error = refuse
    checked = vars(parser.parse_args(options))
    if given.get('epochs', checked['epochs']) < checked['epochs']:
        raise safety.UserError('--epochs {}: the run is one of {} epochs, and may only get more'.format(
            given['epochs'], checked['epochs']))
    checked.update(given, resume=resume)
    return checked


def folder_of_run(path):
    """The folder that a link like runs/latest leads to: the link leads elsewhere as soon as another run begins."""
    path = os.path.normpath(path)
    if os.path.islink(path):
        path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
    check_name(path)
    return path


def what_saves_memory(settings):
    """The options that would lower what the given settings take of the memory, as text."""
    if 'model' in settings:
        return 'smaller pictures, or a device with more memory'
    if 'resume' in settings:
        return 'a new run with a smaller --batch-size'
    return ' or '.join(option for option, can_help in (
        ('a smaller --batch-size', settings.get('batch_size') != 1),
        ('a smaller --image-shape', tuple(settings['image_shape']) != IMAGE_SHAPE), ('--amp', 'amp' not in settings),
        ('--freeze-encoder', 'freeze_encoder' not in settings)) if can_help) or 'a device with more memory'


def main():
    """Do what the command line asks for."""
    settings = parse_arguments()
    if hasattr(sys.stdout, 'reconfigure'):
        # So that the lines of a long run reach a log file as they come, whatever its encoding.
        sys.stdout.reconfigure(line_buffering=True, errors='backslashreplace')
    with safety.errors_in_one_line(what_saves_memory(settings), settings.pop('debug', False)):
        for name in {'model', 'resume'} & set(settings):
            settings[name] = folder_of_run(settings[name])
        if 'predict' in settings:
            return inference.predict(settings['predict'], settings['model'], settings.get('save_masks', False))
        if 'evaluate' in settings:
            return inference.evaluate(settings['evaluate'], settings['model'])
        if 'resume' in settings:
            settings = resumed_settings(**settings)
        elif settings.pop('demo', False):
            settings['data_dir'] = prepare_demo(settings['data_dir'], settings['seed'], settings.get('classes'))
        run(**settings)


if __name__ == '__main__':
    main()
