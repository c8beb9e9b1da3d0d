"""openresource.toml: what is read, and how each mistake is named."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openresource.market.generic_methods import REQUEST
from openresource.market.manifest_tables import InvalidManifest, NotSupported, UnknownKey
from openresource.market.manifests import (
    MANIFEST_CHARACTERS_MAX,
    Artifact,
    Batch,
    Build,
    Manifest,
    Method,
    Price,
    Resources,
    Run,
    document_files,
    is_enveloped,
    missing_requirements,
    parse_manifest,
    python_fits,
    with_documents,
)

SMALLEST = 'name = "echo"\n[run]\nkind = "python"\nentry = "echo:run"\n'
LOCK = "sha256:" + "ab" * 32
FULL = f"""
spec = 1
name = "sentiment"
version = "1.2.0"
summary = "Feelings of a text."
license = "MIT"
domain = "text"
tags = ["sentiment", "nlp"]
exactness = "class_exact"
royalty = "0.0001"
price_cap = "0.01"
[run]
kind = "http"
command = ["python", "app.py"]
health = "/healthz"
startup_s = 20
[build]
language = "python"
python = ">=3.11"
runtime = "sentiment"
lock = "{LOCK}"
[resources]
cpu = 2
memory = "1Gi"
disk = "16 Mi"
output = 1048576
pids = 8
timeout_s = 5
concurrency = 4
network = "none"
gpu = {{ count = 0, memory = "0", vendor = "any" }}
[[methods]]
name = "analyze"
path = "/v1/analyze"
summary = "How it feels."
input = "schema/in.json"
output = {{ type = "number", minimum = -1, maximum = 1 }}
example = {{ input = {{ text = "good" }}, output = 0.5 }}
stream = true
price = {{ model = "per_call", amount = "0.0002" }}
[[methods]]
name = "train"
[[artifacts]]
name = "model"
cid = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"
path = "model.onnx"
license = "Apache-2.0"
"""


def test_the_smallest_manifest_has_defaults_for_the_rest() -> None:
    manifest = parse_manifest(SMALLEST)
    assert manifest == Manifest(name="echo", run=Run("python", entry="echo:run"))
    assert manifest.royalty_uain == 0 and manifest.price_cap_uain is None
    assert manifest.exactness == "subjective" and manifest.methods == ()


def test_everything_is_read() -> None:
    manifest = parse_manifest(FULL)
    assert manifest.run == Run("http", ("python", "app.py"), health="/healthz", startup_seconds=20)
    assert manifest.build == Build("sentiment", LOCK, "python", ">=3.11")
    assert manifest.resources == Resources(2.0, 1 << 30, 16 << 20, 1 << 20, 8, 5, 4)
    assert (manifest.royalty_uain, manifest.price_cap_uain) == (100, 10_000)
    first, second = manifest.methods
    assert first.price == Price("per_call", 200) and first.path == "/v1/analyze" and first.stream
    assert second == Method("train", "/train")
    assert manifest.artifacts == (
        Artifact(
            "model", "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi", "model.onnx", "Apache-2.0"
        ),
    )
    assert document_files(manifest) == ("schema/in.json",)


def test_documents_take_the_place_of_their_names() -> None:
    manifest = parse_manifest(FULL)
    complete = with_documents(manifest, {"schema/in.json": {"type": "object"}})
    assert complete.methods[0].input == {"type": "object"}
    with pytest.raises(InvalidManifest, match=r"methods\[0\]\.input"):
        with_documents(manifest, {})
    with pytest.raises(InvalidManifest, match=r"methods\[0\]\.input\.colour"):
        with_documents(manifest, {"schema/in.json": {"colour": "red"}})


def with_line(line: str, table: str = "") -> str:
    """The smallest manifest with one more line, at the top or in a table."""
    return f"{line}\n{SMALLEST}" if not table else f"{SMALLEST}[{table}]\n{line}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = ", ["the file", "TOML"]),
        ("", ["run", "missing"]),
        ('[run]\nkind = "python"\nentry = "a:b"', ["name", "missing"]),
        ('nmae = "x"\n[run]\nkind = "python"\nentry = "a:b"', ["name", "missing", "nmae"]),
        ('name = "x"', ["run", "missing"]),
        ('name = "x"\nrun = "python"', ["run", "table"]),
        ('name = "Echo"\n[run]\nkind = "python"\nentry = "a:b"', ["name", '"Echo"', "DNS"]),
        (SMALLEST.replace("python", "pyton"), ["run.kind", '"pyton"', "did you mean", "python"]),
        (SMALLEST.replace("echo:run", "echo.run"), ["run.entry", "predict:Predictor"]),
        (SMALLEST.replace("echo:run", "../echo:run"), ["run.entry"]),
        (SMALLEST.replace('entry = "echo:run"', ""), ["run.entry", "missing"]),
        (SMALLEST + 'command = ["x"]\n', ["run.command"]),
        ('name = "x"\n[run]\nkind = "jsonl"', ["run.command", "missing"]),
        ('name = "x"\n[run]\nkind = "jsonl"\ncommand = "sh a.sh"', ["run.command", "list of texts"]),
        ('name = "x"\n[run]\nkind = "jsonl"\ncommand = ["a"]\nentry = "a:b"', ["run.entry"]),
        ('name = "x"\n[run]\nkind = "jsonl"\ncommand = ["a"]\nhealth = "/x"', ["run.health"]),
        (with_line("spec = 2"), ["spec", "2"]),
        (with_line("licence = 'MIT'"), ["licence", "not known", "license"]),
        (with_line("zzz = 1"), ["zzz", "not known", "Known here"]),
        (with_line("license = 'MIT\\u0000'").replace("'", '"'), ["license"]),
        (with_line("tags = ['A b']"), ["tags"]),
        (with_line("version = '1'"), ["version", "1.2.0"]),
        (with_line("exactness = 'exact'"), ["exactness", "bit_exact"]),
        (with_line("royalty = 0.0001"), ["royalty", "texts"]),
        (with_line("royalty = '-1'"), ["royalty", "negative"]),
        (with_line("royalty = '0.0000001'"), ["royalty", "six decimals"]),
        (with_line("royalty = '1e-4'"), ["royalty", "exponents"]),
        (with_line("royalty = '0.2'\nprice_cap = '0.1'"), ["price_cap", "royalty"]),
        (with_line("memory = '1MB'", "resources"), ["resources.memory", "Ki, Mi or Gi"]),
        (with_line("memory = '1Ki'", "resources"), ["resources.memory", "between"]),
        (with_line("pids = 0", "resources"), ["resources.pids", "from 1"]),
        (with_line("pids = true", "resources"), ["resources.pids", "true"]),
        (with_line("cpu = 0", "resources"), ["resources.cpu"]),
        (with_line("timeout = 3", "resources"), ["resources.timeout", "timeout_s"]),
        (with_line("lock = 'sha256:12'", "build"), ["build.lock", "64 hex digits"]),
        (with_line("requirements = '/etc/passwd'", "build"), ["build.requirements"]),
        (with_line("requirements = '../x.txt'", "build"), ["build.requirements"]),
        (SMALLEST + '[[methods]]\nname = "a"\n[[methods]]\nname = "a"', ["methods[1].name", "differ"]),
        (SMALLEST + '[[methods]]\nname = "a"\ninput = { type = "strnig" }', ["methods[0].input.type", "strnig"]),
        (SMALLEST + '[[methods]]\nname = "a"\nexample = { text = "x" }', ["methods[0].example"]),
        (SMALLEST + '[[methods]]\nname = "a"\npath = "/../x"', ["methods[0].path"]),
        (SMALLEST + '[[methods]]\nname = "a"\nprice = { model = "per_call" }', ["methods[0].price.amount", "missing"]),
        (SMALLEST + "methods = 3", ["run.methods", "not known"]),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_what_was_found_and_expected(text: str, words: list[str]) -> None:
    with pytest.raises(InvalidManifest) as refused:
        parse_manifest(text)
    for word in words:
        assert word in str(refused.value)
    assert refused.value.remedy


IMAGE = "registry.example.org/tools/ocr@sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("section", "methods"),
    [
        ('kind = "cli"\ncommand = ["./tool", "-v"]', ["run"]),
        ('kind = "http"\ncommand = ["./server"]\nport = 5000', ["request"]),
        ('kind = "jsonl"\ncommand = ["./lines"]', ["call"]),
        ('kind = "grpc"\ncommand = ["./server"]\nproto = "api/echo.proto"\nport = 50051', []),
        ('kind = "wasm"\nmodule = "echo.wasm"', ["call"]),
        ('kind = "wasm"\nmodule = "echo.wasm"\nspeaks = "cli"', ["run"]),
        (f'kind = "oci"\nimage = "{IMAGE}"', ["request"]),
        (f'kind = "oci"\nimage = "{IMAGE}"\nspeaks = "jsonl"\ncommand = ["/bin/x"]', ["call"]),
        ('kind = "oci"\nimage = "image.tar"\nspeaks = "grpc"\nproto = "x.proto"', []),
        ('kind = "python"\nentry = "a.b:C"', []),
    ],
)
def test_each_kind_is_read_and_has_a_method_of_its_own_where_none_is_declared(
    section: str, methods: list[str]
) -> None:
    manifest = parse_manifest(f'name = "x"\n[run]\n{section}')
    assert [method.name for method in manifest.methods] == methods


def test_what_a_module_or_an_image_speaks_is_its_tongue() -> None:
    assert parse_manifest('name = "x"\n[run]\nkind = "wasm"\nmodule = "m.wasm"').run.tongue == "jsonl"
    assert parse_manifest(f'name = "x"\n[run]\nkind = "oci"\nimage = "{IMAGE}"').run.tongue == "http"
    assert parse_manifest(SMALLEST).run.tongue == "python"


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ('kind = "cli"', ["run.command", "missing"]),
        ('kind = "wasm"', ["run.module", "missing"]),
        ('kind = "oci"', ["run.image", "missing"]),
        ('kind = "grpc"\ncommand = ["./x"]', ["run.proto", "missing"]),
        ('kind = "oci"\nimage = "name:latest"', ["run.image", "sha256"]),
        (f'kind = "oci"\nimage = "{IMAGE}"\nspeaks = "grpc"', ["run.proto", "missing"]),
        (f'kind = "oci"\nimage = "{IMAGE}"\nspeaks = "python"', ["run.speaks", "http, jsonl"]),
        ('kind = "cli"\ncommand = ["./x"]\nspeaks = "jsonl"', ["run.speaks", "wasm and oci"]),
        ('kind = "cli"\ncommand = ["./x"]\nport = 80', ["run.port", "http and grpc"]),
        ('kind = "wasm"\nmodule = "../m.wasm"', ["run.module", "file of the release"]),
        ('kind = "wasm"\nmodule = "m.wasm"\nport = 80', ["run.port", "jsonl"]),
        ('kind = "http"\ncommand = ["./x"]\nport = 70000', ["run.port", "65535"]),
        ('kind = "http"\ncommand = ["./x"]\nbatch = {size = 2}', ["run.batch", "python"]),
        ('kind = "python"\nentry = "a:b"\nbatch = {size = 1}', ["run.batch.size", "from 2"]),
        ('kind = "python"\nentry = "a:b"\nbatch = {sise = 3}', ["run.batch.sise", "run.batch.size"]),
        ('kind = "cli"\ncommand = ["./x"]\nenvironment = {PATH = "/"}', ["run.environment.PATH", "runs the program"]),
        ('kind = "cli"\ncommand = ["./x"]\nenvironment = {LD_PRELOAD = "/"}', ["run.environment.LD_PRELOAD"]),
        ('kind = "cli"\ncommand = ["./x"]\nenvironment = {API_KEY = "1"}', ["run.environment.API_KEY", "secret"]),
        ('kind = "cli"\ncommand = ["./x"]\nenvironment = {"A B" = "1"}', ["run.environment.A B"]),
        ('kind = "cli"\ncommand = ["./x"]\nenvironment = {A = 1}', ["run.environment.A", "text"]),
        ('kind = "cli"\ncommand = ["./x"]\n[[methods]]\nname = "a"\nresult = "text"', ["methods[0].result"]),
        ('kind = "cli"\ncommand = ["./x"]\n[[methods]]\nname = "a"\nverb = "GET"', ["methods[0].verb", "http"]),
        ('kind = "http"\ncommand = ["./x"]\n[[methods]]\nname = "a"\nargs = ["x"]', ["methods[0].args", "cli"]),
        ('kind = "http"\ncommand = ["./x"]\n[resources]\nnetwork = ["*:443"]', ["resources.network"]),
        ('kind = "http"\ncommand = ["./x"]\n[resources]\ngpu = {vendor = "abacus"}', ["resources.gpu.vendor"]),
        ('kind = "http"\ncommand = ["./x"]\n[build]\noutput = "../x"', ["build.output"]),
        (
            'kind = "python"\nentry = "a:b"\nbatch = {size = 8}\n[resources]\nconcurrency = 4',
            ["resources.concurrency", "batch"],
        ),
    ],
)  # fmt: skip
def test_what_a_kind_lacks_or_cannot_have_is_named(section: str, words: list[str]) -> None:
    with pytest.raises(InvalidManifest) as refused:
        parse_manifest(f'name = "x"\n[run]\n{section}')
    for word in words:
        assert word in str(refused.value)
    assert refused.value.remedy


def test_a_program_with_batches_takes_as_many_calls_at_once_as_a_batch_holds() -> None:
    manifest = parse_manifest(SMALLEST + "batch = {size = 16, wait_ms = 5}")
    assert manifest.run.batch == Batch(16, 5)
    assert manifest.resources.concurrency == 16


def test_the_newer_fields_arrive() -> None:
    manifest = parse_manifest(
        'name = "x"\n[run]\nkind = "cli"\ncommand = ["./x"]\nenvironment = {MODE = "fast"}\n'
        '[build]\nlanguage = "go"\ncommand = "go build -o bin/x ."\noutput = "bin/x"\nruntime = "go-1.22"\n'
        '[resources]\ngpu = {count = 1, memory = "8Gi", vendor = "nvidia"}\nnetwork = ["api.example.org:443"]\n'
        '[[methods]]\nname = "turn"\nargs = ["{image:file}", "{out:file}"]\nstdin = "text"\nresult = "files"'
    )
    assert manifest.run.environment == {"MODE": "fast"}
    assert (manifest.build.output, manifest.build.runtime) == (("bin/x",), "go-1.22")
    assert (manifest.resources.gpu_memory_bytes, manifest.resources.gpu_vendor) == (8 << 30, "nvidia")
    assert manifest.resources.network == ("api.example.org:443",)
    assert manifest.methods[0].args == ("{image:file}", "{out:file}")
    assert (manifest.methods[0].stdin, manifest.methods[0].result) == ("text", "files")


def test_prices_of_later_versions_are_refused_as_such() -> None:
    with pytest.raises(NotSupported):
        parse_manifest(SMALLEST + '[[methods]]\nname = "a"\nprice = { model = "per_token", amount = "1" }')


def test_the_nearest_known_key_is_a_fact() -> None:
    with pytest.raises(UnknownKey) as refused:
        parse_manifest(with_line("summry = 'x'"))
    assert refused.value.nearest == "summary"


def test_a_manifest_is_bounded() -> None:
    with pytest.raises(InvalidManifest, match="characters long"):
        parse_manifest(SMALLEST + "#" * MANIFEST_CHARACTERS_MAX)
    with pytest.raises(InvalidManifest):
        parse_manifest("x = " + "[" * 5_000)


def test_programs_other_than_python_have_one_method_unless_they_say_more() -> None:
    lines = parse_manifest('name = "x"\n[run]\nkind = "jsonl"\ncommand = ["./x"]')
    assert lines.methods == (Method("call", "/call"),)
    assert not is_enveloped(lines)
    http = parse_manifest('name = "x"\n[run]\nkind = "http"\ncommand = ["./x"]')
    assert http.methods == (REQUEST,)
    several = parse_manifest(
        'name = "x"\n[run]\nkind = "jsonl"\ncommand = ["./x"]\n[[methods]]\nname = "a"\n[[methods]]\nname = "b"'
    )
    assert is_enveloped(several)


def test_a_program_that_answers_line_by_line_takes_one_call_at_a_time() -> None:
    with pytest.raises(NotSupported, match="concurrency"):
        parse_manifest('name = "x"\n[run]\nkind = "jsonl"\ncommand = ["./x"]\n[resources]\nconcurrency = 2')


@pytest.mark.parametrize(
    ("extra", "what"),
    [
        (f'[build]\nruntime = "torch"\nlock = "{LOCK}"', "the runtime torch"),
        ('[build]\nrequirements = "requirements.txt"', "packages of requirements.txt"),
        ('[build]\nsystem = ["libgomp1"]', "libgomp1"),
        ('[build]\ncommand = "make"', "build command"),
        ("[resources]\ngpu = { count = 1 }", "1 GPU"),
        ('[resources]\nnetwork = ["example.org:443"]', "example.org:443"),
        ('[[artifacts]]\nname = "m"\ncid = "bafybeigdyrzt5sfp7udm7hu76u"\npath = "m"', "the artifact m"),
        ('[build]\npython = "3.10"', "Python 3.10"),
    ],
)
def test_what_a_provider_lacks_is_named(extra: str, what: str) -> None:
    missing = missing_requirements(parse_manifest(SMALLEST + extra), {}, python_minor=11)
    assert len(missing) == 1
    assert what in missing[0].message and missing[0].remedy


def test_a_listed_runtime_meets_the_requirements_of_its_lock() -> None:
    manifest = parse_manifest(
        SMALLEST + f'[build]\nruntime = "a"\nlock = "{LOCK}"\nrequirements = "requirements.txt"'
    )
    assert missing_requirements(manifest, {LOCK: "another name"}) == []
    assert missing_requirements(parse_manifest(SMALLEST), {}) == []


@pytest.mark.parametrize(
    ("wanted", "minor", "fits"),
    [
        (">=3.11", 11, True),
        (">=3.11", 13, True),
        (">=3.12", 11, False),
        ("==3.12", 12, True),
        ("3.12", 13, False),
        ("2.7", 11, False),
    ],
)
def test_python_versions_are_compared(wanted: str, minor: int, fits: bool) -> None:
    assert python_fits(wanted, minor) is fits


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False, width=16)
    | st.text(max_size=8)
)
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


def toml(value: Any) -> str:
    """A value in TOML."""
    match value:
        case bool():
            return "true" if value else "false"
        case None:
            return '""'
        case int() | float():
            return repr(value)
        case str():
            return (
                '"'
                + "".join(
                    f"\\U{ord(character):08x}" for character in value if not 0xD800 <= ord(character) < 0xE000
                )
                + '"'
            )
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case _:
            return "{" + ", ".join(f"{name} = {toml(item)}" for name, item in value.items()) + "}"


KEYS = [
    "name",
    "version",
    "summary",
    "license",
    "domain",
    "tags",
    "exactness",
    "royalty",
    "price_cap",
    "run",
    "build",
    "resources",
    "methods",
    "artifacts",
    "spec",
]


@given(st.dictionaries(st.sampled_from(KEYS), values, max_size=6))
def test_whatever_a_manifest_holds_the_outcome_is_typed(fields: dict[str, Any]) -> None:
    try:
        manifest = parse_manifest("\n".join(f"{name} = {toml(value)}" for name, value in fields.items()))
    except InvalidManifest:
        return
    assert manifest.name
