"""Java: a Maven or Gradle project or plain files, with a class that has main."""

from __future__ import annotations

import re
from typing import Final

from openresource.builds.detectors.python_apps import is_port, reads_port
from openresource.builds.files import Files, inner_project
from openresource.builds.findings import Finding

SOURCES_MAX: Final = 300
LISTED_CHARACTERS_MAX: Final = 600
SERVER_WORDS: Final = (
    "HttpServer.create", "SpringApplication.run", "Javalin.create", "Javalin.start", "Undertow.builder", "new Server(",
    "Vertx.vertx", "createHttpServer",
)  # fmt: skip
_MAIN = re.compile(
    r"\bstatic\s+(?:final\s+)?void\s+main\s*\(\s*(?:final\s+)?String\b|\bvoid\s+main\s*\(\s*\)\s*\{"
)
_PACKAGE = re.compile(r"^\s*package\s+([A-Za-z_][\w.]{0,200})\s*;", re.MULTILINE)
_PORT = re.compile(
    r"(?:InetSocketAddress\(\s*(?:\"[^\"]{0,40}\"\s*,\s*)?|\.start\(\s*|port\s*=\s*|PORT\s*=\s*)([1-9][0-9]{3,4})\b"
)
_GRADLE_PACKAGES = re.compile(r"^\s*(?:implementation|api|compile|runtimeOnly)\b", re.MULTILINE)


def detect_java(files: Files) -> Finding | None:
    """The class that a Java project starts."""
    sources = [
        name
        for name in files.ending(".java", depth_max=12)[:SOURCES_MAX]
        if "/test/" not in f"/{name}" and not name.endswith(("Test.java", "Tests.java"))
    ]
    mains = [
        name
        for name in sources
        if _MAIN.search(files.text(name))
        and not inner_project(files, name, "pom.xml", "build.gradle", "build.gradle.kts")
    ]
    if not mains:
        return None
    mains.sort(key=lambda name: (_rank(name), name.count("/"), name))
    main = mains[0]
    text = files.text(main)
    everything = "\n".join(files.text(name) for name in sources)
    package = _PACKAGE.search(text)
    stem = main.rpartition("/")[2].removesuffix(".java")
    class_name = f"{package[1]}.{stem}" if package is not None else stem
    is_spring = "SpringApplication.run" in everything
    is_server = any(word in everything for word in SERVER_WORDS)
    build, output, class_path, because = _how_built(files, main, sources)
    command: tuple[str, ...] = ("java", "-cp", class_path, class_name)
    port = 0
    if is_spring:
        command = (*command, "--server.port=$PORT")
    elif is_server and not reads_port(everything):
        match = _PORT.search(everything)
        port = int(match[1]) if match is not None and is_port(int(match[1])) else 8080
    others = list(mains[1:])
    remarks = [f"Other classes with main were passed over: {', '.join(others[:4])}."] if others else []
    if not build and "pom.xml" not in files:
        remarks.append("Gradle's wrapper is not run; the Gradle of the build machine is.")
    where = f"the port {port}" if port else "the port that it is told"
    return Finding(
        "java",
        "http" if is_server else "cli",
        f"{because} {class_name} has main" + (f" and serves on {where}." if is_server else "."),
        command=command,
        port=port,
        build_command=build,
        output=output,
        memory="1Gi" if is_spring else "512Mi",
        remarks=tuple(remarks),
    )


def _how_built(files: Files, main: str, sources: list[str]) -> tuple[str, tuple[str, ...], str, str]:
    """Build command where the recipe has none of its own, what it makes, the class path, and why."""
    if "pom.xml" in files:
        # In a project of several modules each has a target folder of its own.
        module = main.partition("src/main/java/")[0] if "src/main/java/" in main else ""
        class_path = f"{module}target/classes:{module}target/dependency/*"
        return "", (), class_path, "pom.xml is a Maven project."
    gradle = files.first("build.gradle", "build.gradle.kts")
    if gradle and _GRADLE_PACKAGES.search(files.text(gradle)):
        return "", (), "build/classes/java/main:build/resources/main", f"{gradle} is a Gradle project."
    folder = _source_root(files, main)
    inside = [name for name in sources if not folder or name.startswith(f"{folder}/")]
    listed = " ".join(f"'{name}'" for name in inside)
    if len(listed) > LISTED_CHARACTERS_MAX:
        listed = f"$(find '{folder or '.'}' -name '*.java' ! -path '*/test/*')"
    path = f" -sourcepath '{folder}'" if folder else ""
    return (
        f"javac -encoding UTF-8 -d classes{path} {listed}",
        ("classes",),
        "classes",
        f"{main} is plain Java.",
    )


def _source_root(files: Files, main: str) -> str:
    package = _PACKAGE.search(files.text(main))
    folder = main.rpartition("/")[0]
    if package is not None and folder.endswith(package[1].replace(".", "/")):
        return folder.removesuffix(package[1].replace(".", "/")).rstrip("/")
    return folder


def _rank(name: str) -> int:
    stem = name.rpartition("/")[2].removesuffix(".java").lower()
    if stem in ("main", "app", "application", "server"):
        return 0
    return 1 if stem.endswith(("application", "main", "server", "app")) else 2
