"""Measures chat: plain facts, and simple instructions, by whether a word that must be in the answer is."""

import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from service import Chat

FACTS = (
    ("What is the capital of France?", "paris"), ("What is the capital of Japan?", "tokyo"), ("Which planet is the largest?", "jupiter"),
    ("What is the chemical symbol of gold?", "au"), ("Who wrote Romeo and Juliet?", "shakespeare"), ("How many days has a week?", "seven|7"),
    ("What colour is the sky on a clear day?", "blue"), ("What is frozen water called?", "ice"), ("In which country is Rome?", "italy"),
    ("What is 2 plus 3?", "5|five"), ("What is 7 times 8?", "56"), ("Which animal says moo?", "cow"), ("Who was the first man on the moon?", "armstrong"),
    ("In which year did the second world war end?", "1945"), ("What is the largest ocean?", "pacific"), ("What is the opposite of hot?", "cold"),
    ("Which language is spoken in Brazil?", "portuguese"), ("How many legs has a spider?", "eight|8"), ("What gas do plants take in?", "carbon"), ("Who painted the Mona Lisa?", "leonardo|vinci"),
)  # fmt: skip
TASKS = (
    ("Say hello in French.", "bonjour"), ("Name a fruit that is yellow.", "banana|lemon|pineapple|mango"), ("Write the word house in capital letters.", "HOUSE"),
    ("Summarise in one sentence: The train was late because snow lay on the tracks.", "snow|late"), ("Turn into a question: You like tea.", "?"),
    ("Name a month in summer.", "june|july|august"), ("Complete: The early bird catches the", "worm"), ("What is the plural of mouse?", "mice"),
    ("Rewrite politely: Give me the report.", "please|could|would"), ("Name the first letter of the alphabet.", "a"),
)  # fmt: skip


def right(service: Chat, asked: tuple[tuple[str, str], ...]) -> tuple[float, int, float]:
    """The share of right answers, and how many tokens came in how many seconds."""
    hits, tokens, began = 0, 0, time.process_time()
    for prompt, wanted in asked:
        told = service.ask(prompt, max_tokens=40)
        text = told["text"] if wanted.isupper() else told["text"].lower()
        hits += any(word in text for word in wanted.split("|"))
        tokens += told["answer_tokens"]
    return hits / len(asked), tokens, time.process_time() - began


def main() -> None:
    """Print the figures as JSON."""
    service = Chat()
    with tempfile.TemporaryDirectory() as folder:
        # The model's door is a file there; a sandbox has a folder of its own anyway.
        tempfile.tempdir = folder
        service.setup()
    facts, tasks = right(service, FACTS), right(service, TASKS)
    speed = (facts[1] + tasks[1]) / (facts[2] + tasks[2])
    print(
        json.dumps(
            {
                "headline": f"{facts[0]:.0%} of plain facts right, {tasks[0]:.0%} of small tasks done; about {speed:.0f} tokens a second of processor time, prompts included",
                "set": f"{len(FACTS)} questions of fact and {len(TASKS)} small tasks, written for this; a word that must be there decides",
                "figures": {"facts": facts[0], "tasks": tasks[0], "tokens_a_second": round(speed, 1)},
            }
        )
    )


main()
