"""Last words of programs that do not start become a way out, where they are of a known kind."""

from __future__ import annotations

import pytest

from openresource.cli.program_words import hint_of_words


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "Error: Could not locate the bindings file. Tried:\n"
            " → /app/node_modules/sqlite3/build/node_sqlite3.node\n at bindings (/app/node_modules/bindings/bindings.js:126:9)",
            '"trustedDependencies": ["sqlite3"]',
        ),
        (
            "Error: Cannot find module '/app/node_modules/@x/fast/build/Release/fast.node'",
            '"trustedDependencies": ["@x/fast"]',
        ),
        ("Error: Cannot find module 'express'\nRequire stack:\n- /app/index.js", "needs express"),
        ("Error [ERR_MODULE_NOT_FOUND]: Cannot find package '@scope/lib' imported from /app/x.js", "needs @scope/lib"),
        ("ModuleNotFoundError: No module named 'pyfiglet.fonts'", "imports pyfiglet"),
        ("/tools/python: No module named gunicorn", "imports gunicorn"),
        ("socket.gaierror: [Errno -3] Temporary failure in name resolution", "no network"),
        ("Error: connect ECONNREFUSED 127.0.0.1:5432", "a database"),
        ("panic: index out of range", ""),
        ("Error: Cannot find module './build/index.js'", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_last_words_name_the_way_out(words: str, said: str) -> None:
    hint = hint_of_words(words)
    assert said in hint and bool(said) == bool(hint)
