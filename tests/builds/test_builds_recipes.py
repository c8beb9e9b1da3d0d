"""What languages need: found on this machine or refused by name, from registries that its operator has chosen."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from openresource.builds import toolchains
from openresource.builds.building import SystemPackageMissing, check_system_packages
from openresource.builds.languages import LanguageUnknown, find_languages
from openresource.builds.prepared import base_names, base_runtime, base_toolchain
from openresource.builds.recipes import CannotBuild, Source
from openresource.builds.recipes.python import report_lock
from openresource.builds.registries import find_registry
from openresource.builds.sbom import Component, bill_of_materials, find_components
from openresource.builds.toolchains import Toolchain, ToolchainMissing
from openresource.sandbox.releases import load_manifest
from tests.builds.support import program

PAGE = 'name = "{name}"\n[run]\nkind = "{kind}"\n{run}\n[build]\n{build}\n'


def source(
    folder: Path, run: str, files: dict[str, str | bytes], kind: str = "jsonl", build: str = ""
) -> Source:
    page = PAGE.format(name="service", kind=kind, run=run, build=build)
    program(folder, {"openresource.toml": page, **files})
    return Source(folder, load_manifest(folder))


@pytest.mark.parametrize(
    ("run", "files", "language"),
    [
        ('command = ["./service"]', {"go.mod": "module x\n", "main.go": "package main\n"}, "go"),
        ('command = ["./service"]', {"Cargo.toml": "[package]\nname='x'\n"}, "rust"),
        ('command = ["./service"]', {"main.c": "int main;"}, "c"),
        ('command = ["./service"]', {"CMakeLists.txt": ""}, "c"),
        ('command = ["java", "Main"]', {"Main.java": ""}, "java"),
        ('command = ["node", "x.js"]', {"package.json": "{}", "x.js": ""}, "node"),
        ('command = ["python3", "x.py"]', {"requirements.txt": "six\n", "x.py": ""}, "python"),
        ('command = ["python3", "x.py"]', {"x.py": ""}, None),
        ('command = ["sh", "x.sh"]', {"x.sh": ""}, None),
        ('command = ["./service"]', {"service": "", "main.c": ""}, None),
    ],
)
def test_languages_are_told_by_command_and_files(
    tmp_path: Path, run: str, files: dict[str, str | bytes], language: str | None
) -> None:
    found = find_languages().of(source(tmp_path, run, files))
    assert (found.name if found else None) == language


def test_an_unknown_language_and_a_missing_toolchain_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LanguageUnknown) as unknown:
        find_languages().of(source(tmp_path / "a", 'command = ["./x"]', {}, build='language = "cobol"'))
    assert "python, node, go" in unknown.value.message
    monkeypatch.setenv("PATH", str(tmp_path))
    toolchains.maven.cache_clear()
    try:
        with pytest.raises(ToolchainMissing) as missing:
            toolchains.maven()
        assert "apt install maven" in missing.value.remedy
    finally:
        toolchains.maven.cache_clear()
    with pytest.raises(ToolchainMissing):
        find_languages().named("java").recipe.plan(
            source(tmp_path / "b", 'command = ["java", "X"]', {"build.gradle": "", "X.java": ""})
        )


def test_a_project_whose_version_is_its_history_is_told_the_releases(tmp_path: Path) -> None:
    project = '[build-system]\nrequires = ["hatchling", "hatch-vcs"]\n[project]\nname = "x"\ndynamic = ["version"]\n'
    found = source(tmp_path, 'entry = "x:f"', {"pyproject.toml": project, "src/x/__init__.py": ""}, "python")
    installs = find_languages().named("python").recipe.plan(found).steps[-1]
    told = dict(installs.environment)
    assert "--no-deps" in installs.words
    assert told["SETUPTOOLS_SCM_PRETEND_VERSION"] == told["PDM_BUILD_SCM_VERSION"] == found.manifest.version


@pytest.mark.parametrize("has_headers", [True, False])
def test_a_package_that_compiles_itself_finds_the_headers_of_this_machines_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_headers: bool
) -> None:
    prefix = tmp_path / "node"
    for name in ("bin/node", *(["include/node/node.h"] if has_headers else [])):
        (prefix / name).parent.mkdir(parents=True, exist_ok=True)
        (prefix / name).touch()
    tools = {name: Toolchain(name, "20.1.0", prefix / "bin/node") for name in ("node", "npm")}
    monkeypatch.setattr("openresource.builds.recipes.node.find_toolchain", tools.__getitem__)
    package = {"dependencies": {"fast": "1"}, "trustedDependencies": ["fast"]}
    files: dict[str, str | bytes] = {"package.json": json.dumps(package), "x.js": ""}
    found = source(tmp_path / "program", 'command = ["node", "x.js"]', files)
    layer = find_languages().named("node").recipe.plan(found).dependencies
    assert layer is not None
    rebuild = next(step for step in layer.steps if "rebuild" in step.words)
    assert dict(rebuild.environment).get("npm_config_nodedir") == (str(prefix) if has_headers else None)


def test_system_packages_are_asked_for_and_never_installed() -> None:
    if shutil.which("dpkg-query") is None:
        pytest.skip("this machine has no dpkg")
    check_system_packages(("dpkg",))
    with pytest.raises(SystemPackageMissing) as missing:
        check_system_packages(("dpkg", "no-such-package-as-this"))
    assert "apt install no-such-package-as-this" in missing.value.remedy


def test_what_cannot_be_built_says_why(tmp_path: Path) -> None:
    languages = find_languages()
    for number, (language, files) in enumerate(
        (("go", {"x.go": "package main"}), ("node", {"package.json": "[]"}), ("c", {"readme": ""}))
    ):
        folder = tmp_path / str(number)
        with pytest.raises((CannotBuild, ToolchainMissing)):
            languages.named(language).recipe.plan(source(folder, 'command = ["./x"]', dict(files)))


def test_registries_are_the_operators_without_credentials(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path)}
    assert find_registry("python", environment).hosts == ("pypi.org:443", "files.pythonhosted.org:443")
    program(tmp_path, {
        ".config/pip/pip.conf": "[global]\nindex-url = https://me:secret@mirror.example/simple\n",
        ".npmrc": "//npm.example/:_authToken=secret\nregistry=http://u:secret@npm.example:4873/\n",
        ".config/go/env": "GOPROXY=https://go.example|direct\n",
        ".cargo/config.toml": '[source.crates-io]\nreplace-with = "near"\n[source.near]\nregistry = "sparse+https://x:secret@crates.example/index/"\n',
        ".m2/settings.xml": "<settings><mirrors><mirror><url>https://maven.example/m2</url></mirror></mirrors></settings>",
    })  # fmt: skip
    found = {name: find_registry(name, environment) for name in ("python", "node", "go", "rust", "java")}
    assert found["python"].addresses == ("https://mirror.example/simple",)
    assert found["node"].hosts == ("npm.example:4873",) and found["node"].private_hosts == ("npm.example",)
    assert found["go"].hosts == ("go.example:443",)
    assert found["rust"].addresses == ("https://crates.example/index/",)
    assert found["java"].hosts == ("maven.example:443",)
    assert "secret" not in str(found)
    (tmp_path / ".m2/settings.xml").write_text('<!DOCTYPE x [<!ENTITY a "b">]><settings/>')
    assert find_registry("java", environment).hosts[0] == "repo.maven.apache.org:443"


def test_interpreters_are_runtimes_by_name(tmp_path: Path) -> None:
    names = base_names()
    own = f"python-3.{sys.version_info.minor}"
    assert own in names
    runtime = base_runtime(own, tmp_path)
    assert (
        runtime is not None
        and runtime.python.is_file()
        and not list(runtime.folder.glob("lib/*/site-packages/*"))
    )
    assert base_toolchain("python-2.7") is None and base_toolchain("../python-3.11") is None


# What CycloneDX 1.6 demands of the parts that are written here.
LICENSES: dict[str, Any] = {
    "type": "array",
    "items": {
        "oneOf": [
            {
                "required": ["expression"],
                "properties": {"expression": {"type": "string"}},
                "additionalProperties": False,
            },
            {
                "required": ["license"],
                "additionalProperties": False,
                "properties": {"license": {"required": ["name"], "properties": {"name": {"type": "string"}}}},
            },
        ]
    },
}
COMPONENT: dict[str, Any] = {
    "type": "object",
    "required": ["type", "name"],
    "additionalProperties": False,
    "properties": {
        "type": {"enum": ["application", "library"]},
        "bom-ref": {"type": "string", "minLength": 1},
        "name": {"type": "string"},
        "version": {"type": "string", "maxLength": 1024},
        "purl": {"type": "string", "pattern": "^pkg:[a-z]+/.+@.+"},
        "licenses": LICENSES,
    },
}
CYCLONEDX: dict[str, Any] = {
    "type": "object",
    "required": ["bomFormat", "specVersion"],
    "additionalProperties": False,
    "properties": {
        "bomFormat": {"const": "CycloneDX"},
        "specVersion": {"const": "1.6"},
        "serialNumber": {
            "pattern": "^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
        },
        "version": {"type": "integer", "minimum": 1},
        "metadata": {
            "type": "object",
            "properties": {
                "component": COMPONENT,
                "tools": {"properties": {"components": {"type": "array", "items": COMPONENT}}},
            },
        },
        "components": {"type": "array", "items": COMPONENT, "uniqueItems": True},
        "dependencies": {
            "type": "array",
            "items": {
                "required": ["ref"],
                "properties": {
                    "ref": {"type": "string"},
                    "dependsOn": {"type": "array", "uniqueItems": True},
                },
            },
        },
    },
}


def check_bill(bill: dict[str, Any]) -> None:
    """Refuses what is no CycloneDX 1.6 document, in form and in references."""
    jsonschema.validate(bill, CYCLONEDX)
    known = {bill["metadata"]["component"]["bom-ref"], *[part["bom-ref"] for part in bill["components"]]}
    assert len(known) == len(bill["components"]) + 1
    for dependency in bill["dependencies"]:
        assert {dependency["ref"], *dependency["dependsOn"]} <= known


def test_the_bill_of_materials_has_the_form_and_repeats_itself() -> None:
    components = (
        Component("node", "@scope/left", "1.0.0", "MIT"),
        Component("python", "Odd_Name", "2!1.0", "Some licence of its own"),
        Component("go", "golang.org/x/text", "v0.14.0", "BSD-3-Clause"),
        Component("java", "org.example:thing", "1", ""),
        Component("rust", "itoa", "1.0.6", "MIT OR Apache-2.0"),
    )
    bill = bill_of_materials("service", "1.0.0", "MIT", components)
    check_bill(bill)
    assert bill == bill_of_materials("service", "1.0.0", "MIT", components)
    urls = [part["purl"] for part in bill["components"]]
    assert urls[0] == "pkg:npm/%40scope/left@1.0.0" and urls[1] == "pkg:pypi/odd-name@2%211.0"
    assert urls[3] == "pkg:maven/org.example/thing@1"
    assert bill["components"][1]["licenses"] == [{"license": {"name": "Some licence of its own"}}]


def test_licences_are_read_from_what_was_installed(tmp_path: Path) -> None:
    program(tmp_path, {
        "lib/python3.11/site-packages/a-1.dist-info/METADATA": "Name: a\nVersion: 1\nLicense-Expression: Apache-2.0\n\nbody",
        "lib/python3.11/site-packages/b-2.dist-info/METADATA": "Name: b\nVersion: 2\nClassifier: License :: OSI Approved :: MIT License\n",
        "node_modules/@s/c/package.json": json.dumps({"name": "@s/c", "version": "3", "license": "ISC"}),
        "node_modules/d/package.json": "[" * 100_000,
        "vendor/e/Cargo.toml": '[package]\nname = "e"\nversion = "4"\nlicense = "MIT/Apache-2.0"\n',
    })  # fmt: skip
    seen = {
        language: [(one.name, one.license) for one in find_components(language, tmp_path, tmp_path)]
        for language in ("python", "node", "rust", "shell")
    }
    assert seen == {
        "python": [("a", "Apache-2.0"), ("b", "MIT License")],
        "node": [("@s/c", "ISC")],
        "rust": [("e", "MIT OR Apache-2.0")],
        "shell": [],
    }


def test_pips_report_becomes_a_lock() -> None:
    item = {
        "metadata": {"name": "six", "version": "1.16.0"},
        "download_info": {"archive_info": {"hashes": {"sha256": "ab"}}},
    }
    assert report_lock(json.dumps({"install": [item]})) == "six==1.16.0 --hash=sha256:ab\n"


GUIDE = Path(__file__).resolve().parents[2] / "docs" / "runtimes.md"
RUN = """
import asyncio, json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from openresource.sandbox.driver import ProgramCall, limits_of
from tests.builds.support import drivers, made, workshop

async def answer(built):
    instance = await drivers().for_program(built.manifest).start(built.release(), limits_of(built.manifest))
    try:
        return (await instance.call(ProgramCall("symbol", "/symbol", b'{"name": "Gold"}'))).body
    finally:
        await instance.stop()

built = made(Path(sys.argv[2]), workshop(Path(sys.argv[3])))
print(json.dumps([built.language, asyncio.run(answer(built)).decode()]))
"""


def guide_files(kind: str) -> dict[str, str | bytes]:
    """The files that the guide shows, by their names."""
    files: dict[str, str | bytes] = {}
    for part in GUIDE.read_text(encoding="utf-8").split(f"<!-- {kind}: ")[1:]:
        name, _, rest = part.partition(" -->")
        files[name] = rest.split("```", 2)[1].partition("\n")[2]
    return files


@pytest.mark.sandbox
def test_the_guides_language_is_installed_and_builds_a_program(tmp_path: Path) -> None:
    try:
        installer = str(toolchains.uv().executable)
    except ToolchainMissing as refusal:
        pytest.skip(refusal.message)
    package = program(tmp_path / "package", guide_files("file"))
    site = tmp_path / "site"
    words = [installer, "pip", "install", "-q", "--no-deps", "--offline", "--no-build-isolation", "--python", sys.executable,
             "--target", str(site), str(package)]  # fmt: skip
    subprocess.run(words, check=True, timeout=120)
    folder = program(tmp_path / "program", guide_files("program"))
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(site), str(folder), str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=120, cwd=GUIDE.parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["sqlite", '"Au"']
