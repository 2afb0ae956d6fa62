"""Folders in KITTI's layout: pairing, labels, batches, shares of several processes, the choice for validation."""
import os
import shutil
import tracemalloc
from unittest import mock

import numpy as np

from fcn8 import launcher
from fcn8.data import images, kitti
from tests.support import SHAPE, Case


def as_process(rank, size):
    return mock.patch.multiple(launcher, RANK=rank, SIZE=size)


def is_road(pictures):
    """Where write_kitti() has painted road."""
    return pictures.min(axis=-1) >= 150


class Pairs(Case):
    def test_a_label_is_found_by_the_name_of_its_picture(self):
        folder = self.write_kitti(count=2)
        expected = [('um_000000.png', 'um_road_000000.png'), ('um_000001.png', 'um_road_000001.png')]
        for picture, label in (('on_road_b_000003.png', 'on_road_b_road_000003.png'), ('u u_4.PNG', 'u u_road_4.png')):
            shutil.copy(os.path.join(folder, 'image_2', 'um_000000.png'), os.path.join(folder, 'image_2', picture))
            shutil.copy(os.path.join(folder, 'gt_image_2', 'um_road_000000.png'),
                        os.path.join(folder, 'gt_image_2', label))
            expected.append((picture, label))
        pairs = kitti.pair_with_labels(folder)
        self.assertEqual([tuple(map(os.path.basename, pair)) for pair in pairs], sorted(expected))
        self.assertEqual([kitti.category(picture) for picture, _ in pairs], ['on_road_b', 'u u', 'um', 'um'])

    def test_a_label_may_have_the_name_of_its_picture(self):
        folder = self.write_kitti(count=1)
        for name in ('IMG_1.jpg', 'dirt_road_1.png', 'street.png'):
            shutil.copy(os.path.join(folder, 'image_2', 'um_000000.png'), os.path.join(folder, 'image_2', name))
            shutil.copy(os.path.join(folder, 'gt_image_2', 'um_road_000000.png'),
                        os.path.join(folder, 'gt_image_2', name[:-4] + '.png'))
        pairs = kitti.pair_with_labels(folder)
        self.assertEqual([os.path.basename(label) for _, label in pairs],
                         ['IMG_1.png', 'dirt_road_1.png', 'street.png', 'um_road_000000.png'])
        self.assertEqual([kitti.category(picture) for picture, _ in pairs], ['IMG', 'dirt_road', 'none', 'um'])

    def test_a_picture_with_two_labels(self):
        folder = self.write_kitti(count=1)
        label, other = (os.path.join(folder, 'gt_image_2', name) for name in ('um_000000.png', 'um_road_000000.png'))
        shutil.copy(other, label)
        self.assertEqual(self.assert_user_error(kitti.pair_with_labels, folder),
                         f'{label} and {other}: two labels for one picture; remove one')
        # Now each has its own.
        picture = os.path.join(folder, 'image_2', 'um_000000.png')
        shutil.copy(picture, picture.replace('um_', 'um_road_'))
        self.assertEqual([pair[1] for pair in kitti.pair_with_labels(folder)], [label, other])

    def test_a_label_that_is_missing_or_of_another_format(self):
        folder = self.write_kitti(count=1)
        label = os.path.join(folder, 'gt_image_2', 'um_road_000000.png')
        for name, expected in (('um_road_000000.jpg', 'um_road_000000.jpg: JPEG changes the colours of a label'),
                               ('um_000000.tif', 'um_000000.tif: .*, labels PNG. .*python -c .*gt_image_2/..tif$'),
                               ('um_1.png', 'um_000000.png: its label um_road_000000.png or um_000000.png is missing')):
            other = os.path.join(folder, 'gt_image_2', name)
            os.rename(label, other)
            self.assertRegex(self.assert_user_error(kitti.pair_with_labels, folder), expected)
            os.rename(other, label)


class Batches(Case):
    def test_pictures_with_their_labels_and_a_short_last_batch(self):
        get_batches_fn = kitti.Batches(self.write_kitti(count=5), SHAPE)
        self.assertEqual(get_batches_fn.pictures, 5)
        batches = list(get_batches_fn(2))
        self.assertEqual([pictures.shape for pictures, _ in batches], [(n,) + SHAPE + (3,) for n in (2, 2, 1)])
        self.assertEqual([labels.shape for _, labels in batches], [(n,) + SHAPE + (2,) for n in (2, 2, 1)])
        for pictures, labels in batches:
            self.assertEqual(pictures.dtype, np.uint8)
            np.testing.assert_array_equal(is_road(pictures), labels[..., 1])

    def test_pictures_of_different_sizes(self):
        folder = self.write_kitti(count=2)
        os.rename(self.write_kitti('wider', count=1, shape=(70, 120)), self.path('other'))
        for kind, name in (('image_2', 'um_000000.png'), ('gt_image_2', 'um_road_000000.png')):
            shutil.move(self.path('other', kind, name), os.path.join(folder, kind, name.replace('um', 'uu')))
        (pictures, labels), = kitti.Batches(folder, SHAPE)(3)
        self.assertEqual((pictures.shape, labels.shape), ((3,) + SHAPE + (3,), (3,) + SHAPE + (2,)))

    def test_each_epoch_has_a_new_order_fixed_by_the_seed(self):
        folder = self.write_kitti(count=8)

        def epochs(seed, threads=3):
            with mock.patch.object(images, 'THREADS', threads):
                get_batches_fn = kitti.Batches(folder, (8, 12), seed, cache_mb=0)
                return [np.concatenate([pictures for pictures, _ in get_batches_fn(3)]) for _ in range(2)]

        first, second = epochs(1)
        self.assertFalse(np.array_equal(first, second))
        self.assertEqual({picture.tobytes() for picture in first}, {picture.tobytes() for picture in second})
        np.testing.assert_array_equal(epochs(1, threads=1), [first, second])
        self.assertFalse(np.array_equal(epochs(2)[0], first))

    def test_pictures_beyond_the_cache_are_read_again(self):
        shape = (256, 256)
        folder = self.write_kitti(count=8, shape=shape)
        for cache_mb, cached in ((0, 0), (1, 3), (100, 8)):  # a picture with its label takes 5/16 MiB
            get_batches_fn = kitti.Batches(folder, shape, seed=0, cache_mb=cache_mb)
            for _ in range(2):
                with mock.patch.object(images, 'read_picture', wraps=images.read_picture) as read:
                    for pictures, labels in get_batches_fn(3):
                        np.testing.assert_array_equal(is_road(pictures), labels[..., 1])
                self.assertEqual(read.call_count, 8 - cached)

    def test_the_cache_stays_within_its_limit(self):
        folder = self.write_kitti(count=16)
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            get_batches_fn = kitti.Batches(folder, (256, 256), cache_mb=2)
            for _ in get_batches_fn(1):
                pass
            del _
            used = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        self.assertLess(used, 2.05 * 2 ** 20)
        self.assertGreater(used, 1.8 * 2 ** 20)

    def test_a_picture_that_is_damaged_after_the_start(self):
        folder = self.write_kitti()
        get_batches_fn = kitti.Batches(folder, SHAPE, cache_mb=0)
        path = os.path.join(folder, 'image_2', 'um_000002.png')
        with open(path, 'w') as file:
            file.write('damaged meanwhile')
        self.assertIn(path, self.assert_user_error(lambda: list(get_batches_fn(2))))

    def test_features_take_the_place_of_the_pictures(self):
        get_batches_fn = kitti.Batches(self.write_kitti(), SHAPE)
        number = np.arange(4)
        get_batches_fn.features = number, number * 10.
        rows = list(get_batches_fn(3))
        self.assertEqual(sorted(np.concatenate([first for (first, _), _ in rows])), [0, 1, 2, 3])
        for (first, second), labels in rows:
            np.testing.assert_array_equal(second, first * 10.)
            # write_kitti's road begins further to the right in each picture.
            np.testing.assert_array_equal(labels[:, -1, :, 1].argmax(axis=1), first * SHAPE[1] // 8)

    def test_skipped_epochs_and_pictures(self):
        folder = self.write_kitti(count=8)

        def epochs(count, *skipped):
            get_batches_fn = kitti.Batches(folder, SHAPE, seed=4, augment=True)
            get_batches_fn.skip(*skipped)
            return [np.concatenate([pictures for pictures, _ in get_batches_fn(2)]) for _ in range(count)]

        first, second, third = epochs(3, 0, 0)
        np.testing.assert_array_equal(epochs(2, 1, 0), [second, third])
        rest, following = epochs(2, 1, 4)
        np.testing.assert_array_equal(rest, second[4:])
        np.testing.assert_array_equal(following, third)


class Shares(Case):
    """Of several processes, each with the RANK and SIZE that its launcher gives it."""

    def setUp(self):
        super().setUp()
        self.data_folder = self.write_kitti(count=11)

    def batches(self, rank, size, **settings):
        with as_process(rank, size):
            return kitti.Batches(self.data_folder, SHAPE, seed=3, **settings)

    def epochs(self, rank, size, batch_size, skipped=0):
        """The batches of two epochs, after some pictures of the first; a picture is given by its first bytes."""
        batches = self.batches(rank, size)
        batches.skip(0, skipped)
        with as_process(rank, size):
            return [[[picture.tobytes()[:60] for picture in pictures] for pictures, _ in batches(batch_size)]
                    for _ in range(2)]

    def test_together_they_are_the_batches_of_one(self):
        for skipped in (0, 3):
            alone = self.epochs(0, 1, 6, skipped)
            shares = [self.epochs(rank, 3, 2, skipped) for rank in range(3)]
            for epoch in range(2):
                self.assertEqual({len(share[epoch]) for share in shares}, {-(-(9 - skipped * (epoch == 0)) // 6)})
                for batch, parts in zip(alone[epoch], zip(*(share[epoch] for share in shares))):
                    self.assertEqual(len({len(part) for part in parts}), 1)
                    together = sum(parts, [])
                    self.assertEqual(len(together), len(batch) // 3 * 3)
                    self.assertEqual(sorted(together), sorted(batch[:len(together)]))

    def test_all_have_as_many_pictures(self):
        for rank in range(3):
            self.assertEqual(self.batches(rank, 3).pictures, 9)
            # After four pictures of the first epoch, as of a run of another number of processes, five remain.
            for skipped, expected in ((0, [3, 3]), (4, [1, 3])):
                self.assertEqual([sum(map(len, epoch)) for epoch in self.epochs(rank, 3, 2, skipped)], expected)

    def test_more_processes_than_pictures(self):
        self.assertIn('11 pictures are too few for 12 processes', self.assert_user_error(self.batches, 0, 12))

    def test_validation_pictures_are_shared_too(self):
        alone = self.batches(0, 1, validation=0.5)
        shares = [self.batches(rank, 3, validation=0.5) for rank in range(3)]
        self.assertEqual(sorted(sum((share.validation_share for share in shares), [])), alone.validation_pictures)
        for share in shares:
            self.assertEqual(share.validation_pictures, alone.validation_pictures)
            self.assertEqual(sum(len(pictures) for pictures, _ in share.validation_batches()),
                             len(share.validation_share))

    def test_pictures_are_read_in_turn(self):
        paths = kitti.list_pictures(self.data_folder)
        with mock.patch.object(kitti, 'INFERENCE_BATCH', 2):
            alone = list(kitti.read_batches(paths, SHAPE))
            turns = [list(kitti.read_batches(paths, SHAPE, (rank, 4))) for rank in range(4)]
        self.assertEqual([len(batches) for batches in turns], [2, 2, 2, 2])
        np.testing.assert_array_equal(np.concatenate(alone), np.concatenate([
            batch for round_of_all in zip(*turns) for batch in round_of_all]))


class Validation(Case):
    def test_the_same_share_of_each_category_chosen_by_the_seed(self):
        paths = [f'{name}_{number:06d}.png' for name, count in (('um', 20), ('umm', 10), ('uu', 31))
                 for number in range(count)]
        chosen = kitti.choose_validation(paths, 0.2, seed=1)
        self.assertEqual(np.bincount(np.digitize(chosen, [20, 30])).tolist(), [4, 2, 6])
        np.testing.assert_array_equal(chosen, kitti.choose_validation(paths, 0.2, seed=1))
        self.assertFalse(np.array_equal(chosen, kitti.choose_validation(paths, 0.2, seed=2)))
        self.assertEqual(len(kitti.choose_validation(paths, 0., seed=1)), 0)
        for share, expected in ((0.01, '--validation 0.01: .* leaves no picture for validation'),
                                (0.99, '--validation 0.99: .* leaves no picture to train on')):
            self.assertRegex(self.assert_user_error(kitti.choose_validation, paths, share, 1), expected)

    def test_its_pictures_are_not_trained_on(self):
        batches = kitti.Batches(self.write_kitti(), SHAPE, seed=0, validation=0.5)
        trained = {pictures.tobytes() for _ in range(3) for pictures, _ in batches(1)}
        scored = {picture.tobytes() for pictures, _ in batches.validation_batches() for picture in pictures}
        self.assertEqual((len(trained), len(scored), batches.pictures), (2, 2, 2))
        self.assertFalse(trained & scored)
        self.assertEqual({images.read_picture(path, SHAPE).tobytes() for path in batches.validation_pictures}, scored)
