"""The list of all runs, runs/index.html, and which run another is compared with."""
import json
import os
import re
import threading

from fcn8 import files
from fcn8.results import metrics, run_list
from fcn8.settings import RECIPES, Settings
from tests.support import Case, cut, full_disk, read, write

THUMBNAIL = 'data:image/jpeg;base64,/9j/'
ROAD = dict(metrics.RoadScores(road=1, background=1).summary(), road_iou=0.75)


class Runs(Case):
    def add(self, name, ended=1e9, pictures='p', scores=None, **settings):
        """Write a run that has come to its end; returns its folder."""
        folder = self.path('runs', name)
        os.makedirs(folder)
        write(os.path.join(folder, 'settings.json'), json.dumps(dict(
            settings=Settings(**settings).saved(), made_with={}, about={}, changes=[])).encode())
        run_list.write_scores(folder, 0.25, dict(test=scores or ROAD), dict(test=pictures, training='t' + pictures),
                              THUMBNAIL)
        self.change(folder, ended=ended)
        return folder

    def change(self, folder, **changes):
        path = os.path.join(folder, 'scores.json')
        write(path, json.dumps(dict(files.read_json(path), **changes)).encode())

    def list(self):
        """The cells of each row of the list, as they are read."""
        run_list.write(self.path('runs'))
        rows = read(self.path('runs', 'index.html')).decode().split('<tr>')[2:]
        return [[re.sub('<.*?>', '', cell).strip() for cell in re.findall('<td(?s:.*?)</td>', row)] for row in rows]


class List(Runs):
    def test_the_last_run_comes_first_with_its_scores(self):
        self.change(self.add('older', ended=1e9), cross_entropy=7.5461e-5)
        self.add('newer', ended=2e9, recipe='tuned', augment=True, image_shape=(64, 96), **RECIPES['tuned'])
        os.symlink('newer', self.path('runs', 'latest'))
        newer, older = self.list()
        self.assertRegex(newer[1], r'^2033-05-1\d \d\d:\d\d$')
        self.assertEqual(newer[2:], ['newer', 'tuned --image-shape 64 96 --augment',
                                     str(RECIPES['tuned']['epochs']), '0.2500', '-', '0.7500'])
        self.assertEqual(older[2:6], ['older', 'published', '50', '7.55e-05'])
        self.assertIn(f'src="{THUMBNAIL}"', read(self.path('runs', 'index.html')).decode())

    def test_only_a_page_that_is_there_is_linked_to_and_names_are_escaped(self):
        folder = self.add('<b> "&#\udcff')
        self.list()
        self.assertNotIn('href="%3C', read(self.path('runs', 'index.html')).decode())
        write(os.path.join(folder, 'index.html'), b'')
        self.list()
        text = read(self.path('runs', 'index.html')).decode()
        self.assertIn('href="%3Cb%3E%20%22%26%23%FF/index.html"', text)
        self.assertNotIn('<b>', text)

    def test_settings_that_an_older_version_has_not_saved_have_their_defaults(self):
        folder = self.add('older')
        write(os.path.join(folder, 'settings.json'),
              b'{"settings": {"freeze_encoder": true}, "made_with": {}, "about": {}, "changes": []}')
        self.assertEqual(self.list()[0][2:5], ['older', 'published --freeze-encoder', '50'])

    def test_damaged_and_unfinished_runs_do_not_break_it(self):
        self.add('good', ended=2e9)
        os.makedirs(self.path('runs', 'empty'))
        write(self.path('runs', 'no settings', 'settings.json'), b'{')
        os.remove(os.path.join(self.add('unfinished'), 'scores.json'))
        cut(os.path.join(self.add('cut'), 'scores.json'))
        for number, changes in enumerate((
                dict(ended='soon'), dict(ended=1e300), dict(ended=None), dict(scores=[]), dict(scores=dict(test={})),
                dict(scores=dict(test=dict(ROAD, max_f='high'))), dict(pictures=3), dict(thumbnail=None),
                dict(thumbnail='http://127.0.0.1:9/'), dict(cross_entropy=[]))):
            self.change(self.add(f'damaged {number}'), **changes)
        rows = {row[2]: row for row in self.list()}
        self.assertEqual(rows.pop('good')[-1], '0.7500')
        self.assertEqual(set(rows), {'unfinished', 'cut'} | {f'damaged {number}' for number in range(10)})
        for row in rows.values():
            self.assertEqual((row[1], row[5:]), ('not finished', ['-', '-', '-']))
        self.assertNotIn('127.0.0.1', read(self.path('runs', 'index.html')).decode())

    def test_a_list_that_cannot_be_written_is_reported_and_the_old_one_stays(self):
        self.add('one')
        self.list()
        before = read(self.path('runs', 'index.html'))
        self.add('two')
        with full_disk(500):
            run_list.write(self.path('runs'))
        self.assertEqual(read(self.path('runs', 'index.html')), before)
        self.assertRegex(self.printed.getvalue().splitlines()[-1], 'index.html: the list of all runs cannot be written')

    def test_a_page_of_somebody_else_is_left_as_it_is(self):
        self.add('one')
        write(self.path('runs', 'index.html'), b'mine')
        run_list.write(self.path('runs'))
        self.assertEqual(read(self.path('runs', 'index.html')), b'mine')
        self.assertIn('left unchanged', self.printed.getvalue())

    def test_runs_that_end_at_the_same_time_take_turns(self):
        self.add('one')
        with files.locked(self.path('runs')):
            other = threading.Thread(target=run_list.write, args=[self.path('runs')])
            other.start()
            other.join(0.2)
            self.assertFalse(os.path.exists(self.path('runs', 'index.html')))
        other.join()
        self.assertTrue(os.path.exists(self.path('runs', 'index.html')))


class Before(Runs):
    def before(self, folder):
        return run_list.before(run_list.read(folder))

    def test_it_is_the_last_one_with_scores_of_the_same_pictures(self):
        self.add('first', ended=1)
        self.add('second', ended=2, epochs=8)
        self.add('other pictures', ended=3, pictures='q')
        self.change(self.add('other scores', ended=4, scores=metrics.ClassScores(['sky', 'road'], 1).summary()),
                    pictures=dict(test='p', training='q'))
        this = self.add('this', ended=5, augment=True)
        self.add('later', ended=6)
        before = self.before(this)
        self.assertEqual((before.name, before.scores['test']['road IoU']), ('second', 0.75))
        self.assertEqual(before.changes_to(run_list.read(this)), dict(epochs=(8, 50), augment=(False, True)))
        self.assertIsNone(self.before(self.path('runs', 'first')))

    def test_scores_of_other_pictures_are_not_compared(self):
        self.change(self.add('first', ended=1), pictures=dict(test='others', training='tp'))
        self.assertEqual(set(self.before(self.add('this', ended=2)).scores), {'training'})
