"""Measures listen on recordings of people; needs Debian's package pocketsphinx-testdata. Argument: ignored, or --texts FOLDER."""

import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from service import Listener

FOLDER = Path("/usr/share/pocketsphinx/test/data")
NUMBERS = {
    str(number): word
    for number, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    )
}


def words(text: str) -> list[str]:
    """A text's words as they sound: no case, no points, numbers in letters."""
    text = re.sub(r"<.*?>|\(.*?\)", " ", text.lower()).replace("-", " ").replace("mr.", "mister")
    return [NUMBERS.get(word, word) for word in re.findall(r"[a-z0-9']+", text)]


def distance(one: list[str], other: list[str]) -> int:
    """Words to change, add or leave out."""
    row = list(range(len(other) + 1))
    for at, word in enumerate(one, 1):
        before, row[0] = row[0], at
        for to, against in enumerate(other, 1):
            before, row[to] = row[to], min(row[to] + 1, row[to - 1] + 1, before + (word != against))
    return row[-1]


def wrong_words(listener: Listener, name: str) -> tuple[int, int]:
    """How many words of a set are wrong, and how many it has."""
    folder = FOLDER / name
    listed = (folder / "transcription" if name == "librivox" else folder / "cards.transcription").read_text()
    wrong = count = 0
    for line in listed.splitlines():
        (file,) = re.findall(r"\((.*?)\)\s*$", line)
        truth = words(line)
        told = words(listener.transcribe((folder / f"{file}.wav").read_bytes()).text)
        wrong += distance(told, truth)
        count += len(truth)
    return wrong, count


def main() -> None:
    """Print the figures as JSON; with --texts, what is said in each WAV file of a folder, and nothing else."""
    listener = Listener()
    listener.setup()
    if sys.argv[1:2] == ["--texts"]:
        files = sorted(Path(sys.argv[2]).glob("*.wav"))
        print(json.dumps({file.stem: listener.transcribe(file.read_bytes()).text for file in files}))
        return
    read, cards = wrong_words(listener, "librivox"), wrong_words(listener, "cards")
    print(
        json.dumps(
            {
                "headline": f"{read[0] / read[1]:.1%} of words wrong in a novel read aloud, {cards[0] / cards[1]:.0%} in names of playing cards",
                "set": f"Debian's pocketsphinx-testdata: five sentences of LibriVox ({read[1]} words), five of playing cards ({cards[1]} words)",
                "figures": {
                    "read_words_wrong": round(read[0] / read[1], 4),
                    "cards_words_wrong": round(cards[0] / cards[1], 4),
                },
            }
        )
    )


if __name__ == "__main__":
    main()
