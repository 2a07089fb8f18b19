"""
What an installation looks like: from a wheel and editable, each in a virtual environment of its own.

Nothing is downloaded: the dependencies are copied from where the tests run.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input"]


def run(*words, check=True, **options):
    options = {"cwd": "/", "timeout": 300, "env": ENVIRONMENT, **options}
    result = subprocess.run(
        [str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    if check and result.returncode:
        raise AssertionError(f"{words} ended with {result.returncode}:\n{result.stdout}")
    return result.stdout


def needed(name, found):
    """Add the distributions that `name` cannot do without, itself included, to `found`."""
    name = re.sub(r"[-_.]+", "-", name).lower()
    if name in found:
        return
    try:
        found[name] = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return  # needed on other systems or by older Pythons
    for line in found[name].requires or ():
        if "extra ==" not in line:
            needed(re.match(r"[\w.-]+", line).group(), found)


class Environment:
    """A virtual environment with what mailplat needs and what else is named, and no mailplat."""

    def __init__(self, path, *more):
        self.path = Path(path)
        run(sys.executable, "-m", "venv", "--without-pip", self.path)
        self.python = self.path / "bin" / "python"
        self.site = Path(
            run(self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        )
        found = {}
        for requirement in (*metadata.requires("mailplat"), *more):
            if "extra ==" not in requirement:
                needed(re.match(r"[\w.-]+", requirement).group(), found)
        for distribution in found.values():
            self._copy(distribution)
        self.twistd = self.path / "bin" / "twistd"
        self.twistd.write_text(f"#!{self.python}\nfrom twisted.scripts.twistd import run\nrun()\n")
        self.twistd.chmod(0o755)

    def _copy(self, distribution):
        base = Path(distribution.locate_file(""))
        for file in distribution.files:
            if file.parts[0] in ("..", "/") or "__pycache__" in file.parts:
                continue
            target = self.site / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(base / file, target)

    def pip(self, *words):
        return run(*PIP, "--python", self.python, *words)

    def install(self, *words):
        self.pip("install", "--no-deps", "--no-index", "--no-build-isolation", *words)


class PackagingTestCase(SynchronousTestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = Path(tempfile.mkdtemp(prefix="mailplat-"))
        cls.addClassCleanup(shutil.rmtree, cls.directory)
        # Building leaves its traces in a copy.
        cls.project = cls.directory / "project"
        shutil.copytree(
            ROOT / "mailplat", cls.project / "mailplat", ignore=shutil.ignore_patterns("__pycache__")
        )
        plugins = cls.project / "twisted" / "plugins"
        plugins.mkdir(parents=True)
        for file in (ROOT / "twisted" / "plugins").glob("*.py"):
            shutil.copy(file, plugins)
        for name in ("setup.cfg", "pyproject.toml", "README.rst", "LICENSE"):
            if (ROOT / name).exists():
                shutil.copy(ROOT / name, cls.project)
        # Things that lie about in a working copy, and are no part of it.
        (cls.project / "mailplat-data").mkdir()
        (cls.project / "mailplat-data" / "stray.py").write_text("")
        (cls.project / "tests").mkdir()
        (cls.project / "tests" / "__init__.py").write_text("")
        cls.prepare()

    @classmethod
    def prepare(cls):
        """What a class needs besides."""

    @classmethod
    def build(cls):
        """The wheel."""
        run(
            *PIP, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", cls.directory, cls.project
        )
        (wheel,) = cls.directory.glob("mailplat-*.whl")
        return wheel

    def check_it_works(self, environment, *before, directory="/"):
        """`twistd mailplat` starts and serves from any directory, and `mailplat` is there."""
        text = run(*before, environment.twistd, "-n", "--pidfile=", "mailplat", "--help", cwd=directory)
        self.assertIn("--submission=", text)
        text = run(*before, environment.path / "bin" / "mailplat", "plugins", cwd=directory)
        self.assertRegex(text, r"(?m)^store +sqlite +mailplat \S")
        data = Path(tempfile.mkdtemp(prefix="mp-", dir="/tmp"))
        self.addCleanup(shutil.rmtree, data)
        process = subprocess.Popen(
            [
                *before,
                *(environment.twistd, "-n", "--pidfile=", "mailplat"),
                *("--data", data / "data", "--imap", "tcp:0:interface=127.0.0.1"),
            ],
            cwd=directory,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            seen = []
            for line in process.stdout:
                seen.append(line)
                if "first account" in line:
                    break
            else:
                self.fail("".join(seen))
            process.terminate()
            process.communicate(timeout=30)
            self.assertIn(process.returncode, (0, -signal.SIGTERM))
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


class RequirementsTests(SynchronousTestCase):
    def test_what_is_imported_is_asked_for(self):
        """What another package happens to bring along may be gone with its next version."""
        declared = set()
        for requirement in metadata.requires("mailplat"):
            if "extra ==" not in requirement:
                declared.add(re.match(r"[\w.-]+", requirement).group().replace("-", "_").lower())
        providers = metadata.packages_distributions()
        imported = set()
        for path in (ROOT / "mailplat").rglob("*.py"):
            if "testing" in path.relative_to(ROOT).parts:
                continue  # has an extra of its own
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    imported.add(node.module.partition(".")[0])
        for name in sorted(imported - sys.stdlib_module_names - {"mailplat"}):
            found = {provider.replace("-", "_").lower() for provider in providers[name]}
            # zope is a name that many share.
            self.assertTrue(found & declared or name == "zope", f"{name} is imported, and not asked for")


class WheelTests(PackagingTestCase):
    @classmethod
    def prepare(cls):
        cls.wheel = cls.build()
        cls.environment = Environment(cls.directory / "venv")
        cls.environment.install(cls.wheel)

    def test_what_is_in_it(self):
        with zipfile.ZipFile(self.wheel) as archive:
            names = set(archive.namelist())
        for name in (
            "twisted/plugins/mailplat_twistd.py",
            "twisted/plugins/mailplat_parts.py",
            "mailplat/py.typed",
        ):
            self.assertIn(name, names)
        # Twisted's own packages must stay Twisted's.
        self.assertNotIn("twisted/__init__.py", names)
        self.assertNotIn("twisted/plugins/__init__.py", names)
        modules = {str(path.relative_to(ROOT)) for path in (ROOT / "mailplat").rglob("*.py")}
        self.assertEqual(modules - names, set())
        tops = {name.partition("/")[0] for name in names}
        self.assertEqual({top for top in tops if not top.endswith(".dist-info")}, {"mailplat", "twisted"})

    def test_it_works_from_any_directory(self):
        self.check_it_works(self.environment)

    def test_it_works_where_nothing_may_be_written(self):
        before = []
        if os.geteuid() == 0:
            # Root without its privileges: file modes count.
            before = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
            if not shutil.which("setpriv"):
                raise SkipTest("root may write everywhere, and there is no setpriv")
        plugins = self.environment.site / "twisted" / "plugins"
        (plugins / "dropin.cache").unlink(missing_ok=True)
        folders = [self.environment.site, *(p for p in self.environment.site.rglob("*") if p.is_dir())]
        for folder in folders:
            folder.chmod(0o555)
        try:
            probe = [*before, "touch", plugins / "probe"]
            self.assertNotEqual(subprocess.run(probe, stderr=subprocess.DEVNULL).returncode, 0)
            self.check_it_works(self.environment, *before)
            self.assertFalse((plugins / "dropin.cache").exists())
        finally:
            for folder in folders:
                folder.chmod(0o755)


class UninstallTests(PackagingTestCase):
    def test_twisted_stays_whole(self):
        environment = Environment(self.directory / "venv")

        def files():
            return {
                path
                for path in environment.site.rglob("*")
                if "__pycache__" not in path.parts and path.is_file()
            }

        before = files()
        environment.install(self.build())
        self.assertTrue((environment.site / "twisted" / "plugins" / "mailplat_twistd.py").exists())
        self.assertIn("mailplat", run(environment.twistd, "--help"))
        environment.pip("uninstall", "--yes", "mailplat")
        # The next twistd notices that the plugin is gone.
        self.assertNotIn("mailplat ", run(environment.twistd, "--help"))
        self.assertEqual(files() - {environment.site / "twisted" / "plugins" / "dropin.cache"}, before)


class EditableTests(PackagingTestCase):
    def test_it_works_from_any_directory(self):
        environment = Environment(self.directory / "venv", "setuptools", "wheel")
        environment.install("--editable", self.project)
        self.check_it_works(environment)
        self.check_it_works(environment, directory=self.project)
        # It is the project's own file that runs.
        where = run(environment.python, "-c", "import mailplat; print(mailplat.__file__)").strip()
        self.assertEqual(Path(where), self.project / "mailplat" / "__init__.py")
