"""Measures entities on sentences that people wrote about software and data, labelled by hand."""

import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from service import Entities

# From Python's licence (PSF) and the descriptions of the data sets of scikit-learn (BSD-3) and statsmodels (public domain).
# [text|kind]; places are one kind, whether a state (GPE), a mountain (LOC) or a building (FAC).
LABELLED = """
Python was created in the [early 1990s|DATE] by [Guido van Rossum|PERSON] at [Stichting Mathematisch Centrum|ORG] in [the Netherlands|PLACE] as a successor of a language called ABC.
In [1995|DATE], [Guido|PERSON] continued his work on Python at [the Corporation for National Research Initiatives|ORG] in [Reston|PLACE], [Virginia|PLACE] where he released several versions of the software.
In [May 2000|DATE], [Guido|PERSON] and the Python core development team moved to BeOpen.com to form the BeOpen PythonLabs team.
In [October of the same year|DATE], the PythonLabs team moved to [Digital Creations|ORG], which became [Zope Corporation|ORG].
In [2001|DATE], [the Python Software Foundation|ORG] was formed, a non-profit organization created specifically to own Python-related Intellectual Property.
[Zope Corporation|ORG] was a sponsoring member of the PSF.
According to [Richard Stallman|PERSON], the version is not compatible, because its license has a choice of law clause.
Thanks to the many outside volunteers who have worked under [Guido|PERSON]'s direction to make these releases possible.
This dataset contains measurements on the annual flow of the [Nile|PLACE] as measured at [Ashwan|PLACE] for [100 years|DATE] from [1871-1970|DATE].
Atmospheric CO2 from Continuous Air Samples at [Mauna Loa Observatory|PLACE], [Hawaii|PLACE], [U.S.A.|PLACE]
This data contains the averaged monthly sea surface temperature of the [Pacific Ocean|PLACE] from [1950 to 2010|DATE] and was obtained from [NOAA|ORG].
Data obtained from the [Carbon Dioxide Information Analysis Center|ORG], [Oak Ridge National Laboratory|ORG], [U.S. Department of Energy|ORG], [Oak Ridge|PLACE], [Tennessee|PLACE].
It was originally published by [the Bureau of Labor Statistics|ORG].
The data here is data for the months of [June|DATE] only to avoid seasonal issues.
Yearly data on sunspots from [the National Geophysical Data Center|ORG].
[Jeff Gill|PERSON] describes the proportion of voters who voted Yes to grant [the Scottish Parliament|ORG] taxation powers.
The amount of council tax was collected in pounds sterling as of [April 1997|DATE] per two adults before adjustments.
The data was used by [James Cook University of North Queensland|ORG] with many others for comparing various classifiers.
[Gary B. Huang|PERSON], [Manu Ramesh|PERSON], [Tamara Berg|PERSON], and [Erik Learned-Miller|PERSON] work at [the University of Massachusetts|ORG].
[Richard Lippmann|PERSON], [Joshua W. Haines|PERSON] and [David J. Fried|PERSON] wrote about the [1999|DATE] evaluation of [DARPA|ORG].
[C. Kaynak|PERSON] wrote the thesis at [Bogazici University|ORG] in [1995|DATE].
The data set holds values for all 50 states plus [DC|PLACE], and numbers for [Illinois|PLACE] and [Minnesota|PLACE] do not include all crimes.
"""
PLACES = {"GPE": "PLACE", "LOC": "PLACE", "FAC": "PLACE"}
KINDS = ("PERSON", "ORG", "PLACE", "DATE")


def read(line: str) -> tuple[str, set[tuple[int, int, str]]]:
    """A line's text, and where its names are."""
    text, found, last = "", set(), 0
    for match in re.finditer(r"\[(.*?)\|(.*?)\]", line):
        text += line[last : match.start()]
        found.add((len(text), len(text) + len(match[1]), match[2]))
        text += match[1]
        last = match.end()
    return text + line[last:], found


def loose(span: tuple[int, int, str], text: str) -> tuple[int, int, str]:
    """A span without the article before it, which labellers treat in two ways."""
    start, end, kind = span
    if text[start:end].lower().startswith("the "):
        start += 4
    return start, end, kind


def main() -> None:
    """Print the figures as JSON."""
    service = Entities()
    service.setup()
    right, told, true = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0)
    for line in LABELLED.strip().splitlines():
        text, labelled = read(line)
        wanted = {loose(span, text) for span in labelled}
        spans = {(one.start, one.end, PLACES.get(one.kind, one.kind)) for one in service.find(text)}
        found = {loose(span, text) for span in spans if span[2] in KINDS}
        for kind in KINDS:
            right[kind] += sum(span[2] == kind for span in wanted & found)
            told[kind] += sum(span[2] == kind for span in found)
            true[kind] += sum(span[2] == kind for span in wanted)
    precision, recall = sum(right.values()) / sum(told.values()), sum(right.values()) / sum(true.values())
    score = 2 * precision * recall / (precision + recall)
    print(
        json.dumps(
            {
                "headline": f"F1 {score:.2f} (precision {precision:.2f}, recall {recall:.2f}) for people, organisations, places and dates, kind and both ends right",
                "set": f"22 sentences about software and data with {sum(true.values())} names, labelled by hand",
                "figures": {
                    "f1": round(score, 3),
                    **{f"recall_{kind.lower()}": round(right[kind] / true[kind], 3) for kind in KINDS},
                },
            }
        )
    )


main()
