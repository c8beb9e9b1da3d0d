"""Python web applications: an application object that a server can be given, or a file that serves by itself."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, replace
from typing import Final

from openresource.builds.files import Files
from openresource.builds.findings import Finding
from openresource.builds.python_code import Source, calls_in, keyword_of, python_sources
from openresource.builds.python_packages import (
    asks_for,
    generated_requirements,
    packages_asked,
    python_wanted,
    requirements_file,
)

ASGI: Final = "asgi"
WSGI: Final = "wsgi"
# What makes an application, and the protocol by which a server speaks with it.
CONSTRUCTORS: Final = {
    "fastapi.FastAPI": ("FastAPI", ASGI), "fastapi.applications.FastAPI": ("FastAPI", ASGI),
    "starlette.applications.Starlette": ("Starlette", ASGI), "quart.Quart": ("Quart", ASGI),
    "litestar.Litestar": ("Litestar", ASGI), "blacksheep.Application": ("BlackSheep", ASGI),
    "falcon.asgi.App": ("Falcon", ASGI), "django.core.asgi.get_asgi_application": ("Django", ASGI),
    "flask.Flask": ("Flask", WSGI), "flask.app.Flask": ("Flask", WSGI), "apiflask.APIFlask": ("APIFlask", WSGI),
    "bottle.Bottle": ("Bottle", WSGI), "falcon.App": ("Falcon", WSGI), "falcon.API": ("Falcon", WSGI),
    "django.core.wsgi.get_wsgi_application": ("Django", WSGI), "pyramid.config.Configurator": ("", WSGI),
    "ninja.NinjaAPI": ("", WSGI),
}  # fmt: skip
FILE_NAMES: Final = (
    "main", "app", "server", "api", "asgi", "wsgi", "application", "web", "run", "service", "index", "__init__",
)  # fmt: skip
VARIABLE_NAMES: Final = ("app", "application", "api", "server", "asgi", "wsgi")
# Files that serve by themselves: what they call, and the port that they take unless they say another.
SELF_SERVING: Final = {
    "aiohttp.web.run_app": ("aiohttp", 8080),
    "uvicorn.run": ("uvicorn", 8000),
    "http.server.HTTPServer": ("http.server", 0),
    "http.server.ThreadingHTTPServer": ("http.server", 0),
    "socketserver.TCPServer": ("socketserver", 0),
    "wsgiref.simple_server.make_server": ("wsgiref", 8000),
    "waitress.serve": ("waitress", 8080),
    "cherrypy.quickstart": ("CherryPy", 8080),
    "cherrypy.engine.start": ("CherryPy", 8080),
    "tornado.httpserver.HTTPServer": ("Tornado", 8888),
    "tornado.web.Application": ("Tornado", 8888),
    "sanic.Sanic": ("Sanic", 8000),
    "bottle.run": ("Bottle", 8080),
    "robyn.Robyn": ("Robyn", 8080),
}
_BRINGS_UVICORN = re.compile(r"fastapi\[[a-z, ]*(?:all|standard)[a-z, ]*\]")
COLLECT_STATIC: Final = "python3 manage.py collectstatic --noinput"
PORT_CALLS: Final = (
    "listen",
    "run",
    "bind",
    "serve",
    "run_app",
    "start",
    "run_server",
    "launch",
    "make_server",
)


@dataclass(frozen=True, slots=True)
class _App:
    source: Source
    target: str
    framework: str
    protocol: str
    is_factory: bool


def detect_app(files: Files) -> Finding | None:
    """A FastAPI, Flask, Django … application object, given to its own server if it names one, else to ours."""
    sources = python_sources(files)
    apps = sorted((app for source in sources for app in _apps(source)), key=_rank)
    if not apps:
        return None
    app = apps[0]
    others = sorted(
        {f"{one.source.file} ({one.target})" for one in apps[1:] if one.source.file != app.source.file}
    )
    remarks: tuple[str, ...] = ()
    if others:
        remarks = (f"Other application objects were passed over: {', '.join(others[:4])}.",)
    return python_finding(
        files,
        sources,
        Finding(
            language="python",
            kind="http",
            because=f"{app.source.file} makes the {app.framework} application «{app.target}».",
            command=_server_command(files, app),
            environment={"PYTHONPATH": app.source.root} if app.source.root else {},
            remarks=remarks,
        ),
    )


def detect_self_serving(files: Files) -> Finding | None:
    """A Gradio or Streamlit page, or a file that opens a port itself when it is run."""
    sources = python_sources(files)
    for source in sources:
        finding = _page(source) or _own_server(source)
        if finding is not None:
            return python_finding(files, sources, finding)
    return None


def python_finding(files: Files, sources: list[Source], finding: Finding) -> Finding:
    """A finding with what every Python program needs: its packages and its Python."""
    root = finding.environment.get("PYTHONPATH", "")
    generated, remarks = generated_requirements(files, sources, root)
    if finding.kind == "http" and not finding.build_command and _has_static_files(files, sources):
        finding = replace(finding, build_command=COLLECT_STATIC)
    return replace(
        finding,
        requirements=finding.requirements or requirements_file(files, root) or next(iter(generated), ""),
        python=python_wanted(files),
        remarks=(*finding.remarks, *remarks),
        files={**finding.files, **generated},
    )


def _has_static_files(files: Files, sources: list[Source]) -> bool:
    """Whether a Django project collects its static files before it starts, as hosts of such projects do for it."""
    settings = [source for source in sources if source.file.endswith(("settings.py", "settings/base.py"))]
    return "manage.py" in files and any(
        isinstance(target, ast.Name) and target.id == "STATIC_ROOT"
        for source in settings
        for node in source.tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
    )


def _apps(source: Source) -> list[_App]:
    found: list[_App] = []
    for node in source.tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(node.value, ast.Call):
            continue
        made = CONSTRUCTORS.get(source.resolve(node.value.func), ("", ""))
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if made[0] and isinstance(target, ast.Name):
            found.append(_App(source, target.id, *made, is_factory=False))
    if found:
        return found
    for node in source.tree.body:
        if not isinstance(node, ast.FunctionDef) or _required(node) or "app" not in node.name.lower():
            continue
        for inner in ast.walk(node):
            if isinstance(inner, ast.Call):
                made = CONSTRUCTORS.get(source.resolve(inner.func), ("", ""))
                if made[0]:
                    found.append(_App(source, f"{node.name}()", *made, is_factory=True))
                    break
    return found


def _rank(app: _App) -> tuple[int, int, int, int, str]:
    stem = app.source.file.split("/")[-1].removesuffix(".py")
    return (
        1 if app.is_factory else 0,
        FILE_NAMES.index(stem) if stem in FILE_NAMES else len(FILE_NAMES),
        app.source.file.count("/"),
        VARIABLE_NAMES.index(app.target) if app.target in VARIABLE_NAMES else len(VARIABLE_NAMES),
        app.source.file,
    )


def _server_command(files: Files, app: _App) -> tuple[str, ...]:
    """The server that the project asks for, else the plain one that every sandbox has."""
    target = f"{app.source.dotted}:{app.target}"
    bare = target.removesuffix("()")
    if app.protocol == ASGI and (asks_for(files, "uvicorn") or _BRINGS_UVICORN.search(packages_asked(files))):
        factory = ("--factory",) if app.is_factory else ()
        return ("python", "-m", "uvicorn", bare, "--host", "127.0.0.1", "--port", "$PORT", *factory)
    if app.protocol == ASGI and asks_for(files, "hypercorn") and not app.is_factory:
        return ("python", "-m", "hypercorn", "--bind", "127.0.0.1:$PORT", bare)
    if app.protocol == WSGI and asks_for(files, "gunicorn"):
        return ("python", "-m", "gunicorn", "--bind", "127.0.0.1:$PORT", "--threads", "4", target)
    if app.protocol == WSGI and asks_for(files, "waitress") and not app.is_factory:
        return ("python", "-m", "waitress", "--listen=127.0.0.1:$PORT", bare)
    return ("python", "-m", "openresource_serving", target)


def _page(source: Source) -> Finding | None:
    if source.imports("streamlit") and not source.is_package:
        return Finding(
            "python",
            "http",
            f"{source.file} is a Streamlit page.",
            command=("python", "-m", "streamlit", "run", source.file, "--server.port", "$PORT", "--server.headless",
                     "true", "--browser.gatherUsageStats", "false"),
        )  # fmt: skip
    if source.imports("gradio") and any(isinstance(call.func, ast.Attribute) and call.func.attr == "launch"
                                        for call, _ in calls_in(source)):  # fmt: skip
        return Finding(
            "python",
            "http",
            f"{source.file} launches a Gradio page.",
            command=("python", source.file),
            port=_literal_port(source) or 7860,
            environment={"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_SERVER_NAME": "127.0.0.1"},
            memory="1Gi",
        )
    return None


def _own_server(source: Source) -> Finding | None:
    if not (source.has_main or source.file in ("main.py", "app.py", "server.py")):
        return None
    for _, name in calls_in(source):
        if name not in SELF_SERVING:
            continue
        said, default = SELF_SERVING[name]
        port = 0 if reads_port(source.text) else _literal_port(source) or default
        if port == 0 and not reads_port(source.text):
            continue
        words = f"the port {port}" if port else "the port that $PORT names"
        return Finding(
            "python",
            "http",
            f"{source.file} serves with {said} on {words}.",
            command=_run_command(source),
            port=port,
            environment={"PYTHONPATH": source.root} if source.root else {},
        )
    return None


def _run_command(source: Source) -> tuple[str, ...]:
    return ("python", "-m", source.dotted) if "." in source.dotted else ("python", source.file)


def reads_port(text: str) -> bool:
    """Whether a source takes its port from the environment."""
    return any(word in text for word in ('"PORT"', "'PORT'", "env.PORT", "$PORT", "${PORT", "ENV[:PORT]"))


def _literal_port(source: Source) -> int:
    """The port that a file names: as a keyword, in a call that listens, or as a constant called PORT."""
    for call, name in calls_in(source):
        port = keyword_of(call, "port") or keyword_of(call, "server_port")
        if is_port(port):
            return int(str(port))
        last = name.rpartition(".")[2] or (call.func.attr if isinstance(call.func, ast.Attribute) else "")
        if last in PORT_CALLS or last.endswith("Server"):
            for argument in ast.walk(call):
                if isinstance(argument, ast.Constant) and is_port(argument.value):
                    return int(str(argument.value))
    for node in source.tree.body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Constant)
            and is_port(node.value.value)
        ) and any(isinstance(target, ast.Name) and "port" in target.id.lower() for target in node.targets):
            return int(str(node.value.value))
    return 0


def is_port(value: object) -> bool:
    """Whether a constant can be a port that a plain user may open."""
    return type(value) is int and 1_024 <= value <= 65_535


def _required(function: ast.FunctionDef) -> bool:
    arguments = function.args
    return len(arguments.args) > len(arguments.defaults) or any(one is None for one in arguments.kw_defaults)
