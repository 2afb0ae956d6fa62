#!/usr/bin/env python3
"""Measures main.py and helper.py beside the starter project's way of doing the same work, and prints tables.

Both sides take turns in one process, several rounds; the tables show medians. Peak memory is that of a process of its
own for each side.
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))
from fcn8.tf1 import tf

import argparse
import collections
import concurrent.futures
import contextlib
import itertools
import multiprocessing
import platform
import tempfile
import time

import numpy as np
from tqdm import tqdm

import helper
import layer_sizes
import main
import starter
from fcn8 import device, errors
from fcn8.data import demo, kitti
from fcn8.data.classes import KITTI_ROAD
from fcn8.files import stem
from fcn8.settings import COUNT, Settings
from fcn8.training import features, variables
from fcn8.training.callback import Callback

IMAGE_SHAPE = Settings.image_shape
NUM_CLASSES = len(KITTI_ROAD)
SIDES = ('starter', 'ours')
GPU_STEP = 0.1  # seconds: a step of 5 pictures on a GPU, for which the consumer below sleeps
FAST_GPU_STEP = 0.02  # seconds: the same on a data centre's GPU
PAINTED = 32  # pictures in a round of inference
MATRIX = 4096  # rows and columns of the matrices of which a product shows what the machine can do
PICTURES = (50, 100, 194)  # numbers of pictures by which the growth is shown
BATCH_SIZES = (1, 2, 5, 10)

# What is measured: folders of the SavedModel and of data_road, training pictures to take (None: all), in a step
Job = collections.namedtuple('Job', 'vgg data pictures batch_size amp')


# The two sides of each piece of work: context managers that give a function, which works for a round and returns
# seconds for a picture


@contextlib.contextmanager
def batches_first_epoch(job, side):
    """From the folder to the end of the first epoch: our checks of the data are part of it."""
    def work():
        start = time.time()
        count = sum(len(images) for images, _ in make_batches(job, side)(job.batch_size))
        return (time.time() - start) / count
    yield work


@contextlib.contextmanager
def batches_later_epochs(job, side):
    get_batches_fn = make_batches(job, side)
    for _ in get_batches_fn(job.batch_size):
        pass

    def work():
        start = time.time()
        count = sum(len(images) for images, _ in get_batches_fn(job.batch_size))
        return (time.time() - start) / count
    yield work


def make_batches(job, side, **settings):
    gen_batch_function = starter.gen_batch_function if side == 'starter' else helper.gen_batch_function
    with quietly():
        return gen_batch_function(os.path.join(job.data, 'training'), IMAGE_SHAPE, **settings)


@contextlib.contextmanager
def inference(job, side):
    with network(job) as (sess, image_input, keep_prob, nn_last_layer), tempfile.TemporaryDirectory() as folder:
        logits = tf.reshape(nn_last_layer, [-1, NUM_CLASSES])
        variables.initialize(sess, {})
        testing = link_pictures(os.path.join(job.data, 'testing'), PAINTED, os.path.join(folder, 'data_road/testing'))
        paths = kitti.list_pictures(testing)
        sess.run(tf.nn.softmax(logits), {image_input: next(kitti.read_batches(paths, IMAGE_SHAPE)),
                                         keep_prob: 1.0})  # the first pass prepares the graph

        def work():
            work.output = tempfile.mkdtemp(dir=folder)
            start = time.time()
            with sess.graph.as_default(), quietly():
                if side == 'starter':
                    starter.save_inference_samples(
                        work.output, sess, IMAGE_SHAPE, logits, keep_prob, image_input, paths)
                else:
                    work.output = helper.save_inference_samples(
                        work.output, folder, sess, IMAGE_SHAPE, logits, keep_prob, image_input)
            return (time.time() - start) / len(paths)
        work.pictures = [starter.imresize(starter.imread(path), IMAGE_SHAPE) for path in paths]
        yield work


@contextlib.contextmanager
def fine_tuning_step(job, side, decoder_only=False):
    with network(job) as (sess, image_input, keep_prob, nn_last_layer):
        labels = tf.placeholder(tf.float32 if side == 'starter' else tf.bool, [None, None, None, NUM_CLASSES])
        rate = tf.placeholder(tf.float32)
        if side == 'starter':
            decoder = [variable for variable in tf.trainable_variables() if variable.op.name.startswith('decoder')]
            ops = starter.optimize(nn_last_layer, labels, rate, NUM_CLASSES, decoder if decoder_only else None)
        else:
            ops = main.optimize(nn_last_layer, labels, rate, NUM_CLASSES)
        variables.initialize(sess, {})
        batches = itertools.cycle(list(itertools.islice(make_batches(job, 'ours')(job.batch_size), 2)))

        def work():
            images, one_hot = next(batches)
            start = time.time()
            sess.run(ops[1:], {image_input: images, labels: one_hot, keep_prob: Settings.keep_prob,
                               rate: Settings.learning_rate})
            return (time.time() - start) / len(images)
        work()  # the first step prepares the graph
        yield work


@contextlib.contextmanager
def decoder_step(job, side):
    """The starter's way runs the encoder in every step; ours trains on features that were computed once."""
    if side == 'starter':
        with fine_tuning_step(job, side, decoder_only=True) as work:
            yield work
        return
    with tempfile.TemporaryDirectory() as folder:
        _, get_batches_fn = make_features(job, folder)

        def work():
            return train_decoder(job, get_batches_fn, epochs=3)
        yield work


def make_features(job, folder):
    """The batches of the training pictures' features, kept in `folder`: (seconds for a picture, data.kitti.Batches)."""
    os.symlink(os.path.abspath(job.vgg), os.path.join(folder, 'vgg'))
    link_pictures(os.path.join(job.data, 'training'), job.pictures, os.path.join(folder, 'data_road/training'))
    get_batches_fn = make_batches(job._replace(data=os.path.join(folder, 'data_road')), 'ours')
    with quietly():
        precision = device.choose_precision(job.amp, IMAGE_SHAPE)
        start = time.time()
        get_batches_fn.features = features.compute(
            Settings(data_dir=folder, image_shape=IMAGE_SHAPE), get_batches_fn, precision, main.load_vgg)
        return (time.time() - start) / get_batches_fn.pictures, get_batches_fn


def train_decoder(job, get_batches_fn, epochs):
    """Seconds for a picture in the epochs after the first, which also prepares the graph."""
    settings = Settings(epochs=epochs, batch_size=job.batch_size, image_shape=IMAGE_SHAPE)
    callback = Callback(settings, get_batches_fn)
    with quietly():
        main.train_decoder(settings, get_batches_fn, callback)
    return np.median([entry['seconds'] for entry in callback.history[1:]]) / get_batches_fn.pictures


@contextlib.contextmanager
def network(job):
    """Gives (session, image_input, keep_prob, the decoder's output)."""
    with quietly():
        config = device.session_config(device.choose_precision(job.amp, IMAGE_SHAPE))
    with tf.Graph().as_default(), tf.Session(config=config) as sess:
        tf.set_random_seed(0)
        vgg = main.load_vgg(sess, job.vgg)
        yield sess, vgg[0], vgg[1], main.layers(*vgg[2:], num_classes=NUM_CLASSES)


def link_pictures(source, count, target):
    """A folder in KITTI's layout with links to the first `count` pictures of another one, and to their labels."""
    for path in kitti.list_pictures(source)[:count]:
        name = os.path.basename(path)
        label = '_road_'.join(stem(path).rsplit('_', 1)) + '.png'
        for part, linked in (('image_2', name), ('gt_image_2', label)):
            os.makedirs(os.path.join(target, part), exist_ok=True)
            if os.path.exists(os.path.join(source, part, linked)):
                os.symlink(os.path.abspath(os.path.join(source, part, linked)), os.path.join(target, part, linked))
    return target


@contextlib.contextmanager
def quietly():
    with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


# Measuring


def compare(works, rounds):
    """Takes turns: works are {name: context manager that gives a function}; returns {name: median of its results}."""
    seconds = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            seconds[name].append(work())
    return {name: np.median(values) for name, values in seconds.items()}


def different_pixels(work, other):
    """(pixels that differ between the overlays of both sides, share of the pixels that are painted)."""
    names = sorted(os.listdir(work.output))
    assert names == sorted(os.listdir(other.output)) and names
    overlays, others = [np.array([starter.imread(os.path.join(side.output, name)) for name in names])
                        for side in (work, other)]
    return (np.count_nonzero((overlays != others).any(axis=-1)),
            (overlays != np.array(work.pictures)).any(axis=-1).mean())


def waiting(get_batches_fn, batch_size):
    """The share of the time of an epoch for which a consumer like a GPU waits for its batches."""
    start, waited = time.time(), 0.
    batches = iter(get_batches_fn(batch_size))
    while True:
        asked = time.time()
        batch = next(batches, None)
        waited += time.time() - asked
        if batch is None:
            return waited / (time.time() - start)
        time.sleep(GPU_STEP)


def host_time(job):
    """Seconds for a step of train_nn() without its network: batch, conversion and feed, with the pictures in memory."""
    get_batches_fn = make_batches(job, 'ours')
    callback = Callback(Settings(epochs=6, batch_size=job.batch_size), get_batches_fn)
    with tf.Graph().as_default(), tf.Session() as sess, quietly():
        feeds = [tf.placeholder(tf.float32, [None, None, None, 3]),
                 tf.placeholder(tf.bool, [None, None, None, NUM_CLASSES]), tf.placeholder(tf.float32),
                 tf.placeholder(tf.float32)]
        main.train_nn(sess, callback.settings.epochs, job.batch_size, get_batches_fn, tf.group(*map(tf.shape, feeds)),
                      tf.constant(0.), *feeds, callback=callback)
    steps = -(-get_batches_fn.pictures // job.batch_size)
    return min(entry['seconds'] for entry in callback.history) / steps


def in_a_process(function, *args):
    """Runs function(*args) in a new process; returns (what it returns, peak memory of the process in MB)."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
        return pool.submit(with_peak_memory, function, *args).result()


def with_peak_memory(function, *args):
    result = function(*args)
    try:
        # Not getrusage(), whose maximum a process inherits from the one that started it.
        with open('/proc/self/status') as file:
            kibibytes = next(int(line.split()[1]) for line in file if line.startswith('VmHWM'))
    except OSError:  # no Linux
        return result, float('nan')
    return result, kibibytes * 1024 / 1e6


def one_round(sides, job, side):
    with sides(job, side) as work:
        return work()


def frozen_run(job):
    """(seconds for a picture to compute the features, to train an epoch on them)."""
    with tempfile.TemporaryDirectory() as folder:
        seconds, get_batches_fn = make_features(job, folder)
        return seconds, train_decoder(job, get_batches_fn, epochs=3)


def forward_pass(job, rounds):
    """(floating-point operations of the network for a picture, seconds for a picture in batches, layer by layer)."""
    with network(job) as (sess, image_input, keep_prob, nn_last_layer):
        variables.initialize(sess, {})
        pictures = next(make_batches(job, 'ours')(kitti.INFERENCE_BATCH))[0]
        operations = sum(layer.operations for layer in layer_sizes.measure(
            sess, {image_input: pictures[:1], keep_prob: 1.0}))
        seconds = []
        for _ in range(rounds + 1):
            start = time.time()
            sess.run(nn_last_layer.op, {image_input: pictures, keep_prob: 1.0})
            seconds.append((time.time() - start) / len(pictures))
    return operations, np.median(seconds[1:])


def matrix_product_rate(rounds):
    """Floating-point operations a second of a float32 matrix product, the best of the rounds."""
    with tf.Graph().as_default(), tf.Session() as sess:
        matrix = tf.Variable(tf.random_uniform([MATRIX, MATRIX]))
        product = tf.matmul(matrix, matrix).op
        sess.run(matrix.initializer)
        seconds = []
        for _ in range(rounds + 1):
            start = time.time()
            sess.run(product)
            seconds.append(time.time() - start)
    return 2 * MATRIX ** 3 / min(seconds)


# Printing


def print_row(*cells):
    tqdm.write('| ' + ' | '.join(map(str, cells)) + ' |')


def print_machine():
    cpu = next((line.split(':', 1)[1].strip() for line in device.cpu_info().splitlines()
                if line.startswith('model name')), platform.processor() or platform.machine())
    gpus = [gpu.name for gpu in tf.config.experimental.list_physical_devices('GPU')]
    print('TensorFlow {}, Python {}, {}, {} cores, {}'.format(
        tf.__version__, platform.python_version(), cpu, os.cpu_count(), ', '.join(gpus) or 'no GPU'))


def milliseconds(seconds):
    return f'{1000 * seconds:.0f}' if seconds > 0.1 else f'{1000 * seconds:.3g}'


def print_comparison(job, rounds):
    print('\nmilliseconds for a picture, and peak memory in MB:\n')
    print_row('', "starter's", 'ours', 'times faster', "starter's memory", 'our memory')
    print_row(*['---'] * 6)
    medians = {}
    for name, sides in (('batches, first epoch', batches_first_epoch), ('batches, later epochs', batches_later_epochs),
                        ('inference, from file to file', inference), ('fine-tuning step', fine_tuning_step),
                        ('decoder step, VGG-16 frozen', decoder_step)):
        with contextlib.ExitStack() as stack:
            works = {side: stack.enter_context(sides(job, side)) for side in SIDES}
            medians[name] = compare(works, rounds)
            if sides == inference:
                different, painted = different_pixels(works['ours'], works['starter'])
        memory = [in_a_process(one_round, sides, job, side)[1] for side in SIDES]
        print_row(name, *[milliseconds(medians[name][side]) for side in SIDES] + [
            '{:.2f}'.format(medians[name]['starter'] / medians[name]['ours'])] + [
                f'{peak:.0f}' for peak in memory])
    print(f'\nThe first epoch is from the folder to the last batch. Of the pixels of the overlays {different} differ '
          f'between the sides, and {100 * painted:.0f} % are painted. Our decoder step is on features that are there.')


def print_frozen_run(job, count, computing, epoch):
    """What a whole training with the encoder frozen takes on either side, from seconds for a picture of each part."""
    with decoder_step(job, 'starter') as work:
        step = work()
    starters, later = (count * Settings.epochs * seconds / 60 for seconds in (step, epoch))
    print(f'\nTraining the decoder on {count} pictures for {Settings.epochs} epochs, computed from a picture of each: '
          f"{starters:.1f} minutes the starter's way, ours {count * computing / 60 + later:.1f} with the features, "
          f'{later:.1f} where they are there.')


def print_amp(job, rounds):
    precision = device.choose_precision(True, IMAGE_SHAPE)
    if precision == 'float32':
        return
    with contextlib.ExitStack() as stack:
        medians = compare({amp: stack.enter_context(fine_tuning_step(job._replace(amp=amp), 'ours'))
                           for amp in (False, True)}, rounds)
    print(f'\n--amp: a fine-tuning step in {precision} takes {milliseconds(medians[True])} ms for a picture, in '
          f'float32 {milliseconds(medians[False])} ms, {medians[False] / medians[True]:.2f} times as long.')


def print_waiting(job):
    print(f'\nshare of the time that a consumer with steps of {1000 * GPU_STEP:.0f} ms waits for batches:\n')
    print_row("starter's", 'ours, pictures in memory', 'ours, pictures read again (--cache-mb 0)')
    print_row(*['---'] * 3)
    print_row(*[f'{100 * waiting(get_batches_fn, job.batch_size):.1f} %' for get_batches_fn in (
        make_batches(job, 'starter'), make_batches(job, 'ours'), make_batches(job, 'ours', cache_mb=0))])


def print_host_time(job):
    seconds = host_time(job)
    print(f'\nBatch, conversion and feed of {job.batch_size} pictures in memory take {milliseconds(seconds)} ms of the '
          f'main thread: a GPU with steps of {1000 * FAST_GPU_STEP:.0f} ms waits '
          f'{100 * seconds / (seconds + FAST_GPU_STEP):.1f} % of the time.')


def print_limit(job, rounds):
    operations, seconds = forward_pass(job, rounds)
    rate = matrix_product_rate(rounds)
    print(f'\nThe forward pass takes {operations / 1e9:.1f} GFLOP and {1000 * seconds:.0f} ms for a picture: '
          f'{operations / seconds / 1e9:.0f} GFLOP/s, {100 * operations / seconds / rate:.0f} % of the '
          f'{rate / 1e9:.0f} GFLOP/s of a float32 matrix product.')


def print_growth(job):
    available = len(kitti.list_pictures(os.path.join(job.data, 'training')))
    print('\n--freeze-encoder, by the number of pictures: milliseconds for a picture, and peak memory in MB, which '
          'includes what is mapped of the features:\n')
    print_row('pictures', 'features', 'an epoch on them', 'memory')
    print_row(*['---'] * 4)
    for count in sorted({min(count, available) for count in PICTURES}):
        (computing, epoch), peak = in_a_process(frozen_run, job._replace(pictures=count))
        print_row(count, milliseconds(computing), milliseconds(epoch), f'{peak:.0f}')
    print_frozen_run(job, count, computing, epoch)
    print('\na fine-tuning step, by the batch size: milliseconds for a picture, and peak memory in MB:\n')
    print_row('batch', 'a picture', 'memory')
    print_row(*['---'] * 3)
    for batch_size in BATCH_SIZES:
        seconds, peak = in_a_process(one_round, fine_tuning_step, job._replace(batch_size=batch_size), 'ours')
        print_row(batch_size, milliseconds(seconds), f'{peak:.0f}')


def bench():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--vgg', metavar='DIR', help='SavedModel to run (default: the slim one of the demo)')
    parser.add_argument('--data', metavar='DIR', help='data_road to read (default: the scenes of the demo)')
    parser.add_argument('--rounds', type=COUNT.parse, default=5,
                        metavar='N', help='rounds of which the median is shown')
    arguments = parser.parse_args()
    folders = arguments.vgg, arguments.data
    if not all(folders):
        os.makedirs('data', exist_ok=True)
        prepared = demo.prepare(Settings())
        folders = [given or os.path.join(prepared, name) for given, name in zip(folders, ('vgg', 'data_road'))]
    job = Job(*folders, pictures=None, batch_size=Settings.batch_size, amp=False)
    # What is wrong with them is better said before the tables than between them.
    kitti.list_pictures(os.path.join(job.data, 'testing'))
    make_batches(job, 'ours')
    with network(job):
        print_machine()
    print_comparison(job, arguments.rounds)
    print_waiting(job)
    print_host_time(job)
    print_limit(job, arguments.rounds)
    print_amp(job, arguments.rounds)
    print_growth(job)


if __name__ == '__main__':
    with errors.in_one_line('a device with more memory'):
        bench()
