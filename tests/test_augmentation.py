"""Augmentation: picture and label change together, and a seed repeats it."""
from unittest import mock

import numpy as np

import helper
from fcn8.data import augmentation, images
from tests.support import SHAPE, Case


class Variants(Case):
    def variant(self, seed):
        """The variant of a picture that brightens from left to right, and is road in its right half."""
        picture = np.broadcast_to(np.arange(0, 192, 2, dtype=np.uint8)[np.newaxis, :, np.newaxis], SHAPE + (3,))
        label = np.stack([picture[..., 0] < 96, picture[..., 0] >= 96], axis=-1)
        return augmentation.augment(picture, label, np.random.RandomState(seed))

    def test_picture_and_label_move_together(self):
        """In any light the road stays the brighter part of the picture."""
        with mock.patch.object(augmentation, 'SHADOW', (1, 1)):
            for seed in range(40):
                picture, label = self.variant(seed)
                self.assertEqual((picture.shape, picture.dtype), (SHAPE + (3,), np.uint8))
                self.assertEqual((label.shape, label.dtype), (SHAPE + (2,), bool))
                road, background = picture[label[..., 1]], picture[label[..., 0]]
                self.assertGreater(road.min(), background.max())

    def test_pictures_are_mirrored_shifted_relit_and_shadowed(self):
        mirrored, shifts, highest, shadows = set(), set(), set(), 0
        for seed in range(40):
            picture, label = self.variant(seed)
            not_ignored = label.any(axis=-1)
            rows, columns = np.flatnonzero(not_ignored.any(axis=1)), np.flatnonzero(not_ignored.any(axis=0))
            shifts.add((SHAPE[0] - len(rows), SHAPE[1] - len(columns)))
            self.assertLessEqual(SHAPE[0] - len(rows), augmentation.SHIFT * SHAPE[0])
            self.assertLessEqual(SHAPE[1] - len(columns), augmentation.SHIFT * SHAPE[1])
            mirrored.add(bool(label[rows[0], columns[0], 1]))
            highest.add(int(picture[rows[0]].max()))
            shadows += bool((picture != picture[:1]).any())  # without one, all rows of this picture are equal
        self.assertEqual(mirrored, {True, False})
        self.assertGreater(len(shifts), 20)
        self.assertGreater(len(highest), 20)
        self.assertTrue(10 <= shadows <= 30, shadows)

    def test_what_a_shift_brings_in_repeats_the_edge_and_is_ignored(self):
        picture = np.random.RandomState(0).randint(0, 256, SHAPE + (3,)).astype(np.uint8)
        label = np.stack([picture[..., 0] < 128, picture[..., 0] >= 128], axis=-1)
        random = mock.Mock(randint=mock.Mock(side_effect=[3, -5]))  # down, right
        shifted, shifted_label = augmentation.shift(picture, label, random)
        np.testing.assert_array_equal(shifted[3:, :-5], picture[:-3, 5:])
        np.testing.assert_array_equal(shifted[3:, -5:], picture[:-3, -1:].repeat(5, axis=1))
        np.testing.assert_array_equal(shifted[:3, :-5], picture[:1, 5:].repeat(3, axis=0))
        np.testing.assert_array_equal(shifted_label[3:, :-5], label[:-3, 5:])
        self.assertFalse(shifted_label[:3].any() or shifted_label[:, -5:].any())

    def test_seed_and_epoch_fix_the_batches_and_validation_is_left_alone(self):
        folder = self.write_kitti(count=8)

        def epochs(skip=0, threads=3):
            with mock.patch.object(images, 'THREADS', threads):
                batches = helper.gen_batch_function(folder, SHAPE, seed=5, validation=0.25, augment=True)
                batches.skip(skip, 0)
                return [list(batches(2)) for _ in range(2 - skip)], list(batches.validation_batches())

        (first, second), validation = epochs()
        (first_again, second_again), _ = epochs(threads=1)
        (second_alone,), _ = epochs(skip=1)
        for images_of_batch, labels in first:
            self.assertEqual((images_of_batch.shape, labels.dtype), ((2,) + SHAPE + (3,), bool))
        for some, same in ((first, first_again), (second, second_again), (second, second_alone)):
            np.testing.assert_array_equal([batch[0] for batch in some], [batch[0] for batch in same])
            np.testing.assert_array_equal([batch[1] for batch in some], [batch[1] for batch in same])
        sums = [{int(picture.sum()) for batch, _ in epoch for picture in batch} for epoch in (first, second)]
        self.assertFalse(sums[0] & sums[1])
        (pictures, labels), = validation
        np.testing.assert_array_equal(pictures.min(axis=-1)[:, 8:] >= 150, labels[:, 8:, :, 1])
