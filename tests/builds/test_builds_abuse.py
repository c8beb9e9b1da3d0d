"""What a hostile build tries: to see this machine, to reach its network, to change what others get, to use it up."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import socket
import stat
import tarfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from openresource.builds.building import LOG_FILE
from openresource.builds.toolchains import ToolchainMissing, find_toolchain
from openresource.builds.trees import content_cid
from openresource.builds.workshop import BuildFailed, BuildLimits
from tests.builds.support import left_processes, local_registry, made, program, workshop

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(300)]
SECRET = "swordfish-of-the-operator"
MANIFEST = """
name = "attack"
[run]
kind = "cli"
command = ["sh", "run.sh"]
[build]
language = "any"
command = {command}
"""
SMALL = BuildLimits(
    seconds=5,
    memory_bytes=300 << 20,
    file_bytes=64 << 20,
    disk_bytes=48 << 20,
    processes=48,
    log_bytes=2 << 20,
)


def attack(folder: Path, script: str, **files: str) -> Path:
    """A program whose build is a Python script of the attacker's."""
    return program(
        folder / "program",
        {
            "openresource.toml": MANIFEST.format(command=json.dumps("python3 attack.py")),
            "attack.py": script,
            "run.sh": "true\n",
            **files,
        },
    )


def found(folder: Path, script: str) -> dict[str, object]:
    """What an attack has written down about itself."""
    head = "import json, os, socket, subprocess, sys\nfound = {}\n"
    tail = "\nopen('found.json', 'w').write(json.dumps(found))\n"
    built = made(attack(folder, head + script + tail), workshop(folder))
    result: dict[str, object] = json.loads((built.folder / "found.json").read_text())
    return result


def test_a_build_sees_no_secret_no_home_and_no_other_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_SECRET", SECRET)
    secret = tmp_path / "secret.txt"
    secret.write_text(SECRET)
    seen = found(
        tmp_path,
        f"""
def read(path):
    try:
        return open(path, 'rb').read().decode('utf-8', 'replace')
    except OSError as problem:
        return type(problem).__name__
found['files'] = [read(path) for path in ({str(secret)!r}, '/etc/shadow', '/proc/1/environ', '/proc/self/environ',
    {str(Path.home())!r} + '/.bash_history', '/root/.ssh/id_rsa', '/proc/1/cmdline')]
found['environment'] = sorted(os.environ)
found['home'] = os.path.expanduser('~')
found['processes'] = sum(name.isdigit() for name in os.listdir('/proc'))
found['homes'] = [os.path.exists(path) for path in ({str(Path.home())!r}, '/home', '/root', '/var/lib', {str(tmp_path)!r})]
found['uid'] = os.getuid()
""",
    )
    assert SECRET not in json.dumps(seen)
    assert "TEST_SECRET" not in str(seen["environment"])
    assert seen["home"] == "/build/home" and seen["uid"] == 65534
    assert isinstance(seen["processes"], int) and seen["processes"] < 10
    assert isinstance(seen["homes"], list) and not any(seen["homes"])


def test_a_build_reaches_registries_only(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as hidden:
        port = server.getsockname()[1]
        name = f"openresource-test-{os.getpid()}"
        hidden.bind("\0" + name)
        hidden.listen()
        seen = found(
            tmp_path,
            f"""
def direct(host, port):
    try:
        socket.create_connection((host, port), timeout=3).close()
        return 'reached'
    except OSError as problem:
        return 'refused'
def proxied(target, line=None):
    with socket.create_connection(('127.0.0.1', 3128), timeout=60) as wire:
        wire.sendall((line or f'CONNECT {{target}} HTTP/1.1').encode() + b'\\r\\n\\r\\n')
        return int(wire.recv(200).split()[1])
found['direct'] = [direct('127.0.0.1', {port}), direct('169.254.169.254', 80), direct('203.0.113.80', 443)]
found['proxied'] = [proxied(target) for target in ('127.0.0.1:{port}', 'localhost:{port}', 'example.org:443',
    '169.254.169.254:80', 'pypi.org:22', 'pypi.org.evil.test:443', '[::1]:{port}', '2130706433:{port}')]
found['plain'] = [proxied('', line) for line in ('GET http://127.0.0.1:{port}/ HTTP/1.1',
    'GET http://user@pypi.org:443@127.0.0.1:{port}/ HTTP/1.1', 'GET / HTTP/1.1')]
unix = socket.socket(socket.AF_UNIX)
try:
    unix.connect('\\0{name}')
    found['abstract'] = 'reached'
except OSError:
    found['abstract'] = 'refused'
""",
        )
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()
    assert seen["direct"] == ["refused"] * 3
    assert seen["proxied"] == [403] * 8
    assert isinstance(seen["plain"], list) and all(status in (400, 403) for status in seen["plain"])
    assert seen["abstract"] == "refused"


def test_a_failed_build_names_whom_it_may_not_reach(tmp_path: Path) -> None:
    script = "import urllib.request\nurllib.request.urlopen('http://tracker.example/x')\n"
    with pytest.raises(BuildFailed) as failure:
        made(attack(tmp_path, script), workshop(tmp_path))
    assert "tracker.example:80, which builds may not reach" in failure.value.message
    assert "HTTP Error 403" in failure.value.message
    assert not list((tmp_path / "cache" / "releases").iterdir())


def test_a_build_changes_nothing_but_its_own_result(tmp_path: Path) -> None:
    shop = workshop(tmp_path)
    honest = program(
        tmp_path / "honest",
        {"openresource.toml": MANIFEST.format(command='"echo honest > made.txt"'), "run.sh": "true\n"},
    )
    before = made(honest, shop)
    seen = found(
        tmp_path / "hostile",
        """
def tried(path, work):
    try:
        work(path)
        return 'done ' + path
    except OSError as problem:
        return ''
write = lambda path: open(path, 'w').write('poison')
found['written'] = [tried(path, write) for path in ('/usr/bin/poison', '/toolchain/poison', '/python/poison',
    '/dependencies/poison', '/app/build_guest.py', '/app/steps.json', '/guest/python_guest.py', '/egress/x', '/etc/passwd',
    '/poison', '/build/../poison')]
found['cache'] = [sorted(os.listdir('/build')), os.path.exists('/cache')]
found['mount'] = subprocess.run(['mount', '-t', 'tmpfs', 'x', '/mnt'], capture_output=True).returncode != 0
""",
    )
    assert seen["written"] == [""] * 11
    assert seen["mount"] is True
    assert seen["cache"] == [["home", "out", "tmp", "work"], False]
    again = made(honest, shop)
    assert again.is_cached and again.build_cid == before.build_cid == content_cid(again.folder)


def test_links_devices_and_papers_of_a_build_are_not_believed(tmp_path: Path) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("untouched")
    script = f"""
import os, socket
os.symlink('/etc/passwd', 'absolute')
os.symlink({str(victim)!r}, 'run2.sh')
os.symlink('../../../../../../etc/passwd', 'upwards')
os.symlink('run.sh', 'fine')
os.mkfifo('pipe')
socket.socket(socket.AF_UNIX).bind('sock')
os.remove('openresource.toml')
os.symlink({str(victim)!r}, 'openresource.toml')
os.symlink('/tmp', '.openresource')
os.mkdir('bin'); open('bin/tool', 'w').write('#!/toolchain/python/bin/python3\\n'); os.chmod('bin/tool', 0o6777)
os.mkdir('closed'); open('closed/in', 'w').write('x'); os.chmod('closed', 0)
open('new\\nline', 'w').write('x')
"""
    folder = attack(tmp_path, script)
    built = made(folder, workshop(tmp_path))
    content = built.folder
    names = {path.relative_to(content).as_posix() for path in content.rglob("*")}
    assert not names & {"absolute", "upwards", "run2.sh", "pipe", "sock"}
    assert (content / "fine").is_symlink() and (content / "closed" / "in").read_text() == "x"
    assert not (content / "openresource.toml").is_symlink()
    assert (content / "openresource.toml").read_bytes() == (folder / "openresource.toml").read_bytes()
    assert (content / ".openresource" / "sbom.json").is_file() and not (
        content / ".openresource"
    ).is_symlink()
    assert victim.read_text() == "untouched"
    for path in content.rglob("*"):
        status = path.lstat()
        assert status.st_uid == os.geteuid() and not status.st_mode & (stat.S_ISUID | stat.S_ISGID)
        if not path.is_symlink():
            assert not status.st_mode & 0o022, path
    assert (content / "bin" / "tool").read_text() == "#!/usr/bin/env python3\n"


ENDLESS = {
    "sleeps": ("import time\nprint('going to bed', flush=True)\ntime.sleep(600)\n", "took longer than 5 s"),
    "allocates": ("parts = []\nwhile True: parts.append(bytearray(20 << 20))\n", ""),
    "forks": ("import os, time\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        time.sleep(0.01)\n", ""),
    "writes": ("number = 0\nwhile True:\n    open(f'f{number}', 'wb').write(bytes(8 << 20)); number += 1\n", "wrote more than 48 MiB"),
    "writes one": ("with open('one', 'wb') as file:\n    while True: file.write(bytes(1 << 20))\n", ""),
    "talks": ("while True: print('la' * 400)\n", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDLESS)
def test_a_build_that_does_not_end_is_ended(tmp_path: Path, name: str) -> None:
    script, reason = ENDLESS[name]
    # Who is ended for what it wrote has the time to write it on a slow disk too.
    limits = replace(SMALL, seconds=60) if name == "writes" else SMALL
    before, began = left_processes(), time.monotonic()
    with pytest.raises(BuildFailed) as failure:
        made(attack(tmp_path, script), workshop(tmp_path, limits=limits))
    assert reason in failure.value.message
    assert time.monotonic() - began < 60
    assert not left_processes() - before
    assert not list((tmp_path / "cache" / "releases").iterdir()), "nothing half-made stays"


def test_what_a_build_leaves_running_ends_with_it(tmp_path: Path) -> None:
    script = "import subprocess\nsubprocess.Popen(['sleep', '600'], start_new_session=True)\nprint('left')\n"
    before = left_processes()
    built = made(attack(tmp_path, script), workshop(tmp_path))
    assert "left" in (built.folder.parent / LOG_FILE).read_text()
    assert not left_processes() - before


def _npm_package(name: str, scripts: dict[str, str]) -> bytes:
    page = json.dumps({"name": name, "version": "1.0.0", "license": "MIT", "scripts": scripts})
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path, text in (("package/package.json", page), ("package/index.js", "module.exports = 7;\n")):
            member = tarfile.TarInfo(path)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def test_packages_run_no_scripts_and_get_no_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        find_toolchain("npm")
    except ToolchainMissing as refusal:
        pytest.skip(refusal.message)
    home = tmp_path / "home"
    home.mkdir()
    with local_registry(monkeypatch) as registry:
        host = registry.address.removeprefix("http://")
        (home / ".npmrc").write_text(f"registry=http://me:{SECRET}@{host}/\n//{host}/:_authToken={SECRET}\n")
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.delenv("npm_config_registry", raising=False)
        archive = _npm_package("left", {"postinstall": "touch ../../../ran; echo RAN"})
        integrity = "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode()
        tarball = f"{registry.address}/left/-/left-1.0.0.tgz"
        version = {"name": "left", "version": "1.0.0", "dist": {"tarball": tarball, "integrity": integrity}}
        page = {"name": "left", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
        registry.pages["/left"] = ("application/json", json.dumps(page).encode())
        registry.pages["/left/-/left-1.0.0.tgz"] = ("application/octet-stream", archive)
        folder = program(
            tmp_path / "program",
            {
                "openresource.toml": 'name = "node-attack"\n[run]\nkind = "jsonl"\ncommand = ["node", "main.js"]\n',
                "package.json": json.dumps({"dependencies": {"left": "1.0.0"}}),
                "main.js": "console.log(require('left'));\n",
                ".npmrc": "ignore-scripts=false\nscript-shell=/bin/sh\n",
            },
        )
        built = made(folder, workshop(tmp_path))
    assert (built.folder / "node_modules" / "left" / "index.js").is_file()
    assert not list((tmp_path / "cache").rglob("ran"))
    assert registry.asked and not any("authorization" in headers for _, headers in registry.asked)
    assert not any(SECRET in json.dumps(headers) for _, headers in registry.asked)
    assert [part["name"] for part in built.sbom["components"]] == ["left"]


BACKEND = """
import os, pathlib, zipfile
def _spoil():
    for place in ("/dependencies", "/toolchain/python", "/usr/lib/python3", "/build/out/.."):
        try:
            (pathlib.Path(place) / "spoilt").write_text("x")
        except OSError:
            pass
    return os.environ.get("TEST_SECRET", "")
def build_wheel(folder, settings=None, metadata=None):
    name = "spoiler-1.0-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr("spoiler.py", f"secret = {_spoil()!r}")
        wheel.writestr("spoiler-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: spoiler\\nVersion: 1.0\\nLicense: MIT\\n")
        wheel.writestr("spoiler-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("spoiler-1.0.dist-info/RECORD", "")
    return name
"""


def _source_package() -> bytes:
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": BACKEND,
        "PKG-INFO": "Metadata-Version: 2.1\nName: spoiler\nVersion: 1.0\n",
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path, text in files.items():
            member = tarfile.TarInfo(f"spoiler-1.0/{path}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def _wheel(name: str, text: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as wheel:
        wheel.writestr(f"{name}.py", text)
        wheel.writestr(
            f"{name}-1.0.dist-info/METADATA",
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nLicense: MIT\n",
        )
        wheel.writestr(
            f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{name}-1.0.dist-info/RECORD", "")
    return buffer.getvalue()


def test_a_hostile_package_spoils_its_own_layer_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        find_toolchain("uv")
    except ToolchainMissing as refusal:
        pytest.skip(refusal.message)
    monkeypatch.setenv("TEST_SECRET", SECRET)
    shop = workshop(tmp_path)
    page = 'name = "{name}"\n[run]\nkind = "python"\nentry = "main:answer"\n'
    packages = {
        "spoiler-1.0.tar.gz": _source_package(),
        "honest-1.0-py3-none-any.whl": _wheel("honest", "value = 1\n"),
    }
    with local_registry(monkeypatch) as registry:
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"{registry.address}/simple")
        for file, data in packages.items():
            name = file.partition("-")[0]
            digest = hashlib.sha256(data).hexdigest()
            link = f'<a href="/files/{file}#sha256={digest}">{file}</a>'.encode()
            registry.pages[f"/simple/{name}/"] = ("text/html", link)
            registry.pages[f"/files/{file}"] = ("application/octet-stream", data)
        honest = program(tmp_path / "honest", {
            "openresource.toml": page.format(name="honest"), "requirements.txt": "honest==1.0\n",
            "main.py": "import honest\ndef answer() -> int:\n    return honest.value\n",
        })  # fmt: skip
        before = made(honest, shop)
        assert before.runtime is not None
        cid = content_cid(before.runtime.folder)
        hostile = program(tmp_path / "hostile", {
            "openresource.toml": page.format(name="hostile"), "requirements.txt": "spoiler==1.0\nhonest==1.0\n",
            "main.py": "import spoiler\ndef answer() -> str:\n    return spoiler.secret\n",
        })  # fmt: skip
        spoilt = made(hostile, shop)
        assert spoilt.runtime is not None and spoilt.runtime.folder != before.runtime.folder
        sites = [
            next(one.runtime.folder.glob("lib/*/site-packages")) for one in (before, spoilt) if one.runtime
        ]
        assert SECRET not in (sites[1] / "spoiler.py").read_text()
        assert not list((tmp_path / "cache").rglob("spoilt"))
        again = made(honest, shop)
        assert again.is_cached and again.runtime is not None
        assert content_cid(again.runtime.folder) == cid
        registry.pages.clear()
        # The cache alone is enough where no registry answers.
        shutil.rmtree(tmp_path / "cache" / "releases")
        assert made(honest, workshop(tmp_path)).runtime is not None


def test_what_a_record_says_of_a_failed_build_is_short_and_telling(tmp_path: Path) -> None:
    script = "print('x' * 900)\nprint('main.c:6:1: error: unknown type name')\nfor n in range(30): print('note', n)\nraise SystemExit(3)\n"
    with pytest.raises(BuildFailed) as failure:
        made(attack(tmp_path, script), workshop(tmp_path))
    assert failure.value.brief == (
        "The build of attack failed: a step ended with code 3. It said: main.c:6:1: error: unknown type name"
    )
    assert "note 29" in failure.value.message
