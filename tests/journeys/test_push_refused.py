"""What a push may not bring, and pushes that end in the middle: nothing moves, and what was live stays live."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.support import environment
from tests.journeys.push_stage import (
    PUSH_SECONDS_MAX,
    Repository,
    Stage,
    stage,
    wait_until,
)

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("push")) as made:
        yield made


@pytest.fixture(scope="module")
def work(scene: Stage) -> Repository:
    """A repository whose first commit is live."""
    made = scene.repository("guarded")
    made.commit("one")
    assert made.push().code == 0
    return made


def tree_with(work: Repository, mode: str, name: str, blob: str) -> str:
    """A commit on the live one whose tree has one entry more, whatever git's own commands think of it."""
    entries = work.git("ls-tree", "HEAD").splitlines()
    listing = [*entries, f"{mode} {'commit' if mode == '160000' else 'blob'} {blob}\t{name}"]
    tree = work.git("mktree", "--missing", input=("\n".join(listing) + "\n").encode())
    return work.git("commit-tree", tree, "-p", "HEAD", "-m", "hostile")


def raw_tree_with(work: Repository, mode: str, name: bytes, blob: str) -> str:
    """The same with a name that git refuses to write."""
    entries = [line.split(None, 3) for line in work.git("ls-tree", "HEAD").splitlines()]
    items = [(path.encode(), mode_.lstrip("0"), object_) for mode_, _, object_, path in entries]
    items.append((name, mode, blob))
    content = b"".join(
        f"{mode_} ".encode() + path + b"\0" + bytes.fromhex(object_) for path, mode_, object_ in sorted(items)
    )
    tree = work.git("hash-object", "-t", "tree", "-w", "--stdin", "--literally", input=content)
    return work.git("commit-tree", tree, "-p", "HEAD", "-m", "hostile")


def a_link(work: Repository) -> str:
    return tree_with(work, "120000", "passwd", work.git("hash-object", "-w", "--stdin", input=b"/etc/passwd"))


def a_way_out(work: Repository) -> str:
    return raw_tree_with(work, "100644", b"../outside", work.git("rev-parse", "HEAD:say.sh"))


def gits_own_folder(work: Repository) -> str:
    return raw_tree_with(work, "100644", b".git", work.git("rev-parse", "HEAD:say.sh"))


def a_name_that_commands_terminals(work: Repository) -> str:
    return raw_tree_with(work, "100644", b"a\x1b[2Jb", work.git("rev-parse", "HEAD:say.sh"))


def a_secret(work: Repository) -> str:
    return tree_with(work, "100644", ".env", work.git("rev-parse", "HEAD:say.sh"))


def too_many_files(work: Repository) -> str:
    blob = work.git("rev-parse", "HEAD:say.sh")
    listing = "".join(f"100644 blob {blob}\tf{number}\n" for number in range(10_001))
    tree = work.git("mktree", input=listing.encode())
    return work.git("commit-tree", tree, "-p", "HEAD", "-m", "hostile")


def another_name(work: Repository) -> str:
    manifest = work.git("show", "HEAD:openresource.toml").replace("guarded", "other")
    blob = work.git("hash-object", "-w", "--stdin", input=manifest.encode())
    lines = [line for line in work.git("ls-tree", "HEAD").splitlines() if "openresource.toml" not in line]
    tree = work.git("mktree", input="\n".join([*lines, f"100644 blob {blob}\topenresource.toml\n"]).encode())
    return work.git("commit-tree", tree, "-p", "HEAD", "-m", "hostile")


HOSTILE: dict[Callable[[Repository], str], str] = {
    a_link: "it is a link",
    a_way_out: "fsck",
    gits_own_folder: "fsck",
    a_name_that_commands_terminals: "characters",
    a_secret: "looks like a secret",
    too_many_files: "more than 10000 files",
    another_name: "calls its service other",
}


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_a_hostile_push_is_refused_and_moves_nothing(
    scene: Stage, work: Repository, make: Callable[[Repository], str]
) -> None:
    live, tip = scene.latest("guarded"), scene.remote_tip("guarded")
    commit = make(work)
    pushed = work.push(f"{commit}:refs/heads/main", "--force")
    assert pushed.code != 0
    assert HOSTILE[make] in pushed.said, pushed.said
    assert "\x1b" not in pushed.said.replace("\x1b[K", "")
    assert scene.latest("guarded") == live and scene.remote_tip("guarded") == tip
    assert not list(scene.remote("guarded").glob("objects/tmp_objdir*")), "git threw the push's objects away"


def test_a_push_larger_than_the_bound_is_refused_by_git_itself(scene: Stage, work: Repository) -> None:
    subprocess.run(
        ["git", "--git-dir", str(scene.remote("guarded")), "config", "receive.maxInputSize", "20000"],
        check=True,
    )
    try:
        (work.folder / "noise").write_bytes(os.urandom(60_000))
        work.commit("large")
        pushed = work.push()
    finally:
        work.git("reset", "--quiet", "--hard", "HEAD~1")
        subprocess.run(
            ["git", "--git-dir", str(scene.remote("guarded")), "config", "receive.maxInputSize", "268435456"],
            check=True,
        )
    assert pushed.code != 0 and "exceeds maximum allowed size" in pushed.said


def test_other_branches_and_tags_are_stored_and_the_live_one_stays(scene: Stage, work: Repository) -> None:
    live = scene.latest("guarded")
    work.git("tag", "v1")
    pushed = work.push("main:draft", "v1")
    assert pushed.code == 0, pushed.said
    assert any("draft is stored" in line for line in pushed.remote)
    assert scene.remote_tip("guarded", "draft") and scene.latest("guarded") == live
    assert work.push("--delete", "draft").code == 0
    deleted = work.push("--delete", "main")
    assert deleted.code != 0 and "cannot be deleted" in deleted.said
    assert work.push("main:refs/notes/x").code != 0


def test_a_repository_that_calls_its_branch_master_goes_live_from_there(scene: Stage) -> None:
    made = scene.repository("older", "master")
    made.commit("one")
    assert made.push().code == 0
    # A remote that was made by name alone learns it from the first push.
    told = scene.cli("publish", "--git", "byname", "--json")
    assert told.json["branch"] == "main"
    named = Repository(scene.folder / "byname-work", "byname", "master")
    named.git("remote", "add", "openresource", told.json["repository"])
    named.commit("one")
    pushed = named.push()
    assert pushed.code == 0 and scene.latest("byname")["version"] == "0.1.0", pushed.said
    named.commit("two")
    assert named.push().code == 0 and scene.latest("byname")["version"] != "0.1.0"


def test_going_back_in_history_makes_the_old_version_live_again(scene: Stage) -> None:
    made = scene.repository("history")
    made.commit("one")
    assert made.push().code == 0
    first = scene.latest("history")
    second_commit = made.commit("two")
    assert made.push().code == 0
    second = scene.latest("history")
    assert second["version"] == f"0.1.0+{second_commit[:10]}"
    made.git("reset", "--quiet", "--hard", "HEAD~1")
    assert made.push().code != 0, "git itself wants --force"
    assert made.push("--force", "main").code == 0
    assert scene.latest("history") == first, "the same bytes are the same version"
    made.git("commit", "--quiet", "--allow-empty", "-m", "again")
    assert made.push().code == 0 and scene.latest("history") == first


def test_a_push_that_nobody_runs_in_time_leaves_the_version_before_chosen(scene: Stage) -> None:
    made = scene.repository("patient")
    made.commit("one")
    assert made.push().code == 0
    wait_for_a_provider(scene, made, "1")
    live, tip = scene.latest("patient"), scene.remote_tip("patient")
    scene.provider.send(signal.SIGSTOP)
    try:
        made.commit("two")
        late = made.push()
    finally:
        scene.provider.send(signal.SIGCONT)
    assert late.code != 0 and "nobody runs it after 1 s" in late.said, late.said
    assert any("means 0.1.0 as before" in line for line in late.remote)
    assert scene.latest("patient") == live and scene.remote_tip("patient") == tip
    with scene.client() as client:
        assert client.call("patient", text="a").value == "one"
    # The same commit may be pushed again: it is published already and only chosen.
    wait_for_a_provider(scene, made, "60")
    again = made.push()
    assert again.code == 0, again.said
    with scene.client() as client:
        assert client.call("patient", text="a").value == "two"


def wait_for_a_provider(scene: Stage, work: Repository, seconds: str) -> None:
    """From now on a push waits so long for somebody who runs it."""
    told = scene.cli("publish", "--git", str(work.folder), "--deadline", seconds)
    assert told.code == 0, told.err


def begin_push(work: Repository) -> subprocess.Popen[bytes]:
    """A push that goes on by itself, in a group of its own as in a terminal."""
    nothing = subprocess.DEVNULL
    command = ["git", "push", "openresource", "main"]
    return subprocess.Popen(
        command,
        cwd=work.folder,
        env=environment(),
        stdin=nothing,
        stdout=nothing,
        stderr=nothing,
        start_new_session=True,
    )


def test_a_push_that_is_broken_off_leaves_the_version_before_chosen(scene: Stage) -> None:
    made = scene.repository("broken")
    made.commit("one")
    assert made.push().code == 0
    live, tip = scene.latest("broken"), scene.remote_tip("broken")
    scene.provider.send(signal.SIGSTOP)
    try:
        made.commit("two")
        pushing = begin_push(made)
        wait_until(lambda: scene.latest("broken") != live, 60, "the new version to be chosen")
        # As Ctrl-C does: everybody in the terminal's group hears it.
        os.killpg(pushing.pid, signal.SIGINT)
        assert pushing.wait(60) != 0
        wait_until(lambda: scene.latest("broken") == live, 60, "the version before to be chosen again")
    finally:
        scene.provider.send(signal.SIGCONT)
    assert scene.remote_tip("broken") == tip
    with scene.client() as client:
        assert client.call("broken", text="a").value == "one"


def test_two_pushes_at_once_do_not_both_go_live(scene: Stage) -> None:
    made = scene.repository("crowded")
    made.commit("one")
    assert made.push().code == 0
    live = scene.latest("crowded")
    # Nobody runs what the first one publishes before the second one has come.
    scene.provider.send(signal.SIGSTOP)
    try:
        made.commit("two")
        pushing = begin_push(made)
        wait_until(lambda: scene.latest("crowded") != live, 60, "the first push to be published")
        made.commit("three")
        second = made.push()
    finally:
        scene.provider.send(signal.SIGCONT)
    assert second.code != 0 and "Another push to crowded" in second.said, second.said
    assert pushing.wait(60) == 0
    assert made.push().code == 0


def test_a_push_over_ssh_needs_nothing_but_a_login(scene: Stage, tmp_path: Path) -> None:
    made = scene.repository("remote")
    told = scene.cli("publish", "--git", str(made.folder), "--json").json
    assert told["ssh"].startswith("ssh://") and told["ssh"].endswith(told["repository"])
    # Stands for ssh and the machine behind it: a bare environment, and the command in a shell.
    ssh = tmp_path / "ssh"
    ssh.write_text(
        '#!/bin/sh\nfor word; do :; done\nexec env -i HOME="$HOME" PATH=/usr/bin:/bin sh -c "$word"\n'
    )
    ssh.chmod(0o755)
    made.git("remote", "set-url", "openresource", told["ssh"])
    made.commit("one")
    done = subprocess.run(
        ["git", "push", "openresource", "main"],
        cwd=made.folder,
        env=environment({"GIT_SSH": str(ssh), "GIT_SSH_VARIANT": "ssh"}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PUSH_SECONDS_MAX,
    )
    assert done.returncode == 0, done.stderr
    assert "remote:" in done.stderr and "live: " in done.stderr
    assert scene.latest("remote")["version"] == "0.1.0"


def test_the_hook_is_ours_and_speaks_to_the_recorded_home(scene: Stage, work: Repository) -> None:
    remote = scene.remote("guarded")
    hook = remote / "hooks" / "pre-receive"
    assert os.access(hook, os.X_OK) and hook.stat().st_mode & 0o077 == 0
    assert remote.parent.stat().st_mode & 0o077 == 0
    settings = {
        name: subprocess.run(
            ["git", "--git-dir", str(remote), "config", name], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("core.hooksPath", "transfer.fsckObjects", "receive.maxInputSize")
    }
    assert settings["core.hooksPath"] == str(remote / "hooks") and settings["transfer.fsckObjects"] == "true"
    again = scene.cli("publish", "--git", str(work.folder))
    assert again.code == 0 and "git push openresource main" in again.out
    work.commit("five")
    # Whatever the pusher's environment says, the remote publishes for the home that made it.
    done = subprocess.run(
        ["git", "push", "openresource", "main"],
        cwd=work.folder,
        env=environment(
            {
                "OPENRESOURCE_HOME": "/nonexistent",
                "OPENRESOURCE_NODE": "http://127.0.0.1:1",
                "PYTHONPATH": "/nonexistent",
            }
        ),
        capture_output=True,
        text=True,
        timeout=PUSH_SECONDS_MAX,
    )
    assert done.returncode == 0, done.stderr
