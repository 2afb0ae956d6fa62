#!/usr/bin/env python3
"""Kills the demo with SIGKILL again and again, resumes it to the end, and compares it with an undisturbed run.

Every second kill waits until a checkpoint is being written. After each one the history must be whole: no gap, no torn
line. Exit status 1 where it is not, or where the history at the end differs.
"""
import argparse
import collections
import glob
import json
import os
import random
import subprocess
import sys
import tempfile
import time

MAIN = os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, 'main.py')
TOLERANCE = 1e-4  # of the cross entropy of each epoch


def start(folder, arguments):
    return subprocess.Popen([sys.executable, MAIN] + arguments, cwd=folder, stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE)


def finish(folder, arguments):
    process = start(folder, arguments)
    errors = process.communicate()[1].decode()
    if process.returncode:
        sys.exit('exit status {}: {}'.format(process.returncode, errors[-500:]))


def history(run):
    """The entries of the finished epochs."""
    with open(os.path.join(run, 'history.jsonl')) as file:
        entries = [json.loads(line) for line in file]
    if [entry['epoch'] for entry in entries] != list(range(1, len(entries) + 1)):
        sys.exit('{}: a gap in the history'.format(run))
    return entries


def kill(process, folder, delay, while_saving):
    """Wait for the moment, and kill; returns what the process was at."""
    deadline = time.time() + delay
    while time.time() < deadline and process.poll() is None:
        time.sleep(0.001)
    deadline = time.time() + 10

    def saving():
        return glob.glob(os.path.join(folder, 'killed', '*', 'checkpoints', '.scratch-*'))
    while while_saving and not saving() and time.time() < deadline and process.poll() is None:
        pass
    process.kill()
    process.stderr.read()
    if process.wait() == 0:
        return 'nothing more: it had ended'
    if not glob.glob(os.path.join(folder, 'killed', '*', 'settings.json')):
        return 'what comes before the run has its folder'
    return 'saving' if saving() else 'starting, training or painting'


def main():
    parser = argparse.ArgumentParser(description='Kill the demo again and again, and compare it with a whole one.')
    parser.add_argument('--kills', type=int, default=20, metavar='N')
    parser.add_argument('--seed', type=int, default=0, metavar='N', help='of the moments')
    parser.add_argument('--freeze-encoder', action='store_true')
    options = parser.parse_args()
    moments, found = random.Random(options.seed), collections.Counter()

    with tempfile.TemporaryDirectory() as folder:
        demo = ['--demo', '--data-dir', '.'] + ['--freeze-encoder'] * options.freeze_encoder
        finish(folder, demo + ['--runs-dir', 'first', '--epochs', '1'])  # from here on the scenes are there
        begin = time.time()
        finish(folder, demo + ['--runs-dir', 'undisturbed'])
        seconds = time.time() - begin
        expected = history(*glob.glob(os.path.join(folder, 'undisturbed', '*')))
        training = sum(entry['seconds'] for entry in expected)
        longest = seconds - training + 2 * training / options.kills  # so that the last kills still find it training
        arguments = demo + ['--runs-dir', 'killed']
        for number in range(options.kills):
            process = start(folder, arguments)
            found[kill(process, folder, moments.uniform(0, longest), while_saving=number % 2)] += 1
            runs = glob.glob(os.path.join(folder, 'killed', '*', 'settings.json'))
            if runs:
                arguments = ['--resume', os.path.dirname(runs[0])]
            for path in glob.glob(os.path.join(folder, 'killed', '*', 'history.jsonl')):
                print('kill {}: {} epochs are done'.format(number + 1, len(history(os.path.dirname(path)))), flush=True)
        finish(folder, arguments)
        got = history(os.path.dirname(runs[0]))
        if len(got) != len(expected):
            sys.exit('{} epochs instead of {}'.format(len(got), len(expected)))
        difference = max(abs(ours['cross_entropy'] - theirs['cross_entropy']) for ours, theirs in zip(got, expected))
    for moment, count in found.most_common():
        print('{:3} kills while it was at {}'.format(count, moment))
    print('cross entropy of {} epochs: differs by {:.1e} at most from the undisturbed run'.format(
        len(got), difference))
    sys.exit(difference > TOLERANCE)


if __name__ == '__main__':
    main()
