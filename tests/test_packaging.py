"""What is installed and how: requirements, Makefile, image, examples."""

import ast
import dataclasses
import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from opus_api import config

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ["requirements.txt", "requirements-dev.txt"]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def entries(lock: str) -> list[str]:
    """One string per requirement: the pin, with its hashes and the comments behind it."""
    return re.split(r"\n(?=[a-z0-9])", re.sub(r"\A(#.*\n)+", "", text(lock)).strip())


def pins(lock: str) -> dict[str, str]:
    found = [Requirement(entry.split("\\")[0]) for entry in entries(lock)]
    return {canonicalize_name(r.name): str(r.specifier) for r in found}


def wanted(source: str) -> list[tuple[str, str]]:
    """(name, reason) for each requirement that a person wrote."""
    lines = [line for line in text(source).splitlines() if re.match(r"[A-Za-z]", line)]
    return [
        (canonicalize_name(Requirement(line.partition("#")[0]).name), line.partition("#")[2].strip()) for line in lines
    ]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_is_pinned_and_hashed(lock):
    for entry in entries(lock):
        assert re.match(r"[a-z0-9._-]+==\S+ (; .+ )?\\\n", entry), entry.splitlines()[0]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry.splitlines()[0]


@pytest.mark.parametrize("lock", LOCKS)
def test_locked_files_name_no_index(lock):
    assert not re.search(r"https?://|file:|--(extra-)?index|--find-links|--trusted-host", text(lock))


@pytest.mark.parametrize("source, lock", [("requirements.in", LOCKS[0]), ("requirements-dev.in", LOCKS[1])])
def test_what_is_wanted_is_locked(source, lock):
    assert {name for name, _ in wanted(source)} <= pins(lock).keys()


def test_each_runtime_requirement_says_why_it_is_there():
    assert [name for name, reason in wanted("requirements.in") if len(reason.split()) < 2] == []


def test_at_most_sixty_packages_run_the_service():
    assert len(pins("requirements.txt")) <= 60


def test_tests_run_against_the_versions_that_the_service_runs_on():
    assert pins("requirements.txt").items() <= pins("requirements-dev.txt").items()


# What a third-party module that opus_api imports is called on PyPI, where the names differ.
DISTRIBUTION = {"dotenv": "python-dotenv", "jwt": "pyjwt", "psycopg2": "psycopg2-binary", "yaml": "pyyaml"}


def test_the_service_imports_nothing_that_only_tests_install():
    imported = set()
    for file in [*(ROOT / "opus_api").rglob("*.py"), *ROOT.glob("*.py")]:
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    assert {"flask", "sqlalchemy"} <= imported
    only_for_tests = pins("requirements-dev.txt").keys() - pins("requirements.txt").keys()
    distributions = {canonicalize_name(DISTRIBUTION.get(name, name)) for name in imported}
    assert distributions & only_for_tests == set()


# ---- Makefile


def make(*arguments: str, cwd: Path = ROOT, **environ: str) -> subprocess.CompletedProcess[str]:
    # This test may itself run below `make test`, whose flags are not meant for this make.
    outer = {k: v for k, v in os.environ.items() if not k.startswith("MAKE") and k != "MFLAGS"}
    return subprocess.run(
        ["make", *arguments], cwd=cwd, env=outer | environ, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with no .venv: what `make` sees on a fresh machine."""
    for name in ["Makefile", *LOCKS]:
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize("target", ["setup", "run", "test", "check", "fix", "bench", "tokens", "lock"])
def test_make_alone_lists_every_target(target):
    assert re.search(rf"^make {target} +\S", make().stdout, re.M)


def test_continuous_integration_runs_make_test():
    script = ROOT / ".ci/run"
    commands = [line for line in script.read_text().splitlines() if line and not line.startswith("#")]
    assert commands == ["set -e", 'cd "$(dirname "$0")/.."', "exec make test"]
    assert os.access(script, os.X_OK)


def fake_python(folder: Path, body: str) -> str:
    file = folder / "python3"
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)
    return str(file)


def test_an_old_python_is_refused_in_one_sentence(checkout):
    done = make("setup", cwd=checkout, PYTHON=fake_python(checkout, "exit 1"))
    assert done.returncode != 0
    assert done.stderr.splitlines()[0].startswith("Opus API needs Python 3.11 or newer")
    assert not (checkout / ".venv").exists()


def test_a_missing_venv_module_is_named_with_the_command_that_installs_it(checkout):
    python = fake_python(checkout, 'case "$2" in *ensurepip*) exit 1;; *version_info*) exit 0;; esac; exit 3')
    done = make("setup", cwd=checkout, PYTHON=python)
    assert done.stderr.splitlines()[0] == "Python's venv module is missing; type: apt-get install python3-venv"
    assert not (checkout / ".venv").exists()


def test_a_venv_whose_python_has_gone_is_made_again_and_requirements_are_installed_when_they_change(checkout):
    # An empty requirements file: pip really runs, but nothing is fetched.
    (checkout / "requirements.txt").write_text("# none\n")
    said = "Installing requirements ..."
    a_venv_whose_python_has_gone(checkout)
    assert make("-j4", "setup", cwd=checkout, PYTHON=sys.executable).stdout.splitlines() == [said]
    assert said not in make("setup", cwd=checkout, PYTHON=sys.executable).stdout
    written = (checkout / "requirements.txt").stat().st_mtime
    os.utime(checkout / ".venv/.runtime", (written - 1, written - 1))  # of a file from the future make would warn
    assert said in make("setup", cwd=checkout, PYTHON=sys.executable).stdout
    assert subprocess.run([checkout / ".venv/bin/python", "-c", "import pip"]).returncode == 0
    a_benchmark_that_is_not_there_is_one_sentence(checkout)


def a_venv_whose_python_has_gone(checkout: Path) -> None:
    """It is made again, by the rule that makes one where there is none."""
    (checkout / ".venv/bin").mkdir(parents=True)
    (checkout / ".venv/bin/python").symlink_to(checkout / "gone")


def a_benchmark_that_is_not_there_is_one_sentence(installed: Path) -> None:
    done = make("bench", "BENCH=nowhere", cwd=installed, PYTHON=sys.executable)
    assert done.returncode != 0
    assert done.stderr.splitlines()[0].startswith("The benchmark is not at nowhere; type: ")


# ---- Image


def hadolint() -> str:
    beside = Path(sys.executable).with_name("hadolint")
    return str(beside) if beside.exists() else "hadolint"


def test_the_dockerfile_is_clean():
    done = subprocess.run([hadolint(), "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def final_stage() -> str:
    return re.split(r"^FROM .*\n", text("Dockerfile"), flags=re.M)[-1]


@pytest.mark.parametrize(
    "line",
    [
        "USER 1000:1000",  # Hugging Face runs as uid 1000; a number lets Kubernetes see that it is not root
        "STOPSIGNAL SIGTERM",
        'CMD ["python", "wsgi.py"]',
        "EXPOSE 7860",
    ],
)
def test_the_image_runs_the_service_as_an_ordinary_user(line):
    assert line in final_stage().splitlines()


def test_the_image_installs_only_hashed_wheels():
    installs = [line for line in text("Dockerfile").splitlines() if re.search(r"\bpip\b.* install ", line)]
    assert len(installs) == 1
    assert "--require-hashes --only-binary=:all:" in installs[0]


def test_the_image_drains_before_docker_kills():
    """`docker stop` kills after 10 s."""
    (seconds,) = re.findall(r"GRACEFUL_TIMEOUT=(\d+)", final_stage())
    assert int(seconds) < 10


def healthcheck() -> str:
    (code,) = re.findall(r'CMD \["python", "-c", "(.+)"\]', final_stage())
    return code


@pytest.mark.parametrize("status, exit_code", [(200, 0), (503, 1)])
def test_the_health_check_asks_the_port_and_no_proxy(status, exit_code):
    serve = (
        "import http.server as h\n"
        "class H(h.BaseHTTPRequestHandler):\n"
        f"    def do_GET(s): s.send_response({status} if s.path == '/healthz' else 404); s.end_headers()\n"
        "server = h.HTTPServer(('127.0.0.1', 0), H); print(server.server_port, flush=True)\n"
        "server.handle_request()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", serve], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            port = server.stdout.readline().strip()
            environ = os.environ | {
                "PORT": port,
                "HTTP_PROXY": "http://127.0.0.1:9",
                "http_proxy": "http://127.0.0.1:9",
            }
            done = subprocess.run([sys.executable, "-c", healthcheck()], env=environ, timeout=20)
        finally:
            server.kill()
    assert done.returncode == exit_code


def test_no_secret_or_data_can_get_into_the_image():
    allowed = re.findall(r"^!(\S+)$", text(".dockerignore"), re.M)
    assert text(".dockerignore").splitlines()[1] == "*"
    assert not {".env", "data", "config.yaml", ".git", ".venv", "tests"} & set(allowed)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.parametrize("name", [".env", "config.yaml", "data/secret.key", "opus.db", ".venv/bin/python"])
def test_git_ignores_secrets_and_data(name, tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    shutil.copy(ROOT / ".gitignore", tmp_path)
    assert subprocess.run(["git", "check-ignore", "-q", name], cwd=tmp_path).returncode == 0


# ---- .env.example


def examples() -> dict[str, str]:
    return dict(re.findall(r"^#([A-Z_]+)=(.*)$", text(".env.example"), re.M))


def test_the_example_lists_exactly_the_settings_there_are():
    assert examples().keys() == {name for name, _, _ in config.documented()}


def test_the_example_as_it_is_changes_nothing(tmp_path):
    shutil.copy(ROOT / ".env.example", tmp_path / ".env")
    assert config.load(tmp_path, environ={}) == config.load(tmp_path / "empty", environ={})


# Shown without being the default: an example of the form, or a folder that is relative there.
FORMS = {"DATABASE_URL", "REDIS_URL", "DATA_DIR"}


def test_the_example_shows_the_defaults(tmp_path):
    shown = {name: value for name, value in examples().items() if name not in FORMS}
    with_the_example = config.load(tmp_path, environ=shown)
    assert with_the_example.given == {name for name, value in shown.items() if value}
    assert dataclasses.replace(with_the_example, given=frozenset()) == config.load(tmp_path, environ={})


def test_each_example_is_explained_in_the_line_above():
    lines = text(".env.example").splitlines()
    pairs = [(above, line) for above, line in pairwise(lines) if re.match("#[A-Z_]+=", line)]
    assert [line for above, line in pairs if not above.startswith("# ")] == []
