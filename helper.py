"""KITTI in, overlays out: the helper functions of the starter project, with its signatures."""
from fcn8.tf1 import tf  # noqa: F401 (says what is missing, and switches TensorFlow 2 to graph mode)

import os
import time

from fcn8.data import download, images, kitti
from fcn8.data.classes import KITTI_ROAD, read_classes
from fcn8.files import stem
from fcn8.results.segmenter import Segmenter
from fcn8.settings import Settings


def maybe_download_pretrained_vgg(data_dir):
    """Put the pre-trained VGG-16, a SavedModel, into data_dir/vgg, unless it is there.

    Raises UserError if it cannot be downloaded, and if data_dir/vgg holds something else.
    """
    download.fetch_vgg(data_dir)


def maybe_download_kitti_road(data_dir):
    """Put the KITTI road set into data_dir/data_road, unless it is there.

    Raises UserError if it cannot be downloaded, and if data_dir/data_road holds something else.
    """
    download.fetch_kitti_road(data_dir)


def gen_batch_function(data_folder, image_shape, seed=None, cache_mb=Settings.cache_mb, validation=0., augment=False,
                       classes=None):
    """Make the function that gives batches of pictures and labels.

    data_folder: folder in KITTI's layout: image_2/um_000003.png with gt_image_2/um_road_000003.png.
    image_shape: (height, width) in pixels, to which pictures (bilinear) and labels (nearest neighbour) are resized.
    seed: fixes the order of the pictures, which of them are for validation, and their augmentation.
    cache_mb: MiB of resized pictures and labels that stay in memory; the others are read again in each epoch, by
    threads while the caller works with the batch before.
    validation: the share of the pictures that the batches leave out.
    augment: whether each epoch has another variant of each picture, made by data.augmentation.
    classes: path of a JSON file for data.classes.read_classes(); without it background and road.

    If several processes train together, each gets its own share of the pictures.

    Returns get_batches_fn, a data.kitti.Batches: get_batches_fn(batch_size) is an iterator over one epoch in a new
    order: (images, labels), images uint8 [n, height, width, 3], labels bool [n, height, width, classes], one-hot, as
    published (background, road). An all-False pixel is ignored: a loss has to mask it, as main.optimize() does, since
    TensorFlow's own softmax cross entropy diverges on it. The last batch may be shorter.

    Raises UserError if pictures or labels are missing, unreadable, of different sizes or of unknown colours, and if the
    labels have fewer than two classes.
    """
    return kitti.Batches(data_folder, image_shape, seed, cache_mb, validation, augment, read_classes(classes))


def gen_test_output(sess, logits, keep_prob, image_pl, data_folder, image_shape, report=None):
    """Paint the road green on each picture of data_folder/image_2.

    logits: float32 [n*h*w, classes], as published (background, road), computed from image_pl (float32 [n, h, w, 3])
    and keep_prob.
    image_shape: (height, width) in pixels.
    report: results.report.Report to which each picture is added, and whose classes are painted.

    Yields (file name, picture uint8 [height, width, 3]): half green where the road's probability exceeds 0.5, the
    resized picture itself elsewhere.
    """
    classes = report.classes if report else KITTI_ROAD
    segmenter = Segmenter(sess, logits, keep_prob, image_pl, image_shape, classes)
    for path, picture, prediction in segmenter.segment(kitti.list_pictures(data_folder)):
        if report:
            report.add(path, picture, prediction)
        yield os.path.basename(path), classes.paint(picture, prediction)


def save_inference_samples(runs_dir, data_dir, sess, image_shape, logits, keep_prob, input_image, report=None):
    """Write the painted test pictures of data_dir/data_road/testing as PNGs to a new folder, runs_dir/<time.time()>.

    report: results.report.Report, whose folder takes the place of the new one.
    The other arguments are those of gen_test_output().

    Returns the folder's path.

    Raises UserError if a picture cannot be written.
    """
    data_folder = os.path.join(data_dir, 'data_road', 'testing')
    if report:
        output_dir = report.folder
    else:
        output_dir = os.path.join(runs_dir, str(time.time()))
        os.makedirs(output_dir)
    pictures = gen_test_output(sess, logits, keep_prob, input_image, data_folder, image_shape, report)
    images.write_pictures(((os.path.join(output_dir, stem(name) + '.png'), picture) for name, picture in pictures),
                          len(kitti.list_pictures(data_folder)))
    print(f'Painted test pictures: {output_dir}')
    return output_dir
