"""The documentation names things that exist: every linked name is defined in the file that it points to."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
NAMED = re.compile(r"\[`([A-Za-z_][\w.]*)`\]\(([^)]+\.py)\)")
LINKED = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def defined_names(file: Path) -> set[str]:
    names: set[str] = set()

    def collect(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    names.add(prefix + node.name)
                case ast.ClassDef():
                    names.add(prefix + node.name)
                    collect(node.body, f"{prefix}{node.name}.")
                case ast.Assign():
                    names.update(
                        prefix + target.id for target in node.targets if isinstance(target, ast.Name)
                    )
                case ast.AnnAssign():
                    if isinstance(node.target, ast.Name):
                        names.add(prefix + node.target.id)

    collect(ast.parse(file.read_text()).body, "")
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_name_that_a_page_links_exists(page):
    for name, target in NAMED.findall(page.read_text()):
        file = (page.parent / target).resolve()
        assert file.is_file(), f"{page.name} points to {target}, which is not there"
        assert name in defined_names(file), f"{page.name} names {name}, which {target} does not define"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page):
    for target in LINKED.findall(page.read_text()):
        if not target.startswith(("http:", "https:", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links {target}, which is not there"


def test_the_architecture_names_enough_to_be_followed():
    assert len(NAMED.findall((ROOT / "docs/architecture.md").read_text())) >= 30
