"""What jobs refer to is kept as long as their records stand."""

from __future__ import annotations

import asyncio

from openresource.ledger.tree import Tree
from openresource.node.service import content_roots


def test_sealed_inputs_and_outputs_of_jobs_are_kept_until_the_job_is_folded() -> None:
    tree = Tree()
    tree.write(["values", "programs", "bafyprogram"], {"name": "x"})
    executions = {"0xa": {"output_cid": "bafyoutput"}, "0xb": {"role": "worker"}}
    open_job = {"request": {"input_cid": "bafyinput"}, "executions": executions}
    tree.write(["values", "jobs", "open"], open_job)
    tree.write(["values", "jobs", "public"], {"request": {"input": 1}})
    tree.write(["values", "jobs", "old"], {"folded": "ACCEPTED - - 1 2"})
    assert sorted(asyncio.run(content_roots(tree))) == ["bafyinput", "bafyoutput", "bafyprogram"]
