"""Charts of a run's history as SVG, drawn by matplotlib, in the colours of the page around them."""
import io
import logging
import re

import numpy as np

from fcn8.results import metrics

SIZE = 4.4, 2.4  # inches of 72 pixels
MARKED = 20  # epochs, up to which each has a dot
# In the SVG each of these stands for what the page's style sheet says, in light and in dark mode.
COLOURS = {'#010101': 'currentColor', '#010102': 'var(--line)', '#010103': 'var(--accent)', '#010104': 'var(--second)'}
TEXT, GRID, FIRST, SECOND = COLOURS
STYLE = {'font.size': 10, 'text.color': TEXT, 'axes.edgecolor': GRID, 'axes.labelcolor': TEXT, 'xtick.color': TEXT,
         'ytick.color': TEXT, 'xtick.labelcolor': TEXT, 'grid.color': GRID, 'axes.grid': True,
         'axes.spines.top': False, 'axes.spines.right': False, 'legend.frameon': False,
         'svg.fonttype': 'none', 'svg.hashsalt': 'FCN-8'}  # text as text; the same SVG each time


def charts(history):
    """SVGs of cross entropy, scores in validation, if there are any, and learning rate over the epochs.

    history: that of a training.callback.Callback, at least one entry.
    """
    scored = [entry for entry in history if 'validation' in entry]
    headlines = [metrics.headline(entry['validation']) for entry in scored]
    drawn = [_chart('cross entropy in training', history,
                    {'cross entropy': [entry['cross_entropy'] for entry in history]}, logarithmic=True)]
    if scored:
        drawn.append(_chart('validation', scored, {
            title: [headline[title] for headline in headlines] for title in headlines[0]}))
    drawn.append(_chart('learning rate', history, {'learning rate': [entry['learning_rate'] for entry in history]}))
    return drawn


def _chart(title, entries, curves, logarithmic=False):
    """An SVG of curves, {name: [value or None]}, over the epochs of the entries."""
    # Here, since it takes a second: the start of the program does not need it.
    logging.getLogger('matplotlib').setLevel(logging.ERROR)  # it logs about its caches
    import matplotlib.style
    from matplotlib.figure import Figure
    from matplotlib.ticker import AutoLocator, LogLocator, MaxNLocator

    epochs = [entry['epoch'] for entry in entries]
    with matplotlib.style.context(['default', STYLE]):
        figure = Figure(figsize=SIZE, constrained_layout=True)
        axes = figure.add_subplot()
        axes.set_title(title, loc='left', fontsize=11)
        axes.set_xlabel('epoch')
        axes.xaxis.set_major_locator(MaxNLocator('auto', steps=(1, 2, 5, 10), integer=True, min_n_ticks=1))
        for (name, values), colour, line in zip(curves.items(), (FIRST, SECOND), ('-', '--')):
            axes.plot(epochs, np.array(values, float), line, color=colour, label=name, markersize=2.5,
                      marker='o' if len(epochs) <= MARKED else None)
        values = np.concatenate(list(curves.values()))
        if logarithmic and values.min() > 0:
            axes.set_yscale('log')
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if values.max() > 5 * values.min() else
                                         AutoLocator())
            axes.minorticks_off()
        axes.yaxis.set_major_formatter('{x:g}')
        if len(curves) > 1:
            figure.legend(loc='upper right', ncol=2, borderpad=0)
        file = io.StringIO()
        figure.savefig(file, format='svg', transparent=True,
                       metadata=dict.fromkeys(('Creator', 'Date', 'Format', 'Type')))
    return _embedded(file.getvalue(), f'{title}: ' + ', '.join(
        f'{name} from {_text(values[0])} after epoch {epochs[0]} to {_text(values[-1])} after epoch {epochs[-1]}'
        for name, values in curves.items()))


def _text(value):
    return '-' if value is None else f'{value:.4g}'


def _embedded(svg, description):
    """An SVG file as a part of an HTML page: without prologue, size and ids that are not referred to."""
    svg = re.sub(r' id="[\w.]+_\d+"', '', svg[svg.index('<svg'):])
    svg = re.sub('|'.join(COLOURS), lambda match: COLOURS[match.group()], svg)
    return re.sub('<svg .*?(viewBox=".*?").*?>', fr'<svg \1 role="img"><title>{description}</title>', svg, count=1)
