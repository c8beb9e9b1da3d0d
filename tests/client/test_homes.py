"""Homes: secrets stay secret, files are whole, a lock has one holder."""

import json
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from openresource.client.homes import (
    BadSettings,
    Home,
    HomeInUse,
    Limits,
    NoWallet,
    WalletExists,
    WalletLocked,
    WalletUnreadable,
)


def test_a_new_wallet_is_readable_by_its_owner_only(tmp_path):
    home = Home(tmp_path / "home")
    key = home.create_wallet()
    assert home.address() == key.address == home.wallet().address
    assert stat.S_IMODE(os.stat(home.wallet_file).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(home.folder).st_mode) == 0o700


def test_a_wallet_is_never_overwritten(tmp_path):
    home = Home(tmp_path)
    key = home.create_wallet()
    with pytest.raises(WalletExists) as refusal:
        home.create_wallet()
    assert refusal.value.address == key.address
    assert home.wallet().address == key.address


def test_a_home_without_a_wallet_says_how_to_make_one(tmp_path):
    with pytest.raises(NoWallet) as refusal:
        Home(tmp_path).wallet()
    assert "wallet new" in refusal.value.remedy


def test_an_encrypted_wallet_opens_with_its_passphrase_only(tmp_path, monkeypatch):
    home = Home(tmp_path)
    key = home.create_wallet()
    home.encrypt_wallet("correct horse")
    assert key.to_bytes().hex() not in home.wallet_file.read_text()
    assert home.is_encrypted() and home.address() == key.address
    monkeypatch.delenv("OPENRESOURCE_PASSPHRASE_FILE", raising=False)
    with pytest.raises(WalletLocked):
        home.wallet()
    phrase = tmp_path / "phrase"
    phrase.write_text("correct horse\n")
    monkeypatch.setenv("OPENRESOURCE_PASSPHRASE_FILE", str(phrase))
    assert home.wallet().address == key.address


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"address": "0x00"}', '{"private_key": "zz", "address": ""}']
)
def test_a_broken_wallet_file_is_a_refusal_and_stays_as_it_is(tmp_path, content):
    home = Home(tmp_path)
    home.wallet_file.write_text(content)
    with pytest.raises(WalletUnreadable):
        home.wallet()
    assert home.wallet_file.read_text() == content


def test_a_lock_has_one_holder_and_names_it(tmp_path):
    home = Home(tmp_path)
    first = home.lock("provider")
    with pytest.raises(HomeInUse) as refusal:
        home.lock("provider")
    assert refusal.value.process == str(os.getpid())
    first.close()
    home.lock("provider").close()


def test_locks_leave_nothing_behind_and_many_who_want_one_get_it_in_turn(tmp_path):
    home = Home(tmp_path)
    with home.channel_lock("ab" * 8):
        assert [file.name for file in (tmp_path / "locks").iterdir()] == [f"channel-{'ab' * 8}.lock"]
        with pytest.raises(HomeInUse):
            home.channel_lock("ab" * 8)
    assert not list((tmp_path / "locks").iterdir())
    held, taken = threading.Lock(), []

    def take_often():
        while len(taken) < 200:
            try:
                lock = home.channel_lock("cd" * 8)
            except HomeInUse:
                continue
            assert held.acquire(blocking=False), "two held one lock"
            taken.append(1)
            held.release()
            lock.close()

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(take_often) for _ in range(4)]:
            done.result()


def test_limits_have_defaults_and_are_kept_as_texts_of_ain(tmp_path):
    home = Home(tmp_path)
    assert home.limits() == Limits()
    home.write_limits(Limits(per_call_uain=5, per_day_uain=10, channel_deposit_uain=20))
    assert home.limits() == Limits(5, 10, 20)
    assert json.loads((tmp_path / "limits.json").read_text())["per_call"] == "0.000005"


def test_settings_that_make_no_sense_are_refused_by_name(tmp_path):
    home = Home(tmp_path)
    (tmp_path / "limits.json").write_text('{"per_call": "a lot"}')
    with pytest.raises(BadSettings):
        home.limits()
    (tmp_path / "config.toml").write_text("node = ")
    with pytest.raises(BadSettings):
        home.node_url()
    with pytest.raises(BadSettings):
        Home(tmp_path / "other").node_url("ftp://somewhere")


def test_the_node_is_the_one_that_was_named_nearest(tmp_path, monkeypatch):
    home = Home(tmp_path)
    monkeypatch.delenv("OPENRESOURCE_NODE", raising=False)
    assert home.node_url() == "http://127.0.0.1:8080"
    home.write_config({"node": "http://config:1"})
    assert home.node_url() == "http://config:1"
    monkeypatch.setenv("OPENRESOURCE_NODE", "http://environment:2/")
    assert home.node_url() == "http://environment:2"
    assert home.node_url("http://given:3") == "http://given:3"
