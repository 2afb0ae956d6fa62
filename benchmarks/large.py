#!/usr/bin/env python3
"""How start, time and memory of a training grow with the number of pictures: links to a few hundred large ones.

Each row is a whole run with the demo's slim VGG-16, in a process of its own: the times are those of reading.
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))

import argparse
import json
import tempfile
import time
from unittest import mock

import numpy as np
from tqdm import tqdm

import bench  # before TensorFlow is loaded, as it prepares that
import main
from fcn8.data import scenes, vgg16
from fcn8.files import scratch_folder
from fcn8.settings import COUNT, Settings
from fcn8.training.callback import Callback

SIZE = (1024, 2048)  # height, width in pixels of a picture
DIFFERENT = 200  # pictures; the others are links to them
IMAGE_SHAPE = (256, 512)
TESTING = 2


def draw(folder):
    """Draw the pictures that the others are links to, unless they are there."""
    training = os.path.join(folder, 'training')
    if os.path.exists(training):
        return
    with scratch_folder(folder) as scratch, mock.patch.object(scenes, 'SIZES', (SIZE,)):
        for part in ('image_2', 'gt_image_2'):
            os.makedirs(os.path.join(scratch, 'training', part))
        for number in tqdm(range(DIFFERENT), desc='Draw scenes', unit='scene', leave=False):
            scenes.write_scene(os.path.join(scratch, 'training'), 'uu', number, np.random.RandomState(number), False)
        os.rename(os.path.join(scratch, 'training'), training)


def link(source, target, count):
    """A folder in KITTI's layout with `count` links to the pictures of another one, and to their labels."""
    for part, name in (('image_2', 'uu_{:06d}.png'), ('gt_image_2', 'uu_road_{:06d}.png')):
        os.makedirs(os.path.join(target, part))
        for number in range(count):
            os.symlink(os.path.join(source, part, name.format(number % DIFFERENT)),
                       os.path.join(target, part, name.format(number)))


def train(data_dir, start, batch_size):
    """(seconds from `start` to the end of the first step, of the epoch)."""
    first, on_batch_end = [], Callback.on_batch_end

    def note_the_time(*args):
        first.append(time.time() - start)
        on_batch_end(*args)

    with mock.patch.object(Callback, 'on_batch_end', note_the_time), bench.quietly():
        folder = main.run(Settings(data_dir=data_dir, runs_dir=os.path.join(data_dir, 'runs'), epochs=1,
                                   image_shape=IMAGE_SHAPE, batch_size=batch_size))
    with open(os.path.join(folder, 'history.jsonl')) as file:
        return first[0], json.loads(file.readline())['seconds']


def measure():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', help='where the pictures are kept that the others are links to: 1 GB')
    parser.add_argument('--pictures', type=COUNT.parse, nargs='+', default=[2500, 5000, 10000, 20000], metavar='N')
    parser.add_argument('--vgg', metavar='DIR', help='SavedModel to train (default: the slim one of the demo)')
    parser.add_argument('--batch-size', type=COUNT.parse, default=Settings.batch_size, metavar='N')
    arguments = parser.parse_args()
    source = os.path.join(os.path.abspath(arguments.folder), 'training')
    os.makedirs(arguments.folder, exist_ok=True)
    draw(os.path.abspath(arguments.folder))
    print('| pictures | first step after, s | epoch, s | ms for a picture | peak memory, MB |\n' + '| --- ' * 5 + '|')
    for count in arguments.pictures:
        with tempfile.TemporaryDirectory() as data_dir:
            link(source, os.path.join(data_dir, 'data_road', 'training'), count)
            link(source, os.path.join(data_dir, 'data_road', 'testing'), TESTING)
            if arguments.vgg:
                os.symlink(os.path.abspath(arguments.vgg), os.path.join(data_dir, 'vgg'))
            else:
                vgg16.write_slim(os.path.join(data_dir, 'vgg'), seed=0)
            (first, epoch), memory = bench.in_a_process(train, data_dir, time.time(), arguments.batch_size)
            print(f'| {count} | {first:.1f} | {epoch:.0f} | {epoch / count * 1e3:.1f} | {memory:.0f} |',
                  flush=True)


if __name__ == '__main__':
    measure()
