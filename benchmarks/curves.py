#!/usr/bin/env python3
"""Draws the cross entropy of runs side by side, from their history.jsonl:

    python benchmarks/curves.py docs/end-of-training.png "published=HISTORY" "clipped=runs/<time>/history.jsonl"
"""
import argparse
import json
import os

import matplotlib
matplotlib.use('Agg')  # writes files and needs no screen
from matplotlib import pyplot


def read_cross_entropies(path):
    """([epoch], [cross entropy]) of a history.jsonl."""
    with open(path, encoding='utf-8') as file:
        entries = [json.loads(line) for line in file]
    return [entry['epoch'] for entry in entries], [entry['cross_entropy'] for entry in entries]


def label_and_history(text):
    """For argparse: (label, path of the history.jsonl)."""
    label, _, path = text.rpartition('=')
    if not label or not os.path.isfile(path):
        raise argparse.ArgumentTypeError(f'{text} is not LABEL=HISTORY with a file that is there')
    return label, path


def draw(path, runs):
    """Write the curves to a PNG or SVG.

    runs: [(label, path of the history.jsonl)].
    """
    figure, axes = pyplot.subplots(figsize=(8, 4), dpi=100)
    for label, history in runs:
        axes.semilogy(*read_cross_entropies(history), marker='.', label=label)
    axes.set(xlabel='epoch', ylabel='cross entropy in training')
    axes.grid(True, which='both', alpha=0.3)
    axes.legend()
    figure.savefig(path, bbox_inches='tight')


if __name__ == '__main__':
    PARSER = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    PARSER.add_argument('picture', help='the file to write, .png or .svg')
    PARSER.add_argument('runs', nargs='+', metavar='LABEL=HISTORY', type=label_and_history,
                        help='a label and a history.jsonl')
    ARGUMENTS = PARSER.parse_args()
    draw(ARGUMENTS.picture, ARGUMENTS.runs)
