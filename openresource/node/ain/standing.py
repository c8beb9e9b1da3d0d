"""How the consensus of a node stands, in the forms in which AI Network's clients ask for it."""

from __future__ import annotations

from typing import Any

from openresource.node.ain.chain import AinChain
from openresource.node.ain.parameters import NodeParameters
from openresource.node.ain.rounds import STATES, Rounds
from openresource.primitives.keys import PrivateKey

Facts = dict[str, Any]


def consensus_status(rounds: Rounds | None, chain: AinChain, key: PrivateKey | None) -> Facts:
    """State, epoch, validators, and the rewards of this node once there are some."""
    validators = {} if rounds is None else rounds.validators
    state = STATES[0] if rounds is None else rounds.state
    status: Facts = {
        "health": rounds is not None and rounds.is_healthy(),
        "state": state,
        "stateNumeric": STATES.index(state),
        "epoch": 1 if rounds is None else rounds.epoch,
        "isInEpochTransition": rounds is not None and rounds.is_in_transition,
        "validators": {address: {**terms, "voting_right": True} for address, terms in validators.items()},
        "globalTimeSyncStatus": {},
    }
    if key is not None:
        rewards = chain.front.read_value(("consensus", "rewards", key.address))
        if rewards is not None:
            status["rewards"] = rewards
    return status


def raw_consensus_status(rounds: Rounds | None, chain: AinChain) -> Facts:
    """The consensus with all blocks that are not final."""
    consensus = chain.consensus
    entries = consensus.entries()
    numbers: list[int | str] = []
    following: dict[str, list[str]] = {"": [chain.genesis["hash"]]}
    for entry in entries:
        # AI Network's node files blocks under their numbers and, for their votes, under those as texts.
        numbers += [number for number in (entry.number, str(entry.number)) if number not in numbers]
        if entry.number > 0:
            following.setdefault(entry.block["last_hash"], []).append(entry.hash)
    return {
        "consensus": {
            "epoch": 1 if rounds is None else rounds.epoch,
            "proposer": None if rounds is None else rounds.proposer,
            "state": STATES[0] if rounds is None else rounds.state,
        },
        "block_pool": {
            "hashToBlockInfo": {
                entry.hash: {
                    "block": entry.block,
                    "proposal": entry.proposal,
                    "votes": entry.votes,
                    "tallied": entry.tally,
                    "notarized": consensus.is_notarised(entry.hash),
                }
                for entry in entries
            },
            "hashToInvalidBlockInfo": {
                offence.block["hash"]: {
                    "block": offence.block,
                    "proposal": offence.proposal,
                    "votes": offence.votes,
                }
                for offence in consensus.offences()
            },
            "hashToDb": [entry.hash for entry in entries],
            "hashToNextBlockSet": following,
            "epochToBlock": [entry.epoch for entry in entries],
            "numberToBlockSet": numbers,
            "longestNotarizedChainTips": [tip.hash for tip in consensus.longest_tips()],
        },
    }


def no_links(parameters: NodeParameters) -> Facts:
    """The state of the links of a node that has not begun to look for others."""
    return {
        "state": "STARTING",
        "stateNumeric": 0,
        "isConnectingToPeerCandidates": False,
        "peerConnectionStartedAt": None,
        "peerConnectionElapsedTime": 0,
        "maxInbound": int(parameters.number("MAX_NUM_INBOUND_CONNECTION")),
        "targetOutBound": int(parameters.number("TARGET_NUM_OUTBOUND_CONNECTION")),
        "peerConnectionsInProgress": [],
        "peerCandidates": [],
        "numInbound": 0,
        "numOutbound": 0,
        "numConnections": 0,
        "numPeerConnectionsInProgress": 0,
        "numPeerCandidates": 0,
        "incomingPeers": [],
        "outgoingPeers": [],
    }
