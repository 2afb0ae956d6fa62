"""The page of a run, index.html: its settings, curves and scores, and all its overlays, in one file without links.

page.html is its template.
"""
import base64
import html
import os
import string

import imageio.v2 as imageio
import numpy as np

import metrics
import safety

LARGEST = 1000  # pictures on a page
TEMPLATE = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'page.html')
WIDTH, HEIGHT = 420, 220  # of a chart, with margins for the numbers
LEFT, RIGHT, TOP, BOTTOM = 48, 10, 26, 24


class Page:
    """Collects the pictures of a run, and writes its page."""

    def __init__(self):
        self._sections = {}  # {title: [(score, name, HTML)]}
        self._left_out = 0

    def add(self, section, name, photo, overlay, probability, score=None):
        """Add a picture to the section of this title.

        photo, overlay: uint8 [height, width, 3].
        probability: what the network says, as a picture, uint8 [height, width] or [height, width, 3].
        score: (title, value) of a picture that is scored; a section stands in this order, the worst first.
        """
        if sum(map(len, self._sections.values())) == LARGEST:
            self._left_out += 1
            return
        note = '{} {:.3f}'.format(*score) if score else ''
        images = ''.join(
            '<img class="{}" {} width="{}" height="{}" alt="{}" src="{}">'.format(
                view, 'loading="lazy"' if view == 'overlay' else 'hidden loading="lazy"', photo.shape[1],
                photo.shape[0], view, _data_url(image))
            for view, image in (('overlay', overlay), ('photo', photo), ('probability', probability)))
        button = '<button class="picture" data-name="{0}" data-note="{1}">{2}{0} {1}</button>\n'.format(
            html.escape(name), note, images)
        self._sections.setdefault(section, []).append((score[1] if score else 2, name, button))

    def write(self, path, title, summary, settings, history, scores):
        """Write the page, whole or not at all.

        title, summary: texts.
        settings: {name: value}.
        history: recorder.Progress.history.
        scores: {row: {column: a float, or None}}.

        Raises safety.UserError where it cannot be written.
        """
        sections = ['<h2>{}</h2>\n<div class="pictures">\n{}</div>\n'.format(
            html.escape(name), ''.join(button for _, _, button in sorted(pictures)))
                    for name, pictures in self._sections.items()]
        if self._left_out:
            sections.append('<p>{} more pictures are in the folder of the run.</p>'.format(self._left_out))
        with open(TEMPLATE, encoding='utf-8') as file:
            template = string.Template(file.read())
        text = template.substitute(
            title=html.escape(title), summary=html.escape(summary), charts=_charts(history),
            scores=_score_table(scores), sections=''.join(sections),
            settings=''.join(_row('td', name, value) for name, value in settings.items()))
        with safety.written_whole(path) as file:
            file.write(text.encode('utf-8', 'replace'))


def _data_url(image):
    return 'data:image/jpeg;base64,' + base64.b64encode(imageio.imwrite('<bytes>', image, format='jpg')).decode()


def _row(kind, *cells):
    return '<tr>{}</tr>\n'.format(''.join('<{0}>{1}</{0}>'.format(kind, html.escape(str(cell))) for cell in cells))


def _score_table(scores):
    if not scores:
        return ''
    names = list(next(iter(scores.values())))
    rows = [_row('td', part, *('-' if values[name] is None else '{:.4f}'.format(values[name]) for name in names))
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
        parts.append('<text x="{:.1f}" y="{}" text-anchor="{}">epoch {}</text>'.format(
            x(epoch), HEIGHT - 8, anchor, epoch))
    for (name, curve), style, legend in zip(curves, ('first', 'second'), (WIDTH / 2, WIDTH * 3 / 4)):
        points = [(x(epoch), y(value)) for epoch, value in zip(epochs, curve)]
        parts.append('<polyline class="{}" points="{}"/>'.format(
            style, ' '.join('{:.1f},{:.1f}'.format(*point) for point in points)))
        parts += ['<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="2"/>'.format(style, *point) for point in points]
        parts.append('<circle class="{}" cx="{}" cy="12" r="4"/><text x="{}" y="16">{}</text>'.format(
            style, legend, legend + 8, name))
    return '<svg viewBox="0 0 {} {}" role="img" aria-label="{title}"><text x="{}" y="16">{title}</text>{}</svg>'.format(
        WIDTH, HEIGHT, LEFT, ''.join(parts), title=title)
