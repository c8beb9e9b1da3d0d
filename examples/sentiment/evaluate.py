"""Measures sentiment on short reviews that were written and labelled for it, with the traps that such texts have."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from service import Sentiment

POSITIVE = (
    "Great value, arrived early, works perfectly.", "I love this kettle!", "Best headphones I ever had.", "The staff were friendly and helpful.",
    "Not bad at all.", "I was sceptical, but it is fantastic.", "Could not be happier with it.", "Nothing to complain about.",
    "The battery lasts and lasts.", "A pleasure to use every day.", "My kids adore it.", "It does exactly what it says.",
    "The soup was delicious :)", "No problems so far, highly recommended.", "What a wonderful evening!", "I would buy it again without hesitation.",
    "Small, light and surprisingly powerful.", "They replaced it for free within a day.", "Five stars.", "It never let me down.",
)  # fmt: skip
NEGATIVE = (
    "Broke after two days.", "Terrible service, never again.", "The screen is dim and the sound is awful.", "I want my money back.",
    "Not good.", "I hate the new menu.", "It was a waste of time.", "The food was cold and the waiter was rude.",
    "Looks cheap and feels cheap.", "Great, it stopped working again.", "The instructions are useless.", "Worst purchase of the year.",
    "The film was boring.", "It smells bad :(", "I regret buying this.", "The room was dirty.",
    "Delivery took six weeks.", "The app crashes all the time.", "One star is one too many.", "I expected better.",
)  # fmt: skip


def main() -> None:
    """Print the figures as JSON."""
    service = Sentiment()
    service.setup()
    good = [service.analyze(text)["label"] for text in POSITIVE]
    bad = [service.analyze(text)["label"] for text in NEGATIVE]
    right = good.count("positive") + bad.count("negative")
    wrong = good.count("negative") + bad.count("positive")
    count = len(POSITIVE) + len(NEGATIVE)
    print(
        json.dumps(
            {
                "headline": f"{right / count:.0%} right, {wrong / count:.0%} the wrong way round, the rest called neutral",
                "set": f"{count} short reviews, half of them good, written for this with irony, negation and plain facts among them",
                "figures": {"right": right / count, "wrong": wrong / count},
            }
        )
    )


main()
