"""Measures search: questions in one language, the passage that answers in another, among forty."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from service import Search

# Question, the passage that answers it; every passage is a wrong answer to the other questions.
PAIRS = (
    ("Where can I leave my bicycle?", "Fahrräder bitte nur im Hof abstellen."), ("When does the museum close?", "El museo cierra a las seis de la tarde."),
    ("How do I borrow money?", "A bank can give you a loan."), ("Wann fährt der letzte Zug?", "The last train leaves at 23:40."),
    ("¿Dónde puedo aparcar?", "Le parking se trouve derrière l'hôtel."), ("May I bring my dog?", "Hunde sind an der Leine zu führen."),
    ("What does a ticket cost?", "L'entrée coûte douze euros."), ("Wie werde ich einen Fleck los?", "Cold water and a little salt take red wine out of cloth."),
    ("Why is the sky blue?", "Kurze Wellen des Lichts werden in der Luft stärker gestreut."), ("How do plants make food?", "Durch Photosynthese entsteht aus Licht und Kohlendioxid Zucker."),
    ("Who discovered penicillin?", "Alexander Fleming remarqua en 1928 qu'un champignon tuait des bactéries."), ("¿Qué causa las mareas?", "The moon's gravity pulls at the water of the oceans."),
    ("How do I save energy at home?", "Eine Dämmung des Dachs senkt die Heizkosten."), ("What helps against a cold?", "Viel trinken und schlafen, wenn die Nase läuft."),
    ("How long does an egg take?", "Boil it for seven minutes if you like it soft."), ("Comment faire du pain ?", "Mix flour, water, yeast and salt, and let the dough rise."),
    ("Is the shop open on Sunday?", "Sonntags bleibt der Laden geschlossen."), ("Which documents do I need to marry?", "Für die Eheschließung braucht man Geburtsurkunde und Ausweis."),
    ("How do I change a tyre?", "Desmonta la rueda después de aflojar las tuercas."), ("What is the speed limit in town?", "Innerorts gilt Tempo 50."),
    ("Wie hoch ist der Mount Everest?", "The highest mountain rises 8,849 metres above the sea."), ("How many bones has a human?", "Un adulto tiene 206 huesos."),
    ("What language is spoken in Brazil?", "En Amérique du Sud, on parle portugais dans le plus grand pays."), ("Who painted the Mona Lisa?", "Leonardo da Vinci malte die Dame mit dem Lächeln."),
    ("How does a vaccine work?", "Le corps apprend à reconnaître un virus sans tomber malade."), ("Why do leaves change colour?", "Im Herbst baut der Baum das Blattgrün ab."),
    ("What should I do in an earthquake?", "Métase debajo de una mesa y espere."), ("Wie reinige ich meine Brille?", "Warm water, a drop of soap and a soft cloth make lenses clear."),
    ("Can I pay by card?", "Aceptamos tarjetas y efectivo."), ("How do I reach the airport?", "Der Bus 128 fährt alle zehn Minuten zum Flughafen."),
    ("When are taxes due?", "Die Steuererklärung muss bis Ende Juli abgegeben werden."), ("How do I open an account?", "Pour ouvrir un compte, présentez une pièce d'identité."),
    ("What do cats eat?", "Los gatos comen sobre todo carne."), ("Was kostet ein Brief nach Frankreich?", "Postage for a letter abroad is one euro and ten."),
    ("Where do penguins live?", "Pinguine leben auf der südlichen Halbkugel."), ("How do I learn to swim?", "Mit einem Kurs im Hallenbad verliert man die Angst vor dem Wasser."),
    ("What is inflation?", "Les prix montent et l'argent vaut moins."), ("How do I stop a nosebleed?", "Inclínese hacia delante y apriete la nariz."),
    ("Which planet is the largest?", "Jupiter ist größer als alle anderen Planeten zusammen."), ("What do I feed sourdough?", "Nourrissez le levain avec de la farine et de l'eau."),
)  # fmt: skip


def main() -> None:
    """Print the figures as JSON."""
    service = Search()
    service.setup()
    passages = [passage for _, passage in PAIRS]
    first = among = 0
    for question, passage in PAIRS:
        told = [one["passage"] for one in service.search(question, passages, top=3)]
        first += told[0] == passage
        among += passage in told
    print(
        json.dumps(
            {
                "headline": f"the right passage is first for {first / len(PAIRS):.0%} of questions and among three for {among / len(PAIRS):.0%}, most across languages",
                "set": f"{len(PAIRS)} questions and as many passages in English, German, Spanish and French, written for this",
                "figures": {"first": first / len(PAIRS), "among_three": among / len(PAIRS)},
            }
        )
    )


main()
