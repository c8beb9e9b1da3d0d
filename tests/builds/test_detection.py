"""What folders are recognised as: one small folder for each sort of program, and hostile ones."""

from __future__ import annotations

import os
import subprocess
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openresource.builds.detection import ORDER, NothingFound, detect
from openresource.builds.detectors.cog import read_plain_yaml
from openresource.builds.detectors.node import exported_names
from openresource.builds.facts import facts_of
from openresource.builds.files import FILES_MAX, Files, folder_files, git_files, mapping_files
from openresource.builds.findings import Finding
from openresource.builds.licenses import license_of_text, license_of_word
from openresource.market.manifests import InvalidManifest, parse_manifest

MIT = "Permission is hereby granted, free of charge, to any person ... The above copyright notice and this permission notice shall be included"
POM = "<project><artifactId>x</artifactId><dependencies><dependency/></dependencies></project>"


def files_of(contents: dict[str, str | bytes], name: str = "my-tool") -> Files:
    """Files in memory, from texts; one that begins with #! is executable."""
    raw = {path: text.encode() if isinstance(text, str) else text for path, text in contents.items()}
    return mapping_files(name, raw, [path for path, content in raw.items() if content.startswith(b"#!")])


def run_of(contents: dict[str, str | bytes], name: str = "my-tool") -> dict[str, Any]:
    """The [run] table that is detected, with the language and what the build makes."""
    found = detect(files_of(contents, name))
    page = tomllib.loads(found.manifest_text)
    return {**page["run"], **{f"build.{key}": value for key, value in page.get("build", {}).items()}}


PYTHON_MAIN = "if __name__ == '__main__':\n    main()\n"
CASES: dict[str, tuple[dict[str, str | bytes], dict[str, Any]]] = {
    "fastapi with uvicorn": (
        {"main.py": "from fastapi import FastAPI\napp = FastAPI()\n", "requirements.txt": "fastapi\nuvicorn[standard]\n"},
        {"kind": "http", "command": ["python", "-m", "uvicorn", "main:app", "--host", "127.0.0.1", "--port", "$PORT"],
         "build.requirements": "requirements.txt", "build.language": "python"},
    ),
    "fastapi without a server": (
        {"app/main.py": "import fastapi\napi = fastapi.FastAPI()\n", "app/__init__.py": "", "requirements.txt": "fastapi"},
        {"kind": "http", "command": ["python", "-m", "openresource_serving", "app.main:api"]},
    ),
    "flask": (
        {"app.py": "from flask import Flask\napp = Flask(__name__)\nif __name__ == '__main__':\n    app.run(port=5000)\n"},
        {"kind": "http", "command": ["python", "-m", "openresource_serving", "app:app"],
         "build.requirements": "requirements.txt"},
    ),
    "flask with gunicorn and a factory": (
        {"shop/__init__.py": "from flask import Flask\ndef create_app(config=None):\n    return Flask(__name__)\n",
         "requirements.txt": "Flask==3.0\ngunicorn\n"},
        {"kind": "http", "command": ["python", "-m", "gunicorn", "--bind", "127.0.0.1:$PORT", "--threads", "4",
                                     "shop:create_app()"]},
    ),
    "starlette in a src folder": (
        {"src/svc/__init__.py": "", "src/svc/web.py": "from starlette.applications import Starlette as S\napp: S = S()\n",
         "pyproject.toml": "[project]\nname='svc'\ndependencies=['starlette']\n"},
        {"kind": "http", "command": ["python", "-m", "openresource_serving", "svc.web:app"],
         "environment": {"PYTHONPATH": "src"}, "build.requirements": "pyproject.toml"},
    ),
    "django": (
        {"manage.py": PYTHON_MAIN, "site1/__init__.py": "", "site1/settings.py": "",
         "site1/wsgi.py": "from django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()\n"},
        {"kind": "http", "command": ["python", "-m", "openresource_serving", "site1.wsgi:application"]},
    ),
    "aiohttp on its own port": (
        {"server.py": "from aiohttp import web\napp = web.Application()\nif __name__ == '__main__':\n    web.run_app(app, port=9090)\n"},
        {"kind": "http", "command": ["python", "server.py"], "port": 9090},
    ),
    "http.server on $PORT": (
        {"serve.py": "import os\nfrom http.server import HTTPServer, BaseHTTPRequestHandler\n" + PYTHON_MAIN
         + "HTTPServer(('', int(os.environ['PORT'])), BaseHTTPRequestHandler)\n"},
        {"kind": "http", "command": ["python", "serve.py"]},
    ),
    "gradio": (
        {"app.py": "import gradio as gr\ngr.Interface(fn=lambda x: x, inputs='text', outputs='text').launch()\n"},
        {"kind": "http", "port": 7860},
    ),
    "mcp tools": (
        {"server.py": "from mcp.server.fastmcp import FastMCP\nmcp = FastMCP('x')\n@mcp.tool()\ndef add(a: int, b: int) -> int:\n    return a + b\n"
         + "if __name__ == '__main__':\n    mcp.run()\n"},
        {"kind": "python", "entry": "server:add"},
    ),
    "argparse": (
        {"wc.py": "import argparse\ndef main():\n    argparse.ArgumentParser()\n" + PYTHON_MAIN},
        {"kind": "cli", "command": ["python", "wc.py"]},
    ),
    "click in a package": (
        {"tool/__init__.py": "", "tool/__main__.py": "import click\n@click.command()\ndef main(): ...\nmain()\n"},
        {"kind": "cli", "command": ["python", "-m", "tool"]},
    ),
    "console script": (
        {"pyproject.toml": "[project]\nname='tool'\n[project.scripts]\nmy-tool='tool.cli:main'\n", "tool/__init__.py": "",
         "tool/cli.py": "def main():\n    pass\n"},
        {"kind": "cli", "command": ["my-tool"], "environment": {"PYTHONPATH": "."}},
    ),
    "several console scripts": (
        {"setup.py": "from setuptools import setup\nNEEDS = ['rich>=10']\nsetup(install_requires=NEEDS, entry_points={'console_scripts': ["
                     "'one = tool.cli:main', 'two = tool.cli:other'] })", "tool/__init__.py": "", "tool/cli.py": "def main(): ...\n"},
        {"kind": "cli", "command": ["python", "openresource_commands.py"], "build.requirements": "requirements.txt"},
    ),
    "a command of setup.py": (
        {"setup.py": "entry_points={'console_scripts': ['my-tool = tool.cli:main'] }", "tool/__init__.py": "", "tool/cli.py": "def main(): ..."},
        {"kind": "cli", "command": ["python", "-c", "import sys; sys.argv[0] = 'my-tool'; from tool.cli import main; sys.exit(main())"]},
    ),
    "untyped library": (
        {"setup.py": "", "mytool/__init__.py": "", "mytool/mytool.py": "class Analyzer:\n    def __init__(self, path='x'): ...\n"
         "    def score(self, text): ...\nif __name__ == '__main__':\n    print()\n"},
        {"kind": "python", "entry": "mytool.mytool:Analyzer"},
    ),
    "an app in a folder with its own packages": (
        {"backend/app/__init__.py": "", "backend/app/main.py": "from fastapi import FastAPI\napp = FastAPI()\n",
         "backend/requirements.txt": "fastapi[standard]"},
        {"kind": "http", "build.requirements": "backend/requirements.txt", "environment": {"PYTHONPATH": "backend"}},
    ),
    "procfile of a compiled program": (
        {"Procfile": "web: bin/server -x", "go.mod": "module x", "main.go": "package main\nfunc main() {}\n"},
        {"kind": "http", "command": ["./bin/my-tool", "-x"], "build.language": "go"},
    ),
    "typed functions": (
        {"main.py": "def add(a: int, b: int = 1) -> int:\n    return a + b\ndef shout(text: str) -> str:\n    return text\n"},
        {"kind": "python", "entry": "main:*"},
    ),
    "typed class": (
        {"service.py": "class Service:\n    def setup(self): ...\n    def turn(self, text: str) -> str:\n        return text\n"},
        {"kind": "python", "entry": "service:Service"},
    ),
    "typed library": (
        {"texts/__init__.py": "from .core import slug\n", "texts/core.py": "def slug(text: str, sep: str = '-') -> str:\n    return text\n",
         "texts/other.py": "def x(a: int) -> int: ...\n", "setup.py": "import setuptools"},
        {"kind": "python", "entry": "texts.core:slug"},
    ),
    "plain script": ({"report.py": "print('hi')\n"}, {"kind": "cli", "command": ["python", "report.py"]}),
    "predict.py": (
        {"predict.py": "class Model:\n    def predict(self, text):\n        return text\n"},
        {"kind": "python", "entry": "predict:Model"},
    ),
    "cog": (
        {"cog.yaml": 'build:\n  gpu: false\n  python_version: "3.11"\n  python_packages:\n    - "torch==2.0"\n    - numpy\npredict: "predict.py:Predictor"\n',
         "predict.py": "from cog import BasePredictor\nclass Predictor(BasePredictor):\n    def predict(self, text: str) -> str: ...\n"},
        {"kind": "python", "entry": "predict:Predictor", "build.requirements": "requirements.cog.txt"},
    ),
    "procfile": (
        {"Procfile": "web: gunicorn app:app -b 0.0.0.0:$PORT --log-file -\nworker: celery\n", "app.py": "x = 1\n",
         "requirements.txt": "gunicorn"},
        {"kind": "http", "command": ["python", "-m", "gunicorn", "app:app", "-b", "127.0.0.1:$PORT", "--log-file", "-"]},
    ),
    "procfile with a shell": (
        {"Procfile": "web: cd src && node server.js", "package.json": "{}"},
        {"kind": "http", "command": ["sh", "-c", "cd src && node server.js"]},
    ),
    "dockerfile": (
        {"Dockerfile": 'FROM python:3.12\nCOPY . .\nRUN pip install -r requirements.txt\nENV MODE=fast API_TOKEN=x\nEXPOSE 8000\n'
         'CMD ["uvicorn", "api.web:app", "--host", "0.0.0.0", "--port", "80"]\n', "requirements.txt": "fastapi\nuvicorn",
         "api/__init__.py": "", "api/web.py": "from fastapi import FastAPI\napp = FastAPI()\n"},
        {"kind": "http", "command": ["python", "-m", "uvicorn", "api.web:app", "--host", "127.0.0.1", "--port", "$PORT"],
         "environment": {"MODE": "fast"}},
    ),
    "dockerfile of a compiled program": (
        {"Dockerfile": "FROM golang:1.22 AS b\nRUN go build -o /srv\nFROM scratch\nCOPY --from=b /srv /srv\nEXPOSE 8080\nENTRYPOINT [\"/srv\"]",
         "go.mod": "module x", "main.go": 'package main\nimport "net/http"\nfunc main() { http.ListenAndServe(":8080", nil) }'},
        {"kind": "http", "command": ["./bin/my-tool"], "port": 8080},
    ),
    "dockerfile of an image": (
        {"Dockerfile": f"FROM ghcr.io/some/tool@sha256:{'0a' * 32}\nEXPOSE 9000\n"},
        {"kind": "oci", "image": f"ghcr.io/some/tool@sha256:{'0a' * 32}", "speaks": "http", "port": 9000},
    ),
    "express": (
        {"package.json": '{"name": "x", "dependencies": {"express": "4"}, "scripts": {"start": "node server.js"}}',
         "server.js": "const app = require('express')();\napp.listen(3000);\n", "package-lock.json": "{}"},
        {"kind": "http", "command": ["node", "server.js"], "port": 3000, "build.language": "node"},
    ),
    "express on $PORT": (
        {"package.json": '{"main": "src/index.js", "dependencies": {"express": "4"}}',
         "src/index.js": "const s = require('./app'); s.listen(process.env.PORT || 3000);", "src/app.js": ""},
        {"kind": "http", "command": ["node", "src/index.js"]},
    ),
    "node command line": (
        {"package.json": '{"name": "@a/b", "bin": {"b": "./cli.js"}, "main": "index.js"}', "cli.js": "#!/usr/bin/env node\n"},
        {"kind": "cli", "command": ["node", "cli.js"]},
    ),
    "a package whose command is a shell script": (
        {"package.json": '{"name": "n", "bin": {"n": "bin/n"}}', "bin/n": "#!/usr/bin/env bash\necho\n"},
        {"kind": "cli", "command": ["bash", "bin/n"]},
    ),
    "node library": (
        {"package.json": '{"name": "b", "main": "index"}', "index.js": "exports.up = s => s;\nexports.down = s => s;\n"},
        {"kind": "jsonl", "command": ["node", "openresource-lines.mjs", "./index.js", "up"]},
    ),
    "node function": (
        {"package.json": '{"name": "b"}', "index.js": "module.exports = slugify\nfunction slugify(s) { return s }\n"},
        {"kind": "jsonl", "command": ["node", "openresource-lines.mjs", "./index.js", "slugify"]},
    ),
    "node function in a wrapper": (
        {"package.json": '{"name": "@x/slug-ify", "main": "slug.js"}', "slug.js": "(function (f) { module.exports = f() })(() => s => s)\n"},
        {"kind": "jsonl", "command": ["node", "openresource-lines.mjs", "./slug.js", "slug_ify"]},
    ),
    "a python app with page tools": (
        {"package.json": '{"devDependencies": {"tailwindcss": "3"}, "scripts": {"build": "x"}}',
         "app.py": "from flask import Flask\napp = Flask(__name__)\n"},
        {"kind": "http", "build.language": "python"},
    ),
    "grpc in python": (
        {"protos/echo.proto": "service Echo { rpc Say (A) returns (B); }", "server.py": "import grpc\ndef serve():\n    s = grpc.server(None)\n"
         "    s.add_insecure_port('[::]:50055')\n" + PYTHON_MAIN, "client.py": PYTHON_MAIN, "requirements.txt": "grpcio"},
        {"kind": "grpc", "proto": "protos/echo.proto", "port": 50055, "command": ["python", "server.py"]},
    ),
    "grpc in go": (
        {"go.mod": "module x", "echo.proto": "service Echo {}", "main.go": 'package main\nfunc main() { l, _ := net.Listen("tcp", ":6000")\n'
         "s := grpc.NewServer(); s.Serve(l) }"},
        {"kind": "grpc", "proto": "echo.proto", "port": 6000, "command": ["./bin/my-tool"]},
    ),
    "go server": (
        {"go.mod": "module example.org/x\n", "main.go": 'package main\nimport ("net/http"; "os")\nfunc main() { http.ListenAndServe(":"+os.Getenv("PORT"), nil) }\n'},
        {"kind": "http", "command": ["./bin/my-tool"], "build.output": ["bin/my-tool"], "build.language": "go",
         "build.command": "go build -trimpath -o bin/my-tool ."},
    ),
    "go command below cmd": (
        {"go.mod": "module x", "cmd/tool/main.go": "package main\nfunc main() {}\n", "lib.go": "package x\n"},
        {"kind": "cli", "command": ["./bin/cmd-tool"]} | {"command": ["./bin/tool"],
         "build.command": "go build -trimpath -o bin/tool ./cmd/tool"},
    ),
    "rust": (
        {"Cargo.toml": '[package]\nname = "grep-lite"\nlicense = "MIT"\n', "src/main.rs": "fn main() {}\n"},
        {"kind": "cli", "command": ["./bin/grep-lite"], "build.language": "rust"},
    ),
    "rust server": (
        {"Cargo.toml": '[package]\nname = "web"\n[dependencies]\naxum = "0.7"\n',
         "src/main.rs": 'fn main() { TcpListener::bind("0.0.0.0:3111"); }\n'},
        {"kind": "http", "port": 3111},
    ),
    "maven": (
        {"pom.xml": POM, "src/main/java/org/x/App.java": "package org.x;\npublic class App { public static void main(String[] args) {} }"},
        {"kind": "cli", "command": ["java", "-cp", "target/classes:target/dependency/*", "org.x.App"]},
    ),
    "maven of several modules": (
        {"pom.xml": POM, "core/pom.xml": POM, "core/src/main/java/Main.java": "class Main { static void main(String[] a) {} }"},
        {"kind": "cli", "command": ["java", "-cp", "core/target/classes:core/target/dependency/*", "Main"]},
    ),
    "cmake below": (
        {"CMakeLists.txt": "project(my-tool)\nadd_subdirectory(src)\n", "src/CMakeLists.txt": "add_executable(${PROJECT_NAME} main.c)\nadd_executable(unit_test x.c)",
         "src/main.c": "int main() {}"},
        {"kind": "cli", "command": ["./build/src/my-tool"]},
    ),
    "go without a module": (
        {"main.go": "package main\nfunc main() {}\n"}, {"kind": "cli", "command": ["./bin/my-tool"]},
    ),
    "plain java server": (
        {"Main.java": "class Main { public static void main(String[] a) { HttpServer.create(new InetSocketAddress(8000), 0); } }"},
        {"kind": "http", "port": 8000, "command": ["java", "-cp", "classes", "Main"], "build.output": ["classes"]},
    ),
    "makefile": (
        {"Makefile": "CC=cc\nBIN = tool\nall: $(BIN)\n$(BIN): main.o\n\t$(CC) -o $@ main.o\n", "main.c": "int main(void) { return 0; }"},
        {"kind": "cli", "command": ["./tool"], "build.language": "c"},
    ),
    "cmake": (
        {"CMakeLists.txt": "project(demo)\nadd_executable(demo src/main.cpp)\n", "src/main.cpp": "int main() {}"},
        {"kind": "cli", "command": ["./build/demo"]},
    ),
    "cmake with another name for its program": (
        {"CMakeLists.txt": "project(demo)\nadd_executable(demo_exe main.c)\nset_target_properties(demo_exe PROPERTIES\n  OUTPUT_NAME \"demo\")", "main.c": "int main() {}"},
        {"kind": "cli", "command": ["./build/demo"]},
    ),
    "plain c": (
        {"count.c": "int\nmain(int c, char **v) { return 0; }", "list.c": "int x;"},
        {"kind": "cli", "command": ["./bin/count"], "build.language": "c"},
    ),
    "shell": ({"run.sh": "#!/bin/bash\necho hi\n"}, {"kind": "cli", "command": ["bash", "run.sh"]}),
    "perl without an ending": ({"ack": "#!/usr/bin/env perl\nprint 1;\n"}, {"kind": "cli", "command": ["perl", "ack"]}),
    "awk": ({"sum.awk": "{ s += $1 } END { print s }\n"}, {"kind": "cli", "command": ["awk", "-f", "sum.awk"]}),
    "ruby": ({"x.rb": "puts 1\n"}, {"kind": "cli", "command": ["ruby", "x.rb"]}),
    "wasm": (
        {"tool.wasm": b"\0asm\1\0\0\0...wasi_snapshot_preview1.."},
        {"kind": "wasm", "module": "tool.wasm", "speaks": "cli"},
    ),
    "lone javascript": ({"index.js": "console.log(1)"}, {"kind": "cli", "command": ["node", "index.js"]}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_folder_is_recognised(case: str) -> None:
    contents, expected = CASES[case]
    found = run_of(contents)
    assert {key: found.get(key) for key in expected} == expected


@pytest.mark.parametrize("case", CASES)
def test_what_is_written_says_why_and_is_read_again(case: str) -> None:
    found = detect(files_of(CASES[case][0]))
    assert found.manifest_text.startswith(f"# {found.because}"[:100])
    assert found.because.endswith(".") or ":" in found.because
    assert parse_manifest(found.manifest_text).name == "my-tool"


def test_a_file_that_only_defines_is_its_function_and_no_command_that_does_nothing() -> None:
    only = {"tool.py": "import math\nTWO = 2\ndef double(x):\n    return x * TWO\n"}
    assert run_of(only) == {"kind": "python", "entry": "tool:double", "build.language": "python"}
    acts = {"tool.py": "def double(x):\n    return x * 2\nprint(double(2))\n"}
    assert run_of(acts)["kind"] == "cli"


def test_an_own_page_goes_before_everything() -> None:
    text = 'name = "x"\n[run]\nkind = "cli"\ncommand = ["./x"]\n'
    found = detect(files_of({"openresource.toml": text, "app.py": CASES["flask"][0]["app.py"]}))
    assert found.manifest_text == text
    with pytest.raises(InvalidManifest):
        detect(files_of({"openresource.toml": "kind = 3", "main.py": "print()"}))


def test_several_that_could_be_meant_are_named() -> None:
    found = detect(files_of({"a.sh": "#!/bin/sh\n", "b.sh": "#!/bin/sh\n"}))
    assert any("b.sh" in remark for remark in found.remarks)
    app = "from flask import Flask\napp = Flask(__name__)\n"
    found = detect(files_of({"main.py": app, "admin.py": app}))
    assert "main.py" in found.because
    assert any("admin.py" in remark for remark in found.remarks)


@pytest.mark.parametrize(
    "contents", [{}, {"README.md": "# hi"}, {"a.txt": "x", "b.bin": b"\0\1"}, {"x.h": "int main("}]
)
def test_nothing_found_names_the_lightest_way(contents: dict[str, str | bytes]) -> None:
    with pytest.raises(NothingFound) as refused:
        detect(files_of(contents))
    assert "main.py" in refused.value.way_out


def test_packages_are_read_from_imports_where_no_file_names_them() -> None:
    found = detect(files_of({"app.py": "import yaml, json\nimport helpers\nfrom flask import Flask\napp = Flask(__name__)\n",
                             "helpers.py": ""}))  # fmt: skip
    assert found.files == {"requirements.txt": b"flask\nPyYAML\n"}
    assert any("requirements.txt" in remark for remark in found.remarks)


def test_name_version_summary_and_licence_come_from_the_project() -> None:
    facts = facts_of(files_of({
        "pyproject.toml": '[project]\nname = "Fine_Tool"\nversion = "2.3.4"\nlicense = {file = "LICENSE"}\n',
        "LICENSE": MIT,
        "README.md": "# Fine\n\n[![x](y)](z)\n\nCounts **words** in [texts](http://x), fast.\nVery.\n\nMore.\n",
    }, name="Fine Tool!"))  # fmt: skip
    assert (facts.name, facts.version, facts.license) == ("fine-tool", "2.3.4", "MIT")
    assert facts.summary == "Counts words in texts, fast. Very."


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (MIT, "MIT"),
        ("Apache License\n  Version 2.0, January 2004", "Apache-2.0"),
        ("GNU GENERAL PUBLIC LICENSE\n Version 3, 29 June 2007", "GPL-3.0-only"),
        (
            "Mozilla Public License, version 2.0 ... Covered Software ... GNU Affero General Public License, Version 3.0",
            "MPL-2.0",
        ),
        ("GNU AFFERO GENERAL PUBLIC LICENSE Version 3", "AGPL-3.0-only"),
        ("Redistribution and use in source and binary forms ... Neither the name of", "BSD-3-Clause"),
        ("Redistribution and use in source and binary forms, with or without", "BSD-2-Clause"),
        ("Permission to use, copy, modify, and/or distribute this software for any purpose", "ISC"),
        ("All rights reserved.", ""),
    ],
)
def test_licences_are_recognised_by_their_words(text: str, name: str) -> None:
    assert license_of_text(text) == name


def test_programs_that_lie_deeper_are_named() -> None:
    with pytest.raises(NothingFound) as refused:
        detect(files_of({"package.json": "{}", "packages/a/package.json": "{}", "docs/b/package.json": "{}"}))
    assert "packages/a" in refused.value.remedy and "docs" not in refused.value.remedy
    assert "package.json" in refused.value.message
    main = "class Main { static void main(String[] a) {} }"
    with pytest.raises(NothingFound) as refused:
        detect(
            files_of(
                {"complete/pom.xml": POM, "complete/src/main/java/Main.java": main, "initial/pom.xml": POM}
            )
        )
    assert refused.value.facts["deeper"] == ["complete", "initial"]


@pytest.mark.parametrize(
    ("files", "packages"),
    [
        ({"setup.cfg": "[options]\ninstall_requires =\n    rich>=10\n    PyYAML\n\npackages = find:\n"}, "rich>=10\nPyYAML\n"),
        ({"pyproject.toml": '[tool.poetry.dependencies]\npython = "^3.9"\nhttpx = "^0.27.1"\nrich = {version = "~13.1", optional = false}\n'
          'x = {git = "y", optional = true}\n'}, "httpx>=0.27.1,<0.28\nrich>=13.1,<13.2\n"),
        ({"Pipfile": '[packages]\nflask = "*"\nrich = "==13.0"\n'}, "flask\nrich==13.0\n"),
    ],
)  # fmt: skip
def test_packages_are_read_from_where_projects_name_them(
    files: dict[str, str | bytes], packages: str
) -> None:
    found = detect(files_of({**files, "run.py": "if __name__ == '__main__':\n    pass\n"}))
    assert found.files == {"requirements.txt": packages.encode()}


@pytest.mark.parametrize(
    ("source", "openapi"),
    [
        ("from fastapi import FastAPI\napp = FastAPI()\n", None),
        ("from flask import Flask\napp = Flask(__name__)\n", "none"),
        ("from litestar import Litestar\napp = Litestar()\n", "/schema/openapi.json"),
    ],
)
def test_a_server_is_asked_for_its_document_only_if_it_seems_to_have_one(
    source: str, openapi: str | None
) -> None:
    assert run_of({"app.py": source}).get("openapi") == openapi


def test_the_server_that_a_procfile_starts_is_among_the_packages() -> None:
    found = detect(files_of({"Procfile": "web: gunicorn app:app\n", "setup.py": "setup(install_requires=['Flask'])",
                             "app.py": "from flask import Flask\napp = Flask(__name__)\n"}))  # fmt: skip
    assert found.files["requirements.txt"] == b"Flask\ngunicorn\n"


@pytest.mark.parametrize("page", ["Procfile", "Dockerfile"])
@pytest.mark.parametrize(
    "beside", [{"boot.sh": "#!/bin/sh\ntrue\n"}, {"package.json": '{"scripts": {"start": "webpack"}}'}]
)
def test_a_python_server_is_built_as_python_whatever_lies_beside_it(
    page: str, beside: dict[str, str | bytes]
) -> None:
    starts = {
        "Procfile": "web: gunicorn shop:app\n",
        "Dockerfile": 'CMD ["gunicorn", "-b", "0.0.0.0:$PORT", "shop:app"]\n',
    }
    run = run_of({page: starts[page], "shop.py": "from store import create\napp = create()\n",
                  "requirements.txt": "flask\ngunicorn\n", **beside})  # fmt: skip
    assert run["build.language"] == "python" and run["build.requirements"] == "requirements.txt"
    assert run["kind"] == "http" and run["command"][:3] == ["python", "-m", "gunicorn"]


def test_licences_are_recognised_by_their_names() -> None:
    assert license_of_word("Apache Software License") == "Apache-2.0"
    assert license_of_word("MIT OR Apache-2.0") == "MIT OR Apache-2.0"
    assert license_of_word("SEE LICENSE IN x") == ""


def test_plain_yaml_is_read_as_far_as_such_pages_go() -> None:
    read = read_plain_yaml("# x\na:\n  b: 'c'  \n  d:\n    - e: f\n    - g # h\n  i: [1, 2]\nj: k\n")
    assert read["a"]["b"] == "c"
    assert read["a"]["i"] == ["1", "2"]
    assert read["j"] == "k"


def test_exports_are_read() -> None:
    assert exported_names("module.exports = { a, b: c, ...d }") == ["a", "b"]
    assert exported_names("export function x() {}\nexport const y = (z) => z\nexport const n = 3\n") == [
        "x",
        "y",
    ]
    assert exported_names("export default function up(s) {}\nexport function down() {}") == ["up", "down"]
    assert exported_names("class Foo {}\nmodule.exports = Foo\n") == []


# -- hostile folders --------------------------------------------------------------------------------------------------

DEEP = "(" * 50_000
BOMBS: dict[str, dict[str, str | bytes]] = {
    "parentheses": {"main.py": f"x = {DEEP}", "run.sh": "#!/bin/sh\n"},
    "unary operators": {"main.py": "x = " + "-" * 100_000 + "1\n", "run.sh": "#!/bin/sh\n"},
    "attributes": {"main.py": "x = a" + ".b" * 80_000 + "()\n", "run.sh": "#!/bin/sh\n"},
    "additions": {"main.py": "x = 1" + "+1" * 60_000 + "\n", "run.sh": "#!/bin/sh\n"},
    "long elif": {"main.py": "if x:\n pass\n" + "elif x:\n pass\n" * 10_000, "run.sh": "#!/bin/sh\n"},
    "toml": {"pyproject.toml": "a = " + "[" * 100_000, "Cargo.toml": "x" + ".y" * 50_000 + "=1", "run.sh": "#!/bin/sh\n"},
    "json": {"package.json": '{"a":' * 100_000, "run.sh": "#!/bin/sh\n"},
    "json of other kinds": {"package.json": '{"scripts": 3, "bin": [], "main": {}, "dependencies": 1, "exports": [[]], "name": []}',
                            "run.sh": "#!/bin/sh\n"},
    "toml of other kinds": {"pyproject.toml": "project = 3\n[tool]\npoetry = [1]\n", "Cargo.toml": "package = 1\nbin = 'x'\n"
                            "workspace = {members = [1, '/etc', '../x', 'a/*']}", "run.sh": "#!/bin/sh\n"},
    "no utf-8": {"main.py": b"\xff\xfe\x00" * 100, "package.json": b"\xff" * 100, "run.sh": "#!/bin/sh\n"},
    "docker": {"Dockerfile": "FROM x\nCMD [" + "[" * 20_000 + "\nENV A\nEXPOSE\nENTRYPOINT '\n", "run.sh": "#!/bin/sh\n"},
    "procfile": {"Procfile": "web: '\n" * 1_000, "run.sh": "#!/bin/sh\n"},
    "yaml": {"cog.yaml": "a:\n" + "".join(" " * depth + "b:\n" for depth in range(400)), "run.sh": "#!/bin/sh\n"},
    "readme": {"README.md": "[" * 100_000 + "]" * 100_000, "run.sh": "#!/bin/sh\n"},
    "makefile": {"Makefile": "A=$(A)$(A)\nall: $(A)\n" + "x: y\n" * 10_000, "main.c": "int main() {}", "run.sh": "#!/bin/sh\n"},
    "java": {"A.java": "class A { void main( " * 10_000, "run.sh": "#!/bin/sh\n"},
    "exports": {"package.json": "{}", "index.js": "module.exports = {" + "a," * 100_000, "run.sh": "#!/bin/sh\n"},
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_hostile_files_cost_little_and_break_nothing(bomb: str) -> None:
    began = time.process_time()
    found = detect(files_of(BOMBS[bomb]))
    assert found.manifest_text
    assert time.process_time() - began < 10


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["main.py", "package.json", "Procfile", "Dockerfile", "cog.yaml", "go.mod", "main.go", "Makefile",
                         "main.c", "Cargo.toml", "pyproject.toml", "README.md", "LICENSE", "x.sh", "App.java", "setup.py"]),
        st.one_of(st.text(max_size=200), st.binary(max_size=200)),
        min_size=1,
    ),
    st.text(max_size=20),
)  # fmt: skip
def test_whatever_lies_there_is_recognised_or_refused(contents: dict[str, str | bytes], name: str) -> None:
    raw = {
        path: text.encode("utf-8", "replace") if isinstance(text, str) else text
        for path, text in contents.items()
    }
    try:
        found = detect(mapping_files(name, raw))
    except NothingFound:
        return
    assert parse_manifest(found.manifest_text)


def test_quotes_and_line_ends_in_names_do_not_break_the_page() -> None:
    found = detect(
        files_of(
            {"run.sh": "#!/bin/sh\n", "README.md": 'Says "hi"\x07 to\x7f \\ all of you\n'}, name='a"b\n[run]'
        )
    )
    assert parse_manifest(found.manifest_text).name == "a-b-run"


def test_links_are_not_followed_and_large_files_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("#!/bin/sh\n")
    folder = tmp_path / "program"
    folder.mkdir()
    (folder / "run.sh").symlink_to(tmp_path / "secret")
    (folder / "away").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.sh")
    with open(folder / "huge.py", "wb") as file:
        file.truncate(1 << 30)
    deep = folder
    for _ in range(30):
        deep = deep / "d"
    deep.mkdir(parents=True)
    (deep / "main.py").write_text("print(1)")
    files = folder_files(folder)
    assert files.names == ("huge.py",)
    assert files.bytes_of("huge.py") == b""
    assert files.is_cut
    with pytest.raises(NothingFound):
        detect(files)


def test_a_folder_with_very_many_files_is_cut() -> None:
    files = mapping_files("x", {f"f{number}": b"" for number in range(FILES_MAX + 5)})
    assert len(files.names) == FILES_MAX
    assert files.is_cut


def test_a_git_tree_is_read_without_checking_it_out(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "tool.sh").write_text("#!/bin/sh\necho hi\n")
    (folder / "tool.sh").chmod(0o755)
    (folder / "link").symlink_to("/etc/passwd")
    for words in (["init", "-q", "-b", "main"], ["add", "."],
                  ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "x"]):  # fmt: skip
        subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)
    files = git_files(folder / ".git", "main", name="tool")
    assert files.names == ("tool.sh",)
    assert detect(files).kind == "cli"
    with pytest.raises(Exception, match="no name of a commit"):
        git_files(folder, "--upload-pack=x")
    with pytest.raises(Exception, match="git does not find it"):
        git_files(folder, "nothing")


def test_a_page_that_cannot_be_written_leaves_the_folder_to_the_next(tmp_path: Path) -> None:
    odd = "Ma\u0301in " + "x" * 200 + ".java"
    found = detect(files_of({odd: "class A { static void main(String[] a) {} }", "run.sh": "#!/bin/sh\n"}))
    assert parse_manifest(found.manifest_text)


def test_languages_that_were_added_are_asked_last() -> None:
    def zig(files: Files) -> Finding | None:
        return (
            Finding("zig", "cli", "build.zig is there.", command=("./out",)) if "build.zig" in files else None
        )

    found = detect(files_of({"build.zig": ""}), [zig])
    assert found.language == "zig" and parse_manifest(found.manifest_text).build.language == "zig"
    assert detect(files_of({"build.zig": "", "run.sh": "#!/bin/sh\n"}), [zig]).language == "shell"


def test_the_order_is_documented_step_by_step() -> None:
    assert all(step.looks_for and step.becomes for step in ORDER)
    assert len({step.looks_for for step in ORDER}) == len(ORDER)
