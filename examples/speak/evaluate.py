"""Measures speak: another network (examples/listen) writes down what it said. Argument: folder of the runtimes."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from service import Speaker

# Opening sentences of novels in the public domain, and what assistants say every day.
SENTENCES = (
    "It was the best of times, it was the worst of times.",
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife.",
    "Call me Ishmael.",
    "All happy families are alike; each unhappy family is unhappy in its own way.",
    "There was no possibility of taking a walk that day.",
    "You will rejoice to hear that no disaster has accompanied the commencement of an enterprise.",
    "The family of Dashwood had long been settled in Sussex.",
    "Marley was dead: to begin with, there is no doubt whatever about that.",
    "Mr. Sherlock Holmes, who was usually very late in the mornings, was seated at the breakfast table.",
    "Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do.",
    "Your parcel will arrive between nine and eleven tomorrow morning.",
    "Please stand clear of the doors.",
    "The next train to the airport leaves from platform four.",
    "Turn left after the bridge, then keep right.",
    "It will rain in the afternoon, so take an umbrella with you.",
    "Your balance is low, and the last payment was refused.",
    "The meeting was moved to Thursday, because the room is taken.",
    "Press the red button twice to start the machine again.",
    "The temperature in the kitchen has fallen below the usual level.",
    "Thank you for calling, and have a pleasant evening.",
)


def words(text: str) -> list[str]:
    """A text's words, without case, points and hyphens."""
    numbers = {"4": "four", "9": "nine", "11": "eleven"}
    return [numbers.get(word, word) for word in re.findall(r"[a-z0-9']+", text.lower().replace("-", " "))]


def distance(one: list[str], other: list[str]) -> int:
    """Words to change, add or leave out."""
    row = list(range(len(other) + 1))
    for at, word in enumerate(one, 1):
        before, row[0] = row[0], at
        for to, against in enumerate(other, 1):
            before, row[to] = row[to], min(row[to] + 1, row[to - 1] + 1, before + (word != against))
    return row[-1]


def main() -> None:
    """Print the figures as JSON."""
    speaker = Speaker()
    speaker.setup()
    listener = Path(__file__).parents[1] / "listen" / "evaluate.py"
    (python,) = Path(sys.argv[1]).glob("speech-*/bin/python")
    with tempfile.TemporaryDirectory() as folder:
        for number, sentence in enumerate(SENTENCES):
            Path(folder, f"{number}.wav").write_bytes(speaker.say(sentence).wav)
        command = [str(python), "-I", str(listener), "--texts", folder]
        heard = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    wrong = [
        distance(words(heard[str(number)]), words(sentence)) for number, sentence in enumerate(SENTENCES)
    ]
    count = sum(len(words(sentence)) for sentence in SENTENCES)
    print(
        json.dumps(
            {
                "headline": f"{sum(wrong) / count:.1%} of words understood wrongly by another network; {sum(one == 0 for one in wrong)} of {len(wrong)} sentences word for word",
                "set": f"{len(SENTENCES)} sentences ({count} words): openings of novels and announcements; written down by Whisper tiny.en",
                "figures": {
                    "words_misheard": round(sum(wrong) / count, 4),
                    "sentences_whole": sum(one == 0 for one in wrong),
                },
            }
        )
    )


main()
