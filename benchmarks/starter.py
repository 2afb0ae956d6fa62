"""The starter project's way of doing what main.py and helper.py do, for benchmarks/bench.py to compare with.

Written anew with Pillow, since scipy.misc.imread, imresize and toimage are gone; what they did is done here alike.
"""
import glob
import os
import random
import re

import numpy as np
from PIL import Image

from fcn8.tf1 import tf

BACKGROUND = np.array([255, 0, 0])


def imread(path):
    return np.array(Image.open(path))


def imresize(image, shape):
    return np.array(Image.fromarray(image).resize(shape[::-1], Image.BILINEAR))


def gen_batch_function(data_folder, image_shape):
    """Reads, resizes and codes every picture in every epoch, one after the other, while the device waits."""
    image_paths = glob.glob(os.path.join(data_folder, 'image_2', '*.png'))
    label_paths = {re.sub('_(lane|road)_', '_', os.path.basename(path)): path
                   for path in glob.glob(os.path.join(data_folder, 'gt_image_2', '*_road_*.png'))}

    def get_batches_fn(batch_size):
        random.shuffle(image_paths)
        for start in range(0, len(image_paths), batch_size):
            images, labels = [], []
            for path in image_paths[start:start + batch_size]:
                label = imresize(imread(label_paths[os.path.basename(path)]), image_shape)
                background = np.all(label == BACKGROUND, axis=2)[..., np.newaxis]
                images.append(imresize(imread(path), image_shape))
                labels.append(np.concatenate((background, np.invert(background)), axis=2))
            yield np.array(images), np.array(labels)

    return get_batches_fn


def optimize(nn_last_layer, correct_label, learning_rate, num_classes, var_list=None):
    """The fused softmax cross entropy; no regularisation, no ignored pixels."""
    logits = tf.reshape(nn_last_layer, [-1, num_classes])
    labels = tf.reshape(correct_label, [-1, num_classes])
    loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits_v2(labels=labels, logits=logits))
    return logits, tf.train.AdamOptimizer(learning_rate).minimize(loss, var_list=var_list), loss


def save_inference_samples(output_dir, sess, image_shape, logits, keep_prob, image_input, paths):
    """Paints and writes the pictures one by one, with a new softmax in the graph for each."""
    for path in paths:
        image = imresize(imread(path), image_shape)
        softmax = sess.run(tf.nn.softmax(logits), {keep_prob: 1.0, image_input: [image]})[:, 1]
        segmentation = (softmax > 0.5).reshape(image_shape + (1,))
        mask = Image.fromarray(np.dot(segmentation, [[0, 255, 0, 127]]).astype(np.uint8), 'RGBA')
        street = Image.fromarray(image)
        street.paste(mask, box=None, mask=mask)
        street.save(os.path.join(output_dir, os.path.basename(path)))
