#!/usr/bin/env python3
"""Kills the demo with SIGKILL again and again, resumes it to the end, and compares it with an undisturbed run.

Every second kill waits until a checkpoint is being written. After each one the history must be whole: no gap, no torn
line. Exit status 1 where it is not, or where the history at the end differs. With --processes N (TensorFlow 2) the
processes of all ranks are killed in turn.
"""
import argparse
import collections
import contextlib
import glob
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

MAIN = os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, 'main.py')
TOLERANCE = 1e-4  # of the cross entropy of each epoch
TOLERANCE_OF_SEVERAL = 2e-3  # which sum in another order each time


def start(arguments):
    return subprocess.Popen([sys.executable, MAIN] + arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(arguments):
    process = start(arguments)
    errors = process.communicate()[1].decode()
    if process.returncode:
        sys.exit(f'exit status {process.returncode}: {errors[-500:]}')


def history(run):
    """The entries of the finished epochs."""
    with open(os.path.join(run, 'history.jsonl')) as file:
        entries = [json.loads(line) for line in file]
    if [entry['epoch'] for entry in entries] != list(range(1, len(entries) + 1)):
        sys.exit(f'{run}: a gap in the history')
    return entries


def find(process, rank):
    """The id of the process of this rank that --processes has started; None where all has ended."""
    while process.poll() is None:
        for path in glob.glob('/proc/[0-9]*/environ'):
            with contextlib.suppress(OSError), open(path, errors='replace') as file:
                found = file.read()
                if f'FCN8_LAUNCHER={process.pid}\0' in found and f'"index": {rank}}}' in found:
                    return int(path.split('/')[2])
    return None


def kill(process, folder, delay, while_saving, rank=None):
    """Wait for the moment, and kill; returns what the process was at, None where it had ended.

    rank: of the process to kill, None where there is one.
    """
    victim = process.pid if rank is None else find(process, rank)
    def scratch():
        return set(glob.glob(os.path.join(folder, '[0-9]*', 'checkpoints', '.fcn8-scratch-*')))
    left_by_others = scratch()
    deadline = time.time() + delay
    while time.time() < deadline and process.poll() is None:
        time.sleep(0.001)
    deadline = time.time() + 10

    while while_saving and scratch() <= left_by_others and time.time() < deadline and process.poll() is None:
        pass
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(victim, signal.SIGKILL)
    errors = process.stderr.read().decode()
    if process.wait() == 0:
        return None
    if process.returncode != (-signal.SIGKILL if rank is None else 128 + signal.SIGKILL):
        sys.exit(f'exit status {process.returncode}: {errors[-500:]}')
    if not glob.glob(os.path.join(folder, '[0-9]*', 'settings.json')):
        return 'what comes before the run has its folder'
    return 'starting, training or painting' if scratch() <= left_by_others else 'saving'


def kill_and_compare(demo, longest, expected, options):
    """Runs that are killed and resumed until there were enough kills and the last run has come to its end.

    Returns (number of runs, Counter of what the kills hit, largest difference of a cross entropy from the expected).
    """
    found, runs, difference, chance = collections.Counter(), 0, 0., random.Random(options.seed)
    ranks = itertools.cycle(range(options.processes) if options.processes > 1 else [None])
    processes = ['--processes', str(options.processes)] if options.processes > 1 else []
    while sum(found.values()) < options.kills:
        with tempfile.TemporaryDirectory() as folder:
            arguments = demo + ['--runs-dir', folder]
            while sum(found.values()) < options.kills:
                process = start(arguments)
                hit = kill(process, folder, chance.uniform(0, longest), sum(found.values()) // 2 % 2, next(ranks))
                if hit is None:
                    break
                found[hit] += 1
                for path in glob.glob(os.path.join(folder, '[0-9]*', 'history.jsonl')):
                    epochs = len(history(os.path.dirname(path)))
                    print(f'kill {sum(found.values())}: {epochs} epochs are done', flush=True)
                for path in glob.glob(os.path.join(folder, '[0-9]*', 'settings.json')):
                    arguments = ['--resume', os.path.dirname(path)] + processes
            else:
                finish(arguments)
            got = history(os.path.join(folder, 'latest'))
        if len(got) != len(expected):
            sys.exit(f'{len(got)} epochs instead of {len(expected)}')
        runs += 1
        difference = max([difference] + [abs(ours['cross_entropy'] - theirs['cross_entropy'])
                                         for ours, theirs in zip(got, expected)])
    return runs, found, difference


def main():
    parser = argparse.ArgumentParser(description='Kill the demo again and again, and compare it with a whole one.')
    parser.add_argument('--kills', type=int, default=20, metavar='N')
    parser.add_argument('--seed', type=int, default=0, metavar='N', help='of the moments')
    parser.add_argument('--freeze-encoder', action='store_true')
    parser.add_argument('--processes', type=int, default=1, metavar='N')
    options = parser.parse_args()
    if options.kills < 1 or options.processes < 1:
        parser.error('--kills and --processes must be at least 1')

    with tempfile.TemporaryDirectory() as folder:
        demo = ['--demo', '--data-dir', folder] + ['--freeze-encoder'] * options.freeze_encoder
        demo += ['--processes', str(options.processes)] if options.processes > 1 else []
        finish(demo + ['--runs-dir', os.path.join(folder, 'first'), '--epochs', '1'])  # draws the scenes
        begin = time.time()
        finish(demo + ['--runs-dir', os.path.join(folder, 'undisturbed')])
        seconds = time.time() - begin
        expected = history(*glob.glob(os.path.join(folder, 'undisturbed', '[0-9]*')))
        training = sum(entry['seconds'] for entry in expected)
        longest = seconds - training + 2 * training / options.kills  # so that the last kills still find it training
        runs, found, difference = kill_and_compare(demo, longest, expected, options)
    for moment, count in found.most_common():
        print(f'{count} kills while it was at {moment}')
    print(f'{runs} run(s) of {len(expected)} epochs: the cross entropy differs by {difference:.1e} at most from that '
          'of the undisturbed run')
    sys.exit(difference > (TOLERANCE if options.processes == 1 else TOLERANCE_OF_SEVERAL))


if __name__ == '__main__':
    main()
