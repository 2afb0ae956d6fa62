"""Who may import whom, as fcn8/__init__.py says, and what may lie where: read from the source, without running it."""
import ast
import glob
import os
import re
import subprocess
import unittest

from tests.support import ROOT

PACKAGES = 'fcn8.data', 'fcn8.results', 'fcn8.training'
WITHOUT_TENSORFLOW = ('fcn8.settings', 'fcn8.errors', 'fcn8.files', 'fcn8.launcher', 'fcn8.processes', 'fcn8.lifeline',
                      'fcn8.memory', 'fcn8.command_line')
MOST_PARAMETERS = 8
STARTERS_SIGNATURES = 'train_nn', 'save_inference_samples'
TOP_LEVEL = (r'(main|helper|project_tests)\.py|requirements[\w-]*\.txt|README\.md|LICENSE|pyproject\.toml|data|runs|'
             r'docs|benchmarks|tests|fcn8|\..+')


def module_name(path):
    """fcn8.data.kitti of .../fcn8/data/kitti.py."""
    name = os.path.splitext(os.path.relpath(path, ROOT))[0].replace(os.sep, '.')
    return name[:-len('.__init__')] if name.endswith('.__init__') else name


def parse(*patterns):
    """{module: its syntax tree} of the files that match."""
    trees = {}
    for path in sorted(path for pattern in patterns
                       for path in glob.glob(os.path.join(glob.escape(ROOT), pattern), recursive=True)):
        with open(path, encoding='utf-8') as file:
            trees[module_name(path)] = ast.parse(file.read(), path)
    return trees


PRODUCT = parse('main.py', 'helper.py', 'project_tests.py', 'fcn8/**/*.py')
TESTS = parse('tests/*.py')


def imports(tree, lazy=True):
    """The modules that a file imports, and the names that it takes from them, as if each were a module.

    lazy: also those inside functions, which are imported when these are called.
    """
    found, remaining = set(), [tree]
    while remaining:
        node = remaining.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, 'this file knows no relative imports'
            found |= {node.module} | {f'{node.module}.{alias.name}' for alias in node.names}
        elif lazy or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            remaining += ast.iter_child_nodes(node)
    return found


def is_in(module, *packages):
    return any((module + '.').startswith(package + '.') for package in packages)


def module_of(name):
    """The module of the product that has an imported name; for another's name its package."""
    while name not in PRODUCT and '.' in name:
        name = name.rpartition('.')[0]
    return name


def loaded_with(module):
    """All modules of the product that are loaded with one of them, and the packages of others."""
    loaded, remaining = set(), {module}
    while remaining:
        name = module_of(remaining.pop())
        if name not in loaded:
            loaded.add(name)
            if name in PRODUCT:
                remaining |= imports(PRODUCT[name], lazy=False) | {name.rpartition('.')[0] or name}
    return loaded


class Imports(unittest.TestCase):
    def assert_imports_none_of(self, forbidden, modules, lazy=True):
        self.assertTrue(modules)
        for module in modules:
            wrong = {name for name in imports(PRODUCT[module], lazy) if is_in(name, *forbidden)}
            self.assertFalse(wrong, module)

    def modules_in(self, package):
        return [module for module in PRODUCT if is_in(module, package)]

    def test_the_package_imports_no_script(self):
        self.assert_imports_none_of(('main', 'helper', 'project_tests', 'tests', 'benchmarks'), self.modules_in('fcn8'))

    def test_data_imports_neither_results_nor_training(self):
        self.assert_imports_none_of(('fcn8.results', 'fcn8.training', 'fcn8.command_line'),
                                    self.modules_in('fcn8.data'))

    def test_results_import_no_training(self):
        self.assert_imports_none_of(('fcn8.training', 'fcn8.command_line'), self.modules_in('fcn8.results'))

    def test_training_does_not_import_the_command_line(self):
        self.assert_imports_none_of(('fcn8.command_line',), self.modules_in('fcn8.training'))

    def test_the_files_beside_the_subpackages_import_none_of_them(self):
        beside = [module for module in self.modules_in('fcn8') if not is_in(module, *PACKAGES)]
        self.assert_imports_none_of(PACKAGES + ('fcn8.command_line',), set(beside) - {'fcn8.command_line'})
        self.assert_imports_none_of(PACKAGES, ['fcn8.command_line'], lazy=False)
        self.assert_imports_none_of(('fcn8.training',), ['fcn8.command_line'])

    def test_a_command_line_is_parsed_without_tensorflow(self):
        for module in WITHOUT_TENSORFLOW:
            loaded = loaded_with(module)
            self.assertIn('fcn8', loaded)
            self.assertFalse({name for name in loaded if is_in(name, 'tensorflow', 'fcn8.tf1')}, module)

    def test_charts_cost_the_start_nothing(self):
        self.assertFalse({name for name in loaded_with('main') if is_in(name, 'matplotlib')})

    def test_tests_import_support_and_no_other_test(self):
        for module, tree in TESTS.items():
            shared = {name for name in imports(tree) if is_in(name, 'tests')} - {'tests'}
            self.assertFalse({name for name in shared if not is_in(name, 'tests.support')}, module)


class Size(unittest.TestCase):
    def test_parameters(self):
        too_many = []
        for module, tree in PRODUCT.items():
            for node in ast.walk(tree):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                    parameters = [part for part in ast.walk(node.args) if isinstance(part, ast.arg)]
                    if len(parameters) > MOST_PARAMETERS and getattr(node, 'name', None) not in STARTERS_SIGNATURES:
                        too_many.append(f'{module}, line {node.lineno}: {len(parameters)}')
        self.assertEqual(too_many, [])

    def test_top_level(self):
        if not os.path.exists(os.path.join(ROOT, '.git')):
            self.skipTest('not a git checkout')
        listed = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        if listed.returncode:
            self.skipTest('git cannot list the files')
        names = {path.split('/')[0] for path in listed.stdout.split('\0') if path}
        self.assertLessEqual({'main.py', 'helper.py', 'project_tests.py', 'fcn8'}, names)
        self.assertEqual({name for name in names if not re.fullmatch(TOP_LEVEL, name)}, set())


class Documentation(unittest.TestCase):
    def test_quoted_lines_stand_in_main(self):
        texts = {}
        for name in ('main.py', 'docs/fcn8.md'):
            with open(os.path.join(ROOT, name), encoding='utf-8') as file:
                texts[name] = file.read()
        quoted = re.findall(r'^```python\n(.*?)^```', texts['docs/fcn8.md'], re.MULTILINE | re.DOTALL)
        self.assertTrue(quoted)
        for lines in quoted:
            self.assertIn(lines, texts['main.py'])

    def test_each_row_of_a_table_is_a_line(self):
        for path in [os.path.join(ROOT, 'README.md')] + sorted(glob.glob(os.path.join(ROOT, 'docs', '*.md'))):
            with open(path, encoding='utf-8') as file:
                rows = [line.rstrip() for line in file if line.startswith('|')]
            self.assertEqual([row for row in rows if not row.endswith('|')], [], path)
