"""The runs in a folder: the scores.json of each, what the one before had, and the list of all in index.html."""
import json
import os
import time
import urllib.parse
from typing import NamedTuple

from fcn8.errors import UserError
from fcn8.files import locked, read_json, written_whole
from fcn8.results import metrics, pages
from fcn8.settings import PUBLISHED, describe, read_saved


class Run(NamedTuple):
    """A run as others see it; one that has not finished, or is damaged, has no scores.

    ended: seconds since 1970; of a run without scores, when it last began.
    settings: {name: value}; those that an older version has not saved have their defaults.
    scores: {part: {title: float or None}}; the parts are training, and if there were labels validation and test.
    pictures: {part: digest of the pictures, labels and classes}.
    thumbnail: address of a picture that is part of the page, or None.
    """

    folder: str
    settings: dict
    ended: float
    scores: dict
    pictures: dict
    thumbnail: str

    @property
    def name(self):
        """That of the folder."""
        return os.path.basename(self.folder)

    @property
    def date(self):
        """When it ended, as text."""
        return time.strftime('%Y-%m-%d %H:%M', time.localtime(self.ended))

    @property
    def options(self):
        """The options other than recipe and epochs, as text."""
        return describe(self.settings)

    @property
    def page(self):
        """The address of its page, relative to the list; empty if it has none."""
        there = os.path.exists(os.path.join(self.folder, 'index.html'))
        return urllib.parse.quote(os.fsencode(self.name)) + '/index.html' if there else ''

    def iou(self, part):
        """The score of a part that decides which epoch is the best, None without one."""
        scores = self.scores.get(part, {})
        return scores.get('road IoU', scores.get('mean IoU'))

    def changes_to(self, later):
        """{setting: (its value in this run, its value in a later one)} where they differ."""
        return {name: (self.settings.get(name), value) for name, value in later.settings.items()
                if value != self.settings.get(name)}


def write_scores(folder, cross_entropy, scores, pictures, thumbnail):
    """Write scores.json of a run that has finished.

    cross_entropy: in training, of the epoch whose weights are used.
    scores: {part: summary() of metrics}.
    pictures, thumbnail: as in Run.
    """
    content = dict(ended=time.time(), cross_entropy=cross_entropy, scores=scores, pictures=pictures,
                   thumbnail=thumbnail)
    with written_whole(os.path.join(folder, 'scores.json')) as file:
        file.write(json.dumps(content, indent=2).encode())


def read(folder):
    """The Run in a folder, None if there is none."""
    try:
        settings = dict(PUBLISHED.saved(), **read_saved(folder)['settings'])
        began = os.path.getmtime(os.path.join(folder, 'settings.json'))
    except (UserError, OSError):
        return None
    unfinished = Run(folder, settings, began, {}, {}, None)
    try:
        content = read_json(os.path.join(folder, 'scores.json'))
        scores = {'training': {'cross entropy': content['cross_entropy']}}
        scores.update((part, metrics.titled(summary)) for part, summary in content['scores'].items())
        scores = {part: {title: None if value is None else float(value) for title, value in values.items()}
                  for part, values in scores.items()}
        time.localtime(float(content['ended']))  # raises an error if there is no such time
        if not content['thumbnail'].startswith('data:'):
            raise ValueError('it would be fetched from elsewhere')
        return Run(folder, settings, float(content['ended']), scores, dict(content['pictures']), content['thumbnail'])
    except (OSError, ValueError, OverflowError, LookupError, TypeError, AttributeError):
        return unfinished


def read_all(runs_dir):
    """The Runs in a folder, the last first."""
    folders = [entry.path for entry in os.scandir(runs_dir) if entry.is_dir(follow_symlinks=False)]
    return sorted(filter(None, map(read, folders)), key=lambda run: run.ended, reverse=True)


def before(run):
    """The last Run of the same folder before this one that has scores of the same pictures, with only those.

    Returns None if there is none.
    """
    for other in read_all(os.path.dirname(run.folder) or '.'):
        same = {part: scores for part, scores in other.scores.items()
                if (other.pictures.get(part), list(scores)) == (run.pictures.get(part), list(run.scores.get(part, ())))}
        if same and other.ended < run.ended:
            return other._replace(scores=same)
    return None


def write(runs_dir):
    """Write the list of the runs in a folder, its index.html, and print where it is; if that fails, why."""
    path = os.path.join(runs_dir, 'index.html')
    try:
        with locked(runs_dir or '.', wait=True):  # runs that end at the same time write one after the other
            if os.path.exists(path) and not pages.is_one(path):
                print(f'{path}: not written by this program, left unchanged')
                return
            pages.write(path, 'run_list.html', title='All runs', runs=read_all(runs_dir or '.'))
            print(f'All runs: {path}')
    except (OSError, UserError) as error:
        print(f'{path}: the list of all runs cannot be written ({error})')
