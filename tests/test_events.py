"""TensorBoard's events of a run: its history, overlays and graph."""
from fcn8.tf1 import tf

import glob
import os

import imageio.v2 as imageio

from tests.support import SHAPE, TrainedCase


class Events(TrainedCase):
    def read(self):
        """{tag: {epoch: value}} of the scalars, {tag: {epoch: shape}} of the pictures, the graph's number of nodes.

        And (status, first epoch) of each start: TensorBoard drops what earlier ones wrote of that epoch and later ones.
        """
        scalars, pictures, nodes, starts = {}, {}, 0, []
        for path in sorted(glob.glob(os.path.join(self.run_folder, 'events.out.tfevents.*'))):
            for event in tf.train.summary_iterator(path):
                if event.graph_def:
                    nodes = len(tf.GraphDef.FromString(event.graph_def).node)
                if event.HasField('session_log'):
                    starts.append((event.session_log.status, event.step))
                for value in event.summary.value:
                    if value.HasField('image'):
                        picture = imageio.imread(value.image.encoded_image_string)
                        pictures.setdefault(value.tag, {})[event.step] = picture.shape
                    else:
                        scalars.setdefault(value.tag, {})[event.step] = value.simple_value
        return scalars, pictures, nodes, starts

    def test_hold_the_history_the_overlays_and_the_graph_of_a_resumed_run(self):
        self.assertEqual(self.main('--resume', self.run_folder, '--epochs', '3')[0], 0)
        scalars, pictures, nodes, starts = self.read()
        history = self.history(self.run_folder)
        self.assertEqual(sorted(scalars['cross_entropy']), [1, 2, 3])
        for entry in history:
            for name in ('cross_entropy', 'regularisation', 'learning_rate'):
                self.assertAlmostEqual(scalars[name][entry['epoch']], entry[name], places=5)
            for name, value in entry['validation'].items():
                self.assertAlmostEqual(scalars['validation/' + name][entry['epoch']], value, places=5)
        (tag, shapes), = pictures.items()
        self.assertRegex(tag, r'^validation/um_00000\d.png$')
        self.assertEqual(shapes, dict.fromkeys([1, 2, 3], SHAPE + (3,)))
        self.assertGreater(nodes, 100)
        self.assertEqual(starts, [(tf.SessionLog.START, 1), (tf.SessionLog.START, 3)])

    def test_a_picture_whose_name_is_not_utf_8(self):
        for part in ('image_2/um_', 'gt_image_2/um_road_'):
            for number in range(4):
                path = f'data/data_road/training/{part}00000{number}.png'
                os.rename(path, path.encode().replace(b'00000', b'\xff'))
        self.run_folder = self.new_run(validation=0.25)
        self.assertRegex(list(self.read()[1])[0], r'^validation/um_\?\d.png$')
