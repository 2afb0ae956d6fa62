"""The scenes of the demo."""
import os

import imageio.v2 as imageio
import numpy as np

from fcn8.data import scenes
from fcn8.data.classes import BACKGROUND, IGNORED, ROAD
from tests.support import Case


class Scenes(Case):
    def picture(self, folder, split, name='image_2/um_000000.png'):
        return imageio.imread(self.path(folder, split, name))

    def test_have_kittis_layout_and_colours_and_are_fixed_by_seed_and_name(self):
        scenes.write_scenes(self.path('first'), seed=5, training=4, testing=1)
        for split, names in (('training', ['um_000000', 'um_000001', 'umm_000000', 'uu_000000']),
                             ('testing', ['um_000000'])):
            self.assertEqual(sorted(os.listdir(self.path('first', split, 'image_2'))),
                             [name + '.png' for name in names])
            self.assertEqual(sorted(os.listdir(self.path('first', split, 'gt_image_2'))),
                             [name.replace('_', '_road_') + '.png' for name in names])
            for name in names:
                picture = self.picture('first', split, f'image_2/{name}.png')
                label = self.picture('first', split, 'gt_image_2/{}_road_{}.png'.format(*name.split('_')))
                self.assertEqual(picture.shape, label.shape)
                self.assertTrue(370 <= picture.shape[0] <= 376 and 1224 <= picture.shape[1] <= 1242)
                colours = {tuple(colour) for colour in np.unique(label.reshape(-1, 3), axis=0)}
                self.assertLessEqual(colours, {BACKGROUND, ROAD, IGNORED})
                self.assertTrue(0.03 < (label == ROAD).all(axis=-1).mean() < 0.5)

        for folder, seed in (('again', 5), ('other', 6)):
            scenes.write_scenes(self.path(folder), seed, training=1, testing=0)
        first = self.picture('first', 'training')
        np.testing.assert_array_equal(first, self.picture('again', 'training'))
        for other in (self.picture('other', 'training'), self.picture('first', 'testing')):
            self.assertFalse(np.array_equal(first, other))
