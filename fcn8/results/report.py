"""The scores of a run and its page, index.html: scores, curves, settings and pictures in one file without links."""
import json
import os

import numpy as np
from PIL import Image

from fcn8.data import kitti, labels
from fcn8.data.classes import PAINT_ALPHA
from fcn8.files import digest, digest_of_files
from fcn8.results import metrics, pages, run_list
from fcn8.results.charts import charts

THUMBNAIL = 160  # pixels wide
# As the KITTI benchmark shows them; of other classes a pixel is right or wrong
RIGHT, MISSED, WRONG = (0, 255, 0), (255, 0, 0), (0, 80, 255)


class Report:
    """What a run has to show: scores by part, the pictures, and the page that has both.

    folder: of the run; the page is its index.html.
    classes: data.classes.Classes.
    label_of: {path of a picture: path of its label}; pictures that have one are scored.
    """

    def __init__(self, folder, classes, label_of):
        self.folder, self.classes, self._label_of = folder, classes, label_of
        self._scores = {}  # {part: scores}
        self._scored = {'validation': [], 'test': []}  # paths of pictures and labels
        self._thumbnail = None
        self._galleries = {'validation': pages.Gallery('Validation'), 'test': pages.Gallery('Test')}

    def add(self, path, picture, prediction, part='test'):
        """Score a picture, and add it to the page.

        path: of the picture.
        picture: uint8 [height, width, 3].
        prediction: one of data.classes.Classes, [height, width].
        part: 'test' or 'validation'.
        """
        score, views = metrics.scores_of(self.classes), {}
        if path in self._label_of:
            label = labels.read_label(self._label_of[path], picture.shape[:2], self.classes)
            score.add(prediction, label)
            self._scores[part] = self._scores.get(part, metrics.scores_of(self.classes)) + score
            self._scored[part] += [path, self._label_of[path]]
            views['Errors'] = _paint_errors(self.classes, picture, prediction, label)
        views.update(Overlay=self.classes.paint(picture, prediction), Picture=picture,
                     Prediction=self.classes.draw(prediction))
        self._thumbnail = self._thumbnail or pages.data_url(pages.shrunk(views['Overlay'], THUMBNAIL))
        self._galleries[part].add(pages.encode(os.path.basename(path), kitti.category(path), views),
                                  metrics.decisive(score.summary()))

    def format_scores(self):
        """A table of the scores as text, empty without labels."""
        scores = self._summaries()
        return metrics.format_table(list(scores.items())) if scores else ''

    def _summaries(self):
        return {part: self._scores[part].summary() for part in ('validation', 'test') if part in self._scores}

    def write(self, title, summary, settings, history, cross_entropy, trained_on):
        """Write the page and scores.json, each whole or not at all; returns the path of the page.

        title, summary: texts.
        settings: {name: value}.
        history: that of a training.callback.Callback.
        cross_entropy: in training, of the epoch whose weights are used.
        trained_on: paths of pictures and labels.

        Raises UserError if they cannot be written.
        """
        scores = self._summaries()
        pictures = {part: digest_of_files(sorted(paths))
                    for part, paths in dict(self._scored, training=trained_on).items()}
        if not self.classes.is_road:  # with other classes, the same pictures are not the same
            classes = json.dumps(self.classes.description, sort_keys=True).encode()
            pictures = {part: digest(classes, text.encode()) for part, text in pictures.items()}
        run_list.write_scores(self.folder, cross_entropy, scores, pictures, self._thumbnail)
        run = run_list.read(self.folder)
        before = run_list.before(run)
        return pages.write(
            os.path.join(self.folder, 'index.html'), 'run.html', title=title, summary=summary, settings=settings,
            scores=run.scores, before=before, changes=before and before.changes_to(run), charts=charts(history),
            galleries=list(self._galleries.values()), key=_key(self.classes),
            score_title=next(iter(metrics.headline(metrics.scores_of(self.classes).summary()))))


def _paint_errors(classes, picture, prediction, label):
    """The picture with its pixels painted by whether they are classified as the label says, which may ignore some."""
    if classes.is_road:
        found, background, road = prediction > 0.5, label[..., 0], label[..., 1]
        kinds = (RIGHT, found & road), (MISSED, ~found & road), (WRONG, found & background)
    else:
        right, counts = prediction == np.argmax(label, axis=-1), label.any(axis=-1)
        kinds = (RIGHT, right & counts), (MISSED, ~right & counts)
    image = Image.fromarray(picture)
    for colour, pixels in kinds:
        image.paste(colour, mask=Image.fromarray(pixels.astype(np.uint8) * PAINT_ALPHA))
    return np.asarray(image)


def _key(classes):
    """[(colour, meaning)] of what _paint_errors() paints."""
    if classes.is_road:
        return [(RIGHT, 'road found'), (MISSED, 'road missed'), (WRONG, 'background classified as road')]
    return [(RIGHT, 'the right class'), (MISSED, 'a wrong class')]
