"""The scores of a run and its page, index.html: settings, curves, scores and overlays in one file without links.

report.html is the template of the page.
"""
import base64
import bisect
import collections
import html
import os
import string

import imageio.v2 as imageio
import numpy as np

from fcn8.data import kitti
from fcn8.files import written_whole
from fcn8.results import metrics

# Of validation and of test pictures, at most, on a page; the worst are kept. Of KITTI all are.
MAX_PICTURES, MAX_BYTES = 1000, 100e6
TEMPLATE = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'report.html')
WIDTH, HEIGHT = 420, 220  # of a chart, with margins for the numbers
LEFT, RIGHT, TOP, BOTTOM = 48, 10, 26, 24


class Report:
    """What a run has to show: scores by part, the pictures, and the page that has both.

    folder: of the run; the page is its index.html.
    classes: data.classes.Classes.
    label_of: {path of a picture: path of its label}; pictures that have one are scored.
    """

    def __init__(self, folder, classes, label_of):
        self.folder, self.classes, self._label_of = folder, classes, label_of
        self._scores = {}  # {part: scores}
        self._pictures = {'validation': [], 'test': []}  # [(score, number, section, HTML)], in order
        self._counts, self._bytes = collections.Counter(), collections.Counter()  # by part

    def add(self, path, picture, probability, part='test'):
        """Score a picture, and add it to the page.

        path: of the picture.
        picture: uint8 [height, width, 3].
        probability: what Classes.select() gives of it, float32 [height, width] or [height, width, classes].
        part: 'test' or 'validation'.
        """
        score = metrics.scores_of(self.classes)
        if path in self._label_of:
            score.add(probability, kitti.read_label(self._label_of[path], picture.shape[:2], self.classes))
            self._scores[part] = self._scores.get(part, metrics.scores_of(self.classes)) + score
        title, value = next(iter(metrics.headline(score.summary()).items()))
        views = (('overlay', self.classes.paint(picture, probability)), ('photo', picture),
                 ('probability', self.classes.draw(probability)))
        button = _button(os.path.basename(path), '' if value is None else f'{title} {value:.3f}', views)
        section = 'Validation: the worst first' if part == 'validation' else f'Test {kitti.category(path)}'
        self._counts[part] += 1
        self._bytes[part] += len(button)
        kept = self._pictures[part]
        bisect.insort(kept, (2 if value is None else value, self._counts[part], section, button))
        while len(kept) > MAX_PICTURES or self._bytes[part] > MAX_BYTES:
            self._bytes[part] -= len(kept.pop()[-1])

    def format_scores(self):
        """A table of the scores as text, empty without labels."""
        scores = self._summaries()
        return metrics.format_table(list(scores.items())) if scores else ''

    def _summaries(self):
        return {part: self._scores[part].summary() for part in ('validation', 'test') if part in self._scores}

    def write(self, title, summary, settings, history):
        """Write the page, whole or not at all; returns its path.

        title, summary: texts.
        settings: {name: value}.
        history: that of a training.callback.Callback.

        Raises UserError if it cannot be written.
        """
        sections = []
        for part, pictures in self._pictures.items():
            for name in sorted({section for _, _, section, _ in pictures}):
                sections.append('<h2>{}</h2>\n<div class="pictures">\n{}</div>\n'.format(
                    html.escape(name), ''.join(button for _, _, section, button in pictures if section == name)))
            left_out = self._counts[part] - len(pictures)
            if left_out:
                sections.append(f'<p>{left_out} more {part} pictures, with higher scores if there are labels, are not '
                                'shown.</p>\n')
        with open(TEMPLATE, encoding='utf-8') as file:
            template = string.Template(file.read())
        text = template.substitute(
            title=html.escape(title), summary=html.escape(summary), charts=_charts(history),
            scores=_score_table({part: metrics.titled(summary) for part, summary in self._summaries().items()}),
            sections=''.join(sections), settings=''.join(_row('td', name, value) for name, value in settings.items()))
        path = os.path.join(self.folder, 'index.html')
        with written_whole(path) as file:
            file.write(text.encode('utf-8', 'replace'))
        return path


def _button(name, note, views):
    """The HTML of a picture, which shows the first of its views, [(name, uint8 picture)]."""
    images = ''.join('<img class="{}" {}loading="lazy" width="{}" height="{}" alt="{}" src="{}">'.format(
        view, 'hidden ' if number else '', image.shape[1], image.shape[0], view, _data_url(image))
                     for number, (view, image) in enumerate(views))
    return '<button class="picture" data-name="{0}" data-note="{1}">{2}{0} {1}</button>\n'.format(
        html.escape(name), note, images)


def _data_url(image):
    return 'data:image/jpeg;base64,' + base64.b64encode(imageio.imwrite('<bytes>', image, format='jpg')).decode()


def _row(kind, *cells):
    return '<tr>{}</tr>\n'.format(''.join(f'<{kind}>{html.escape(str(cell))}</{kind}>' for cell in cells))


def _score_table(scores):
    if not scores:
        return ''
    names = list(next(iter(scores.values())))
    rows = [_row('td', part, *('-' if values[name] is None else f'{values[name]:.4f}' for name in names))
            for part, values in scores.items()]
    return '<h2>Scores</h2>\n<div class="scroll"><table>{}{}</table></div>'.format(
        _row('th', '', *names), ''.join(rows))


def _charts(history):
    """The curves of the history, as SVG."""
    scored = [entry for entry in history if 'validation' in entry]
    charts = [_chart('cross entropy', history, [('training', [entry['cross_entropy'] for entry in history])])]
    if scored:
        charts.append(_chart('validation', scored, [
            (title, [metrics.headline(entry['validation'])[title] or 0 for entry in scored])
            for title in metrics.headline(scored[0]['validation'])]))
    return '\n'.join(charts)


def _chart(title, entries, curves):
    """An SVG of curves, [(name, values)], over the epochs of the entries."""
    epochs = [entry['epoch'] for entry in entries]
    values = np.concatenate([curve for _, curve in curves])
    low, high = values.min(), max(values.max(), values.min() + 1e-6)

    def x(epoch):
        return LEFT + (WIDTH - LEFT - RIGHT) * (epoch - epochs[0]) / max(epochs[-1] - epochs[0], 1)

    def y(value):
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    parts = []
    for value in np.linspace(low, high, 5):
        parts.append('<line class="grid" x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/>'
                     '<text x="{}" y="{:.1f}" text-anchor="end">{:.3f}</text>'.format(
                         LEFT, WIDTH - RIGHT, LEFT - 5, y(value) + 4, value, y=y(value)))
    for epoch, anchor in {epochs[0]: 'start', epochs[-1]: 'start' if len(epochs) == 1 else 'end'}.items():
        parts.append(f'<text x="{x(epoch):.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">epoch {epoch}</text>')
    for (name, curve), style, legend in zip(curves, ('first', 'second'), (WIDTH / 2, WIDTH * 3 / 4)):
        points = [(x(epoch), y(value)) for epoch, value in zip(epochs, curve)]
        parts.append('<polyline class="{}" points="{}"/>'.format(
            style, ' '.join('{:.1f},{:.1f}'.format(*point) for point in points)))
        parts += ['<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="2"/>'.format(style, *point) for point in points]
        parts.append(f'<circle class="{style}" cx="{legend}" cy="12" r="4"/>'
                     f'<text x="{legend + 8}" y="16">{name}</text>')
    return '<svg viewBox="0 0 {} {}" role="img" aria-label="{title}"><text x="{}" y="16">{title}</text>{}</svg>'.format(
        WIDTH, HEIGHT, LEFT, ''.join(parts), title=title)
