"""The history of a run for TensorBoard, with its graph and some overlays.

Written with TFRecordWriter: the thread of tf.summary.FileWriter swallows the error of a full disk, or raises it
anywhere.
"""
import contextlib
import os
import platform
import time

import imageio.v2 as imageio

from fcn8 import distributed
from fcn8.errors import UserError, cannot_write
from fcn8.tf1 import tf


class Events:
    """An event file in the folder of a run.

    graph: tf.Graph.
    first_epoch: the next one. Events of a resumed run that are about to come again are dropped by TensorBoard.
    """

    def __init__(self, folder, graph, first_epoch):
        self._folder, self._overlays = folder, {}
        name = f'events.out.tfevents.{time.time():.6f}.{platform.node()}'
        self._writer = tf.io.TFRecordWriter(os.path.join(folder, name))
        self._write(file_version='brain.Event:2')
        self._write(graph_def=graph.as_graph_def().SerializeToString())
        self._write(step=first_epoch, session_log=tf.SessionLog(status=tf.SessionLog.START))

    def add_overlay(self, name, overlay):
        """Keep an overlay, uint8 [height, width, 3], for the next epoch that is added."""
        self._overlays[name.encode('utf-8', 'replace').decode()] = overlay  # a tag has to be UTF-8

    def add_epoch(self, entry):
        """Write an entry of the history."""
        scores = dict(entry, **{'validation/' + name: value for name, value in entry.get('validation', {}).items()})
        values = [tf.Summary.Value(tag=name, simple_value=value) for name, value in sorted(scores.items())
                  if isinstance(value, float)]
        for name, overlay in sorted(self._overlays.items()):
            values.append(tf.Summary.Value(tag='validation/' + name, image=tf.Summary.Image(
                height=overlay.shape[0], width=overlay.shape[1], colorspace=3,
                encoded_image_string=imageio.imwrite('<bytes>', overlay, format='jpg'))))
        self._overlays = {}
        self._write(step=entry['epoch'], summary=tf.Summary(value=values))

    def close(self):
        """Close the file; what could not be written has been reported before."""
        with contextlib.suppress(tf.errors.OpError):
            self._writer.close()

    def _write(self, **content):
        try:
            self._writer.write(tf.Event(wall_time=time.time(), **content).SerializeToString())
            self._writer.flush()
        except tf.errors.OpError as error:
            command = distributed.resume_command(self._folder)
            raise UserError(f'{cannot_write(self._folder, error)}, then resume with `{command}`') from error
