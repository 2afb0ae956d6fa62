"""The pages as a person uses them, in headless Chromium, over its DevTools pipe; skipped where there is none."""
import base64
import json
import os
import re
import select
import shutil
import subprocess
import tempfile
import unittest

import imageio.v2 as imageio
import numpy as np

from fcn8.files import read_json
from fcn8.results import pages, run_list
from tests.support import TrainedCase, read, write

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
PATIENCE = 100  # seconds
KEYS = {'Escape': 27, 'Enter': 13, 'ArrowLeft': 37, 'ArrowUp': 38, 'ArrowRight': 39, 'ArrowDown': 40}


class Browser:
    """A tab of headless Chromium."""

    def __init__(self):
        self._profile = tempfile.mkdtemp()
        (read_commands, self._commands), (self._answers, write_answers) = os.pipe(), os.pipe()

        def place():  # where Chromium expects them; first out of the way of one another
            ends = os.dup(read_commands), os.dup(write_answers)
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        self._process = subprocess.Popen(
            [CHROMIUM, '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage',
             '--remote-debugging-pipe', '--user-data-dir=' + self._profile],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=place,
            pass_fds=(3, 4))
        os.close(read_commands)
        os.close(write_answers)
        self._buffer, self._number, self._session, self.events = b'', 0, {}, []
        target = self.send('Target.createTarget', url='about:blank')['targetId']
        self._session = dict(sessionId=self.send('Target.attachToTarget', targetId=target, flatten=True)['sessionId'])
        for domain in ('Page', 'Runtime', 'Network', 'Log'):
            self.send(domain + '.enable')

    def close(self):
        """End Chromium."""
        self._process.terminate()
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)
        shutil.rmtree(self._profile, ignore_errors=True)

    def _receive(self):
        while b'\0' not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], PATIENCE)
            part = ready and os.read(self._answers, 2 ** 20)
            if not part:
                raise RuntimeError('Chromium has ended' if ready else f'Chromium did not answer in {PATIENCE} s')
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b'\0')
        return json.loads(message.decode())

    def send(self, method, **parameters):
        """Send a command of the DevTools protocol; returns its result. What happens meanwhile goes to `events`."""
        self._number += 1
        message = json.dumps(dict(self._session, id=self._number, method=method, params=parameters))
        os.write(self._commands, message.encode() + b'\0')
        while True:
            answer = self._receive()
            if answer.get('id') == self._number:
                return answer['result']
            self.events.append(answer)

    def open(self, path, width=1280, dark=False):
        """Open a page in a window of that width, and wait until it is loaded."""
        self.events = []
        self.send('Emulation.setDeviceMetricsOverride', width=width, height=800, deviceScaleFactor=1,
                  mobile=width < 600)
        self.send('Emulation.setEmulatedMedia', features=[
            dict(name='prefers-color-scheme', value='dark' if dark else 'light')])
        self.send('Page.navigate', url='file://' + os.path.abspath(path))
        while not any(event['method'] == 'Page.loadEventFired' for event in self.events):
            self.events.append(self._receive())

    def get(self, expression):
        """The value of a JavaScript expression, or of its promise, once what has happened before has had its effect."""
        answer = self.send('Runtime.evaluate', awaitPromise=True, returnByValue=True, expression=(
            f'new Promise(resolve => setTimeout(resolve, 20)).then(() => {expression})'))
        if 'exceptionDetails' in answer:
            raise RuntimeError(answer['exceptionDetails']['exception'].get('description'))
        return answer['result'].get('value')

    def click(self, selector):
        """Click with the mouse on the middle of the first element that matches."""
        x, y = self.get(f'''(() => {{ const element = document.querySelector({json.dumps(selector)});
            element.scrollIntoView({{block: 'center'}}); const box = element.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2]; }})()''')
        for kind in ('mousePressed', 'mouseReleased'):
            self.send('Input.dispatchMouseEvent', type=kind, x=x, y=y, button='left', clickCount=1)

    def press(self, *keys):
        """Press keys one after the other."""
        for key in keys:
            code = KEYS.get(key, ord(key[0]))
            text = dict(text='\r') if key == 'Enter' else dict(text=key) if len(key) == 1 else {}
            self.send('Input.dispatchKeyEvent', type='keyDown', key=key, windowsVirtualKeyCode=code, **text)
            self.send('Input.dispatchKeyEvent', type='keyUp', key=key, windowsVirtualKeyCode=code)

    def brightness(self):
        """The mean of what is seen, from 0 to 255."""
        return imageio.imread(base64.b64decode(self.send('Page.captureScreenshot')['data']))[..., :3].mean()


VISIBLE = 'element => element.checkVisibility()'
NAMES = f"[...document.querySelectorAll('.picture')].filter({VISIBLE}).map(element => element.dataset.name)"
VIEWS = f"[...document.querySelectorAll('.picture img')].filter({VISIBLE}).map(element => element.dataset.view)"
# [name, view] of the picture that is shown large, false if there is none; an error if it cannot be decoded
IN_DIALOG = """(dialog => dialog.open && dialog.querySelector('img').decode().then(() => [
    dialog.querySelector('b').textContent, dialog.querySelector('img').alt.split(' ')[0]
]))(document.querySelector('dialog'))"""


@unittest.skipUnless(CHROMIUM, 'Chromium is not installed')
class Pages(TrainedCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.browser = Browser()

    @classmethod
    def tearDownClass(cls):
        cls.browser.close()

    def setUp(self):
        super().setUp()
        self.page = os.path.join(self.run_folder, 'index.html')

    def tearDown(self):
        """No page has raised an error, or asked for anything but itself."""
        events = self.browser.events
        self.assertEqual([event['params'] for event in events
                          if event['method'] in ('Runtime.exceptionThrown', 'Log.entryAdded')], [])
        asked = {event['params']['request']['url'].split(':')[0] for event in events
                 if event['method'] == 'Network.requestWillBeSent'}
        self.assertLessEqual(asked, {'file', 'data'})
        super().tearDown()

    def write_list(self):
        """Three more runs in the list, one of which is not finished."""
        for name, score in (('9', 0.95), ('10', 0.1), ('unfinished', None)):
            folder = shutil.copytree(self.run_folder, os.path.join('runs', name))
            path = os.path.join(folder, 'scores.json')
            content = read_json(path)
            content['scores']['test']['road_iou'] = score
            write(path, json.dumps(content).encode())
            if score is None:
                os.remove(path)
        run_list.write('runs')
        return os.path.join('runs', 'index.html')

    def write_predicted(self):
        """The page of pictures without labels and categories."""
        gallery = pages.Gallery()
        for name in 'ab':
            gallery.add(pages.encode(name + '.png', '', dict(Overlay=np.zeros((40, 500, 3), np.uint8))))
        return pages.write('predicted.html', 'predicted.html', galleries=[gallery], title='Pictures')

    def test_pictures_are_filtered_by_category(self):
        self.browser.open(self.page)
        everything = self.browser.get(NAMES)
        self.assertEqual(len(everything), 3)
        self.browser.get("document.querySelector('select').focus()")
        self.browser.press('ArrowDown')
        self.assertEqual(self.browser.get(NAMES), ['<b>&_0.png'])
        self.assertEqual(self.browser.get("document.querySelector('[role=status]').textContent"), '1 of 3 pictures')
        self.assertEqual(self.browser.get(f"[...document.querySelectorAll('section')].filter({VISIBLE}).length"), 1)
        self.browser.click('.picture:not([hidden])')
        self.browser.press('ArrowRight')  # to the only one
        self.assertEqual(self.browser.get(IN_DIALOG), ['<b>&_0.png', 'Errors'])
        self.browser.press('Escape')
        self.browser.get("document.querySelector('select').focus()")
        self.browser.press('ArrowUp')
        self.assertEqual(self.browser.get(NAMES), everything)

    def test_a_picture_is_opened_gone_through_and_closed(self):
        self.browser.open(self.page)
        first, second, last = self.browser.get(NAMES)
        self.browser.click('.picture')
        self.assertEqual(self.browser.get(IN_DIALOG), [first, 'Errors'])
        self.browser.press('ArrowRight', '4')
        self.assertEqual(self.browser.get(IN_DIALOG), [second, 'Prediction'])
        self.browser.press('ArrowLeft', 'ArrowLeft')
        self.browser.click('dialog [data-view=Picture]')
        self.assertEqual(self.browser.get(IN_DIALOG), [last, 'Picture'])
        self.browser.press('Escape')
        self.assertEqual(self.browser.get(IN_DIALOG), False)
        self.assertEqual(self.browser.get('document.activeElement.dataset.name'), last)
        self.assertEqual(self.browser.get(VIEWS), ['Picture'] * 3)
        self.browser.press('Enter')
        self.assertEqual(self.browser.get(IN_DIALOG), [last, 'Picture'])
        self.browser.click('dialog [data-close]')
        self.assertEqual(self.browser.get(IN_DIALOG), False)

    def test_all_pictures_change_their_view(self):
        self.browser.open(self.page)
        self.assertEqual(self.browser.get(VIEWS), ['Errors'] * 3)
        self.browser.click('[data-view=Overlay]')
        self.assertEqual(self.browser.get(VIEWS), ['Overlay'] * 3)
        self.assertEqual(self.browser.get("document.querySelector('.bar [aria-pressed=true]').textContent"), 'Overlay')

    def test_pictures_without_labels_and_categories(self):
        self.browser.open(self.write_predicted())
        self.browser.click('.picture')
        self.browser.press('ArrowRight')
        self.assertEqual(self.browser.get(IN_DIALOG), ['b.png', 'Overlay'])

    def test_the_list_is_sorted_by_any_column(self):
        self.browser.open(self.write_list())
        order = "[...document.querySelectorAll('tbody tr')].map(row => row.cells[2].textContent.trim())"
        self.assertEqual(set(self.browser.get(order)), {'1.5', '9', '10', 'unfinished'})
        self.browser.click('th:nth-child(3) button')
        self.assertEqual(self.browser.get(order), ['unfinished', '10', '9', '1.5'])
        self.browser.click('th:nth-child(8) button')
        highest_first = self.browser.get(order)
        self.assertEqual([name for name in highest_first if name != '1.5'], ['9', '10', 'unfinished'])
        self.browser.press('Enter')  # on the head that was clicked on
        self.assertEqual(self.browser.get(order), highest_first[2::-1] + ['unfinished'])
        self.assertEqual(self.browser.get("[...document.querySelectorAll('th')].map(head => head.ariaSort)"),
                         [None] * 7 + ['ascending'])

    def test_a_phone_needs_no_scrolling_sideways(self):
        """Nor are numbers broken into lines, with those of the run before beside them."""
        self.main('--epochs', '1', '--validation', '0.25')
        for path in (self.page, 'runs/latest/index.html', self.write_list(), self.write_predicted()):
            self.browser.open(path, width=360)
            self.browser.get("document.querySelectorAll('details').forEach(element => element.open = true)")
            self.assertEqual(self.browser.get('document.documentElement.scrollWidth'), 360, path)
            heights = self.browser.get("[...document.querySelectorAll('.cards td')].map(cell => cell.offsetHeight)")
            self.assertEqual([height for height in heights if height > 30], [], path)
        self.assertIn(b'Compared with run 1.5', read('runs/latest/index.html'))

    def test_dark_mode(self):
        for path in (self.page, self.write_list()):
            for dark in (False, True):
                self.browser.open(path, dark=dark)
                self.assertEqual(self.browser.brightness() < 90, dark)
                for text in self.browser.get(
                        "[...document.querySelectorAll('h1, svg text, th, th button')].map(element => "
                        "getComputedStyle(element)[element.matches('svg *') ? 'fill' : 'color'])"):
                    self.assertEqual(min(map(int, re.findall(r'\d+', text)[:3])) > 200, dark, text)

    def test_a_screen_reader_has_names_for_everything(self):
        for path in (self.page, self.write_list()):
            self.browser.open(path)
            nodes = self.browser.send('Accessibility.getFullAXTree')['nodes']
            named = [(node['role']['value'], node['name']['value']) for node in nodes if not node['ignored'] and
                     node['role']['value'] in ('button', 'image', 'combobox', 'link', 'table')]
            self.assertGreater(len(named), 5)
            self.assertEqual([role for role, name in named if not name.strip()], [])


if __name__ == '__main__':
    unittest.main()
