#!/usr/bin/env python3
"""Feeds thousands of damaged files to the program's readers: each has to be read, or to end in a clear error.

Prints for each kind of file how often which came out. Exit status 1 where anything else happened.
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))
from fcn8.tf1 import tf

import argparse
import collections
import contextlib
import dataclasses
import io
import json
import random
import shutil
import struct
import tempfile
import traceback
import zipfile
import zlib
from unittest import mock

import numpy as np
from PIL import Image
from tqdm import tqdm

import helper
import main
from fcn8 import files
from fcn8.data import classes
from fcn8.errors import UserError
from fcn8.results.segmenter import Segmenter
from fcn8.settings import Settings, resumed
from fcn8.training import checkpoints
from fcn8.training.run_folder import RunFolder

SHAPE = (32, 64)
EPOCHS = 2


def damage(content, chance):
    """The bytes with some flipped, replaced, left out, put in twice, or cut off."""
    content = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        start = chance.randrange(len(content) + 1)
        end = min(start + chance.choice((1, 2, 4, 64)), len(content))
        kind = chance.choice(('flip', 'flip', 'random', 'digit', 'out', 'twice', 'cut'))
        if kind == 'flip' and start < len(content):
            content[start] ^= 1 << chance.randrange(8)
        elif kind == 'random':
            content[start:end] = bytes(chance.randrange(256) for _ in range(start, end))
        elif kind == 'digit':
            content[start:end] = chance.choice((b'0', b'-9', b'1e999', b'null', b'"', b'{', b'\x00', b'\xff' * 4))
        elif kind == 'out':
            del content[start:end]
        elif kind == 'twice':
            content[start:start] = content[start:end]
        elif kind == 'cut':
            del content[start:]
    return bytes(content)


def damage_png(content, chance):
    """Damage in a chunk of a PNG, half of the times under a checksum that is right again."""
    if chance.random() < 0.5:
        return damage(content, chance)
    start, chunks = 8, []
    while start < len(content):
        length, = struct.unpack('>I', content[start:start + 4])
        chunks.append((content[start + 4:start + 8], content[start + 8:start + 8 + length]))
        start += 12 + length
    number = chance.randrange(len(chunks) + 1)
    name = chance.choice((b'tRNS', b'gAMA', b'cHRM', b'iCCP', b'PLTE', b'eXIf', b'pHYs', b'zTXt', b'acTL', b'fdAT'))
    chunks[number:number + 1] = [(name, bytes(9)) if number == len(chunks) else chunks[number]] + chance.choice(
        ([], [(name, bytes(chance.randrange(256) for _ in range(chance.choice((0, 1, 8, 32)))))]))
    number = chance.randrange(len(chunks))
    chunks[number] = chunks[number][0], damage(chunks[number][1], chance)
    return content[:8] + b''.join(
        struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))
        for name, data in chunks)


def damage_json(content, chance):
    """Half of the times, another value in place of one that is there."""
    if chance.random() < 0.5:
        return damage(content, chance)
    content = json.loads(content)
    places = [(content, key) for key in content]
    for container, key in places:
        inner = container[key]
        if isinstance(inner, (dict, list)):
            places += [(inner, key) for key in (inner if isinstance(inner, dict) else range(len(inner)))]
    container, key = chance.choice(places)
    container[key] = chance.choice((None, True, False, -1, 0, 2 ** 70, 1e300, 'x', '', '\0', '../..', '-', '=True',
                                    '\ud800', [], {}, [[]], {'x': 1}))
    return json.dumps(content).encode()


# Each kind of file: a folder is made for it; then (path of the file that is damaged, reader of the folder)


def write_pairs(folder, images):
    """Write a folder in KITTI's layout: pictures, [(suffix, image)], and a label for each."""
    label = np.full(SHAPE + (3,), classes.BACKGROUND, np.uint8)
    label[:, 20:] = classes.ROAD
    for part in ('image_2', 'gt_image_2'):
        os.makedirs(os.path.join(folder, part))
    for number, (suffix, image) in enumerate(images):
        image.save(os.path.join(folder, 'image_2', f'um_{number:06d}{suffix}'))
        Image.fromarray(label).save(os.path.join(folder, 'gt_image_2', f'um_road_{number:06d}.png'))


def pictures(folder, suffix, image):
    """A training folder of two pairs, one of whose pictures is the given one."""
    write_pairs(folder, [(suffix, image), ('.png', image.convert('RGB'))])

    def read():
        for images, labels in helper.gen_batch_function(folder, SHAPE)(2):
            assert images.shape == (2,) + SHAPE + (3,) and images.dtype == np.uint8
            assert labels.shape == (2,) + SHAPE + (2,) and not labels.all(axis=-1).any()
    return os.path.join(folder, 'image_2', 'um_000000' + suffix), read


def labels(folder, suffix, image):
    _, read = pictures(folder, suffix, image)
    return os.path.join(folder, 'gt_image_2', 'um_road_000000.png'), read


def run(folder):
    """A run with two checkpoints of a network of one layer; gives its folder, and a function that resumes it."""
    data_road = os.path.join(folder, 'data', 'data_road')
    for split, count in (('training', 4), ('testing', 1)):
        write_pairs(os.path.join(data_road, split), [('.png', Image.new('RGB', SHAPE[::-1]))] * count)
    os.makedirs(os.path.join(folder, 'data', 'vgg', 'variables'))
    for name in ('variables.index', 'variables.data-00000-of-00001'):  # of no network: they are not loaded here
        with open(os.path.join(folder, 'data', 'vgg', 'variables', name), 'wb') as file:
            file.write(b'VGG-16')
    settings = Settings(data_dir=os.path.join(folder, 'data'), runs_dir=os.path.join(folder, 'runs'), epochs=EPOCHS,
                        batch_size=1, image_shape=SHAPE, validation=0.5)
    get_batches_fn = helper.gen_batch_function(settings.training_folder, SHAPE, seed=0, validation=0.5)

    def train(path=None):
        """Train a new run or resume one; returns its folder and the epoch at which it began."""
        with RunFolder(dataclasses.replace(settings, resume=path), get_batches_fn, 'float32') as run_folder, \
                tf.Graph().as_default(), tf.Session() as sess:
            callback = run_folder.callback
            image, label = (tf.placeholder(tf.float32, (None,) + SHAPE + (depth,)) for depth in (3, 2))
            keep_prob, learning_rate = tf.placeholder(tf.float32), tf.placeholder(tf.float32)
            kernel = tf.get_variable('kernel', [3, 2])
            logits = tf.matmul(tf.reshape(image / 255, [-1, 3]), kernel)
            loss = tf.reduce_mean(tf.square(logits - tf.reshape(label, [-1, 2])))
            step = kernel.assign_sub(learning_rate * tf.gradients(loss, kernel)[0])
            segmenter = Segmenter(sess, logits, keep_prob, image, SHAPE, get_batches_fn.classes)
            with callback.training(segmenter, {}):
                first = callback.next_epoch
                main.train_nn(sess, EPOCHS, 1, get_batches_fn, step, loss, image, label, keep_prob, learning_rate,
                              callback)
            assert [entry['epoch'] for entry in callback.history] == list(range(1, EPOCHS + 1))
            return callback.folder, first

    def resume():
        resumed(path, {})
        assert train(path)[1] > 1

    with mock.patch.object(checkpoints, 'SAVE_INTERVAL', 0):  # one after each step
        path, _ = train()
    return path, resume


def in_run(name):
    def make(folder):
        path, resume = run(folder)
        return os.path.join(path, name), resume
    return make


def archive(folder):
    """An archive of the KITTI road set that an earlier start has downloaded."""
    path = os.path.join(folder, 'data_road.zip')
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as file:
        for number in range(3):
            file.writestr(f'data_road/{number}', os.urandom(100))

    def read():
        try:
            helper.maybe_download_kitti_road(folder)
        finally:
            assert set(os.listdir(folder)) <= {'data_road', 'data_road.zip', 'data_road.zip.sha256', files.LOCK}
    return path, read


def kinds():
    picture = Image.fromarray(np.random.RandomState(0).randint(256, size=SHAPE + (3,)).astype(np.uint8))
    grey = np.asarray(picture.convert('L')).astype(np.uint16) * 256
    checkpoint = os.path.join('checkpoints', f'epoch-{EPOCHS:05d}-picture-000000')
    return [('picture, PNG', lambda folder: pictures(folder, '.png', picture)),
            ('picture, PNG with palette', lambda folder: pictures(folder, '.png', picture.quantize(16))),
            ('picture, PNG of 16 bits', lambda folder: pictures(folder, '.png', Image.fromarray(grey))),
            ('picture, JPEG', lambda folder: pictures(folder, '.jpg', picture)),
            ('label', lambda folder: labels(folder, '.png', picture)),
            ('settings.json', in_run('settings.json')),
            ('checkpoint, index', in_run(os.path.join(checkpoint, 'weights.index'))),
            ('checkpoint, weights', in_run(os.path.join(checkpoint, 'weights.data-00000-of-00001'))),
            ('checkpoint, state.json', in_run(os.path.join(checkpoint, 'state.json'))),
            ('checkpoint, best weights', in_run(os.path.join('checkpoints', 'best.npz'))),
            ('archive', archive)]


HOW = {'.png': damage_png, '.json': damage_json}


def fuzz(make, rounds, chance):
    """Counter of what came out, and the traces of what must not."""
    found, wrong = collections.Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        place, sound = os.path.join(folder, 'place'), os.path.join(folder, 'sound')
        os.mkdir(place)
        with contextlib.redirect_stdout(io.StringIO()):
            path, read = make(place)
        with open(path, 'rb') as file:
            content = file.read()
        shutil.copytree(place, sound)
        for _ in range(rounds):
            shutil.rmtree(place)
            shutil.copytree(sound, place)
            with open(path, 'wb') as file:
                file.write(HOW.get(os.path.splitext(path)[1], damage)(content, chance))
            try:
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    read()
                found['read'] += 1
            except UserError as error:
                found['a clear error'] += 1
                if '\n' in str(error):
                    wrong.append(str(error))
            except Exception:
                found['something else'] += 1
                wrong.append(traceback.format_exc())
    return found, wrong


def main_fuzz():
    parser = argparse.ArgumentParser(description='Feed damaged files to the readers of the program.')
    parser.add_argument('--rounds', type=int, default=500, metavar='N', help='damaged files of each kind')
    parser.add_argument('--seed', type=int, default=0, metavar='N')
    options = parser.parse_args()
    chance, all_wrong = random.Random(options.seed), []
    for name, make in tqdm(kinds(), unit='kind', leave=False, disable=None):
        found, wrong = fuzz(make, options.rounds, chance)
        tqdm.write('{}: {}'.format(name, ', '.join(f'{count} {what}' for what, count in found.most_common())))
        all_wrong += wrong
    for trace in all_wrong[:5]:
        print(trace)
    sys.exit(1 if all_wrong else 0)


if __name__ == '__main__':
    main_fuzz()
