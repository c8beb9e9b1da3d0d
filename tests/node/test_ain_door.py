"""The door of an AI Network node: limits, origins, lists of addresses, administration, what is never shown."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from openresource.node.ain.configurations import configuration_of
from openresource.node.ain.limits import CALLERS_MAX, CrossOrigin, Window, body_bytes_max, is_whitelisted
from openresource.node.ain.parameters import DEFAULTS, NodeParameters
from openresource.node.ain.status import metric_name
from openresource.node.ain.traffic import Traffic
from openresource.primitives.encoding import canonical_json
from openresource.primitives.keys import PrivateKey, generate_key, sign_message, sign_transaction
from openresource.primitives.sealing import seal
from tests.node.ain_served import NOW_MS, StillNode, account

TRANSFER = "SET_VALUE"


def transfer(sender: PrivateKey, number: int, **more: Any) -> dict[str, Any]:
    path = f"/transfer/{sender.address}/{account(1).address}/{number}/value"
    operation = {"type": TRANSFER, "ref": path, "value": 1}
    return {"operation": operation, "nonce": -1, "timestamp": NOW_MS + number, "gas_price": 0, **more}


def signed(sender: PrivateKey, number: int, **more: Any) -> dict[str, Any]:
    body = transfer(sender, number, **more)
    return {"tx_body": body, "signature": sign_transaction(body, sender, 0)}


def administered(node: StillNode, method: str, key: PrivateKey | None = None, **more: Any) -> Any:
    message = {"method": method, "timestamp": node.clock_ms, **more}
    signature = sign_message(canonical_json(message), key or account(0), 0)
    return node.call(method, message=message, signature=signature)


@pytest.fixture(scope="module")
def quiet() -> StillNode:
    """A node that nobody changes."""
    return StillNode({"ENABLE_EXPRESS_RATE_LIMIT": "false"})


# Limits.


def test_requests_are_counted_per_caller_and_minute() -> None:
    node = StillNode({"MAX_BLOCKCHAIN_API_RATE_LIMIT": "0.05"})
    answers = [node.ask("GET", "/last_block_number") for _ in range(4)]
    assert [one.status for one in answers] == [200, 200, 200, 429]
    assert answers[0].headers["x-ratelimit-remaining"] == "2"
    assert answers[3].body == b"Too many requests, please try again later."
    assert int(answers[3].headers["retry-after"]) <= 60
    assert node.ask("GET", "/last_block_number", caller="127.0.0.2").status == 200
    node.clock_ms += 60_000
    assert node.ask("GET", "/last_block_number").status == 200


def test_writes_have_a_limit_of_their_own_and_dry_runs_are_reads() -> None:
    node = StillNode(
        {"MAX_JSON_RPC_API_WRITE_RATE_LIMIT": "0.02", "MAX_JSON_RPC_API_READ_RATE_LIMIT": "0.05"}
    )
    wire = signed(account(2), 1)
    assert node.rpc("ain_sendSignedTransaction", **wire).status == 200
    assert node.rpc("ain_sendSignedTransaction", **wire).status == 429
    reads = [node.rpc("ain_sendSignedTransactionDryrun", **wire).status for _ in range(4)]
    assert reads == [200, 200, 200, 429]
    batch = json.dumps([{"jsonrpc": "2.0", "method": "ain_sendSignedTransaction", "id": 1}]).encode()
    assert node.ask("POST", "/json-rpc?protoVer=1.0.0", batch, caller="10.0.0.9").status == 200


def test_a_request_of_another_version_is_refused_before_it_counts() -> None:
    node = StillNode({"MAX_JSON_RPC_API_READ_RATE_LIMIT": "0.02"})
    old = json.dumps({"jsonrpc": "2.0", "method": "net_getChainId", "params": {}, "id": 1}).encode()
    for _ in range(3):
        assert node.ask("POST", "/json-rpc", old).json["code"] == 30101
    assert node.rpc("net_getChainId").status == 200
    assert node.rpc("net_getChainId").status == 429


def test_callers_cannot_fill_the_memory() -> None:
    window = Window(lambda: NOW_MS)
    for number in range(CALLERS_MAX + 10):
        count = window.count(f"caller {number}", 1, 60)
    assert count.used == 10


def test_bodies_are_bounded_before_and_while_they_are_read(quiet: StillNode) -> None:
    assert quiet.ask("POST", "/json-rpc", b"{}", headers={"content-length": "200000"}).status == 413
    large = b'{"a": "' + b"x" * 102_400 + b'"}'
    assert quiet.ask("POST", "/set_value", large, headers={"content-length": "9"}).status == 413
    assert quiet.ask("POST", "/json-rpc", b"[" * 5_000).status == 400
    assert quiet.ask("POST", "/json-rpc", b"3").status == 400
    assert quiet.ask("GET", "/get_value?" + "a=1&" * 100).status == 400
    assert quiet.ask("GET", "/get_value?ref=" + "a" * 20_000).status == 414


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("100kb", 102_400),
        ("1mb", 1_048_576),
        ("512", 512),
        ("1.5KB", 1_536),
        ("many", 102_400),
        ("99gb", 64 << 20),
    ],
)
def test_a_size_is_read_as_it_is_written(text: str, size: int) -> None:
    assert body_bytes_max(text) == size


# Origins and addresses.


def test_pages_of_listed_origins_may_read(quiet: StillNode) -> None:
    listed = quiet.ask("GET", "/last_block_number", headers={"origin": "https://insight.ainetwork.ai"})
    assert listed.headers["access-control-allow-origin"] == "https://insight.ainetwork.ai"
    foreign = quiet.ask("GET", "/last_block_number", headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in foreign.headers and foreign.headers["vary"] == "Origin"
    for near in ("https://ainize.ai.evil.example", "https://evil.example/https://ainize.ai"):
        assert (
            "access-control-allow-origin"
            not in quiet.ask("GET", "/last_block_number", headers={"origin": near}).headers
        )
    asked = {"origin": "http://localhost:3000", "access-control-request-headers": "content-type"}
    preflight = quiet.ask("OPTIONS", "/json-rpc", headers=asked)
    assert preflight.status == 204 and preflight.body == b""
    assert preflight.headers["access-control-allow-headers"] == "content-type"
    assert "POST" in preflight.headers["access-control-allow-methods"]


def test_an_asterisk_lets_every_page_read() -> None:
    assert CrossOrigin(None).headers("https://any.example") == [(b"access-control-allow-origin", b"*")]
    assert CrossOrigin(["(unclosed"]).headers("https://any.example") == [(b"vary", b"Origin")]


def test_routes_of_developers_are_for_listed_addresses() -> None:
    node = StillNode({"DEV_CLIENT_API_IP_WHITELIST": "127.0.0.1,::2", "ENABLE_EXPRESS_RATE_LIMIT": "false"})
    refused = node.ask("GET", "/get_address", caller="10.0.0.9")
    assert (refused.status, refused.body) == (403, b"IP not whitelisted")
    assert node.ask("GET", "/nothing", caller="10.0.0.9").status == 403
    assert node.ask("GET", "/last_block_number", caller="10.0.0.9").status == 200
    assert node.rpc("net_getChainId", caller="10.0.0.9").status == 200
    for caller in ("127.0.0.1", "::ffff:127.0.0.1", "0:0:0:0:0:0:0:2"):
        assert node.ask("GET", "/get_address", caller=caller).json["result"] == account(0).address
    assert not is_whitelisted("no address", ["no address"])


def test_forms_of_web_pages_write_nothing(quiet: StillNode) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    answered = quiet.ask("POST", "/set_value", b"ref=/apps/a&value=1", headers=form)
    assert answered.json == {"code": 40001, "result": {"tx_hash": None, "result": False}}
    assert quiet.call("ain_getTransactionPoolSizeUtilization")["result"]["used"] == 0


# Keys and secrets.


def test_a_key_is_never_shown() -> None:
    node = StillNode({"ENABLE_EXPRESS_RATE_LIMIT": "false"})
    secret = account(0).to_bytes().hex()
    for path in ("/get_config", "/status", "/metrics", "/node_status"):
        answered = node.ask("GET", path)
        assert answered.status == 200 and secret not in answered.body.decode()
    assert node.ask("GET", "/get_config").json["result"]["nodeConfigs"]["UNSAFE_PRIVATE_KEY"] == "***"
    assert administered(node, "ain_getNodeParam", param="UNSAFE_PRIVATE_KEY")["result"] == "***"
    told = administered(node, "ain_setNodeParam", param="UNSAFE_PRIVATE_KEY", value="77" * 32)
    assert "77" * 32 not in json.dumps(told)


def test_only_the_owner_of_the_account_administers(quiet: StillNode) -> None:
    assert administered(quiet, "ain_getNodeParam", param="PORT")["result"] == DEFAULTS["PORT"]
    assert administered(quiet, "ain_getNodeParam", account(1), param="PORT")["code"] == 30501
    for far_ms in (-10 * 60 * 1000 - 1, 10 * 60 * 1000 + 1):
        message = {"method": "ain_getNodeParam", "param": "PORT", "timestamp": NOW_MS + far_ms}
        signature = sign_message(canonical_json(message), account(0), 0)
        stale = quiet.call("ain_getNodeParam", message=message, signature=signature)
        assert stale == {"result": False, "code": 30501, "message": "Forbidden request.", "protoVer": "1.6.0"}
    for odd in (None, 5, [], {"method": "ain_getNodeParam", "timestamp": NOW_MS, "param": {}}):
        assert quiet.call("ain_getNodeParam", message=odd, signature="0x00")["code"] == 30501


def test_what_an_administrator_changes_counts_at_once() -> None:
    node = StillNode({"ENABLE_EXPRESS_RATE_LIMIT": "false"})
    listed = {"type": "GET", "op_list": [{"ref": "/a"}] * 3}
    assert len(node.call("ain_get", **listed)["result"]) == 3
    told = administered(node, "ain_setNodeParam", param="GET_OP_LIST_SIZE_LIMIT", value="2")
    assert told["message"] == 'Param [GET_OP_LIST_SIZE_LIMIT] is now set as: "2"'
    refused = node.call("ain_get", **listed)
    assert refused["code"] == 30004 and refused["message"].endswith("3 > 2")
    administered(node, "ain_setNodeParam", param="ENABLE_EXPRESS_RATE_LIMIT", value="true")
    assert "x-ratelimit-limit" in node.ask("GET", "/last_block_number").headers


def test_an_account_is_injected_once_and_only_sealed() -> None:
    node = StillNode({"ENABLE_EXPRESS_RATE_LIMIT": "false"}, is_begun=False)
    assert node.call("ain_getAddress")["result"] is None
    refused = node.call("ain_sendSignedTransaction", **signed(account(2), 1))
    assert refused["result"] == {"tx_hash": None, "result": False}
    public_key = bytes.fromhex(node.call("ain_getBootstrapPubKey")["result"])
    once = generate_key(b"a key for one message of a test.")
    plain = account(3).to_bytes().hex().encode()
    sealed = seal(plain, public_key, once=once, iv=bytes(16))
    broken = {**sealed, "mac": "00" * 32}
    assert node.call("ain_injectAccountFromPrivateKey", encryptedPrivateKey=broken)["result"] is False
    assert node.call("ain_injectAccountFromPrivateKey", encryptedPrivateKey=[1])["result"] is False
    assert node.call("ain_injectAccountFromHDWallet", encryptedMnemonic=sealed, index=-1)["result"] is False
    assert node.call("ain_injectAccountFromPrivateKey", encryptedPrivateKey=sealed)["result"] is True
    assert node.call("ain_getAddress")["result"] == account(3).address
    assert node.call("ain_getBootstrapPubKey")["result"] is None
    assert node.call("ain_injectAccountFromPrivateKey", encryptedPrivateKey=sealed)["result"] is False


# Switches.


def test_without_its_api_a_node_answers_only_peers_and_owners() -> None:
    node = StillNode({"ENABLE_JSON_RPC_API": "false", "ENABLE_EXPRESS_RATE_LIMIT": "false"})
    assert node.call("net_getChainId")["error"]["code"] == -32601
    assert node.call("p2p_getPeerCandidateInfo")["result"]["address"] == account(0).address
    assert administered(node, "ain_getNodeParam", param="PORT")["result"] == DEFAULTS["PORT"]


def test_without_routes_of_developers_nobody_writes_by_them() -> None:
    node = StillNode({"ENABLE_DEV_CLIENT_SET_API": "false", "ENABLE_EXPRESS_RATE_LIMIT": "false"})
    body = json.dumps({"ref": "/apps/a", "value": 1}).encode()
    assert node.ask("POST", "/set_value", body).status == 404
    assert node.ask("GET", "/get_value?ref=/apps").json == {"code": 0, "result": None}


def test_a_message_of_the_consensus_goes_to_the_peers_as_it_is() -> None:
    message = {"type": "vote", "value": {"hash": "0x1"}, "consensusProtoVer": "1.0.0"}
    body = json.dumps(message).encode()
    node = StillNode({"ENABLE_EXPRESS_RATE_LIMIT": "false"})
    assert node.ask("POST", "/broadcast_consensus_msg", body).json == {"code": 0, "result": True}
    assert node.broadcast == [message]
    closed = StillNode({"ENABLE_DEV_CLIENT_SET_API": "false", "ENABLE_EXPRESS_RATE_LIMIT": "false"})
    assert closed.ask("POST", "/broadcast_consensus_msg", body).status == 404
    assert closed.broadcast == []


def test_matches_of_global_paths_name_the_way_to_the_shard(tmp_path: Path) -> None:
    parameters = copy.deepcopy(configuration_of("1-node")["blockchain_params"])
    parameters["sharding"].update(sharding_protocol="POA", sharding_path="/apps/part")
    (tmp_path / "blockchain_params.json").write_text(json.dumps(parameters))
    node = StillNode({"BLOCKCHAIN_CONFIGS_DIR": str(tmp_path), "ENABLE_EXPRESS_RATE_LIMIT": "false"})
    ref, below = "/transfer/a/b/c/value", "/apps/part/transfer/a/b/c/value"

    def both(method: str) -> tuple[Any, Any]:
        local = node.call(method, ref=ref)["result"]
        assert node.call(method, ref=ref, is_global=True)["result"] is None
        return local, node.call(method, ref=below, is_global=True)["result"]

    def moved(match: Any) -> Any:
        """A local match with the way to the shard before its paths."""
        config = match["matched_config"]
        paths = {
            name: f"/apps/part{path}" if isinstance(path, str) and path != "/" else path
            for name, path in match["matched_path"].items()
        }
        before = "/apps/part" if config["path"] == "/" else f"/apps/part{config['path']}"
        return {**match, "matched_path": paths, "matched_config": {**config, "path": before}}

    local, seen = both("ain_matchFunction")
    assert "_transfer" in local["matched_config"]["config"] and seen == moved(local)
    local, seen = both("ain_matchRule")
    assert seen == {name: moved(match) for name, match in local.items()}
    assert seen["write"]["matched_path"]["ref_path"] == below
    local, seen = both("ain_matchOwner")
    assert local["matched_path"] == {"target_path": "/"}
    assert seen["matched_path"] == {"target_path": "/apps/part"}
    assert seen["matched_config"] == {**local["matched_config"], "path": "/apps/part"}
    query = f"/match_function?is_global=true&ref={below}"
    assert node.ask("GET", query).json["result"]["matched_path"]["ref_path"] == below
    # What a rule says is told without the way, as its evaluation happens inside.
    allowed = [
        node.call("ain_evalRule", ref=ref, value=1),
        node.call("ain_evalRule", ref=below, value=1, is_global=True),
    ]
    assert allowed[0] == allowed[1]


def test_an_address_counts_as_a_signature_only_where_it_was_said() -> None:
    other = account(4)
    unsigned = transfer(other, 7, address=other.address)
    body = json.dumps({"tx_list": [unsigned]}).encode()
    plain = StillNode({"ENABLE_EXPRESS_RATE_LIMIT": "false"})
    assert plain.ask("POST", "/batch", body).json == {"code": 0, "result": []}
    wire = {"tx_body": unsigned, "signature": "0x" + "12" * 97}
    assert plain.call("ain_sendSignedTransaction", **wire)["code"] == 30304
    loose = StillNode({"ENABLE_TX_SIG_VERIF_WORKAROUND": "true", "ENABLE_EXPRESS_RATE_LIMIT": "false"})
    (answered,) = loose.ask("POST", "/batch", body).json["result"]
    assert answered["result"]["code"] == 0
    assert loose.call("ain_sendSignedTransaction", **wire)["result"]["result"]["code"] == 10701


def test_signatures_may_be_looked_at_late_and_are_looked_at() -> None:
    node = StillNode({"ENABLE_EARLY_TX_SIG_VERIF": "false", "ENABLE_EXPRESS_RATE_LIMIT": "false"})
    wire = {**signed(account(2), 1), "signature": signed(account(2), 2)["signature"]}
    answered = node.call("ain_sendSignedTransaction", **wire)["result"]
    assert answered["result"]["code"] == 10703 and answered["tx_hash"] == wire["signature"][:66]


def test_a_node_may_let_nothing_go_for_free() -> None:
    node = StillNode({"ENABLE_GAS_FEE_WORKAROUND": "false", "ENABLE_EXPRESS_RATE_LIMIT": "false"})
    assert node.call("ain_sendSignedTransaction", **signed(account(2), 1))["code"] == 30303
    paid = signed(account(2), 2, gas_price=500)
    assert node.call("ain_sendSignedTransaction", **paid)["result"]["result"]["code"] == 0


def test_answers_have_a_largest_size() -> None:
    limits = {
        "GET_RESP_BYTES_LIMIT": "1000",
        "GET_RESP_MAX_SIBLINGS": "5",
        "ENABLE_EXPRESS_RATE_LIMIT": "false",
    }
    node = StillNode(limits)
    accounts = node.call("ain_get", type="GET_VALUE", ref="/accounts")
    assert accounts["code"] == 30003 and accounts["result"] is None
    assert "max sibling limit of the requested node: 11 > 5" in accounts["message"]
    page = node.call("ain_get", type="GET_VALUE", ref="/accounts", is_partial=True)["result"]
    assert len(page) == 6 and page["#end_label"]
    rules = node.call("ain_matchRule", ref="/transfer")["result"]
    assert rules["code"] == 30002 and set(rules) == {"code", "message"}
    both = node.call(
        "ain_get", type="GET", op_list=[{"ref": "/accounts"}, {"type": "NOPE"}, {"ref": "/none"}]
    )
    assert both["result"] == [None, None]


# Small things.


def test_parameters_are_read_as_their_defaults_are() -> None:
    given = {
        "ENABLE_EXPRESS_RATE_LIMIT": "False",
        "PORT": "9999",
        "FREE_TX_POOL_SIZE_LIMIT_RATIO": "0.5",
        "PEER_WHITELIST": "a,b",
        "HOSTING_ENV": "gcp",
        "STAKE": "5",
        "SOMETHING": "else",
    }
    parameters = NodeParameters.from_environment(given, {"DEBUG": True})
    assert parameters.flag("ENABLE_EXPRESS_RATE_LIMIT") is False and parameters.flag("DEBUG") is True
    assert parameters.number("PORT") == 9999 and parameters.number("FREE_TX_POOL_SIZE_LIMIT_RATIO") == 0.5
    assert parameters.whitelist("PEER_WHITELIST") == ["a", "b"]
    assert parameters.whitelist("DEV_CLIENT_API_IP_WHITELIST") is None
    assert parameters.text("HOSTING_ENV") == "gcp" and "SOMETHING" not in parameters
    assert set(parameters.environment_shown()) == set(given) - {"SOMETHING"}


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("p2p", "p_2_p"),
        ("clientApi", "client_api"),
        ("stateNumeric", "state_numeric"),
        ("#tree_bytes", "tree_bytes"),
        ("0x00ADEc28B6a845", "0_x_00_ad_ec_28_b_6_a_845"),
    ],
)
def test_members_have_names_that_metrics_can_have(key: str, name: str) -> None:
    assert metric_name(key) == name


def test_traffic_tells_of_closed_intervals() -> None:
    traffic = Traffic()
    traffic.add("block_size", 100, NOW_MS, is_block_time=True)
    traffic.add("block_size", 300, NOW_MS + 1_000, is_block_time=True)
    periods = {"1m": 60, "5m": 300, "odd": 0}
    told = traffic.stats(periods, NOW_MS + 2_000)
    assert told["1m"] == {"block_size": {"rate": 1 / 60, "metric": 100}} and told["odd"] == {}
    assert traffic.stats(periods, NOW_MS + 61_000)["5m"]["block_size"] == {"rate": 2 / 300, "metric": 200}
    assert traffic.stats(periods, NOW_MS + 7_200_000)["5m"] == {}
