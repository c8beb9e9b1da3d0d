"""Works on biological sequences: what a protein weighs and is like, how two sequences align, what a gene says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from Bio.Align import PairwiseAligner, substitution_matrices
from Bio.Data import CodonTable
from Bio.Seq import Seq
from Bio.SeqUtils import gc_fraction
from Bio.SeqUtils.ProtParam import ProteinAnalysis

RESIDUES_MAX = 20_000
# Aligning takes time and memory by the product of both lengths.
ALIGNED_CELLS_MAX = 16_000_000
GENES_MAX = 200
AMINO_ACIDS = frozenset("ACDEFGHIKLMNPQRSTVWY")
BASES = frozenset("ACGTN")
BLOSUM62 = substitution_matrices.load("BLOSUM62")

Protein = Annotated[str, "one-letter codes", {"minLength": 1, "maxLength": RESIDUES_MAX}]
Dna = Annotated[str, "A, C, G, T (or U), N", {"minLength": 3, "maxLength": RESIDUES_MAX}]


@dataclass
class Properties:
    """What a protein's sequence alone tells."""

    length: int
    molecular_weight: float
    isoelectric_point: float
    gravy: float
    aromaticity: float
    instability_index: float
    is_stable: bool
    extinction_reduced: int
    extinction_cystines: int
    helix: float
    turn: float
    sheet: float
    composition: dict[str, float]


@dataclass
class Alignment:
    """Two sequences, one below the other, with gaps; matches are bars."""

    score: float
    identity: float
    identical: int
    length: int
    gaps: int
    first: str
    bars: str
    second: str


@dataclass
class Gene:
    """A stretch from start to stop codon: its strand, its first and last base (from 1), its protein."""

    strand: Literal["+", "-"]
    start: int
    end: int
    protein: str


@dataclass
class Translation:
    """A DNA sequence read in its first frame, and all open reading frames on both strands."""

    protein: str
    gc: float
    genes: list[Gene]


class Bio:
    """Biopython's tools behind three questions."""

    def protein(self, sequence: Protein) -> Properties:
        """Weight, isoelectric point, hydropathy, stability and more of a protein."""
        residues = clean(sequence, AMINO_ACIDS, "amino acids")
        analysis = ProteinAnalysis(residues)
        helix, turn, sheet = analysis.secondary_structure_fraction()
        reduced, cystines = analysis.molar_extinction_coefficient()
        instability = analysis.instability_index()
        return Properties(
            length=len(residues),
            molecular_weight=round(analysis.molecular_weight(), 2),
            isoelectric_point=round(analysis.isoelectric_point(), 2),
            gravy=round(analysis.gravy(), 3),
            aromaticity=round(analysis.aromaticity(), 3),
            instability_index=round(instability, 2),
            is_stable=instability < 40,
            extinction_reduced=reduced,
            extinction_cystines=cystines,
            helix=round(helix, 3),
            turn=round(turn, 3),
            sheet=round(sheet, 3),
            composition={
                name: round(residues.count(name) / len(residues), 4) for name in sorted(set(residues))
            },
        )

    def align(
        self,
        first: Annotated[str, {"minLength": 1, "maxLength": RESIDUES_MAX}],
        second: Annotated[str, {"minLength": 1, "maxLength": RESIDUES_MAX}],
        kind: Literal["protein", "dna"] = "protein",
        mode: Literal["global", "local"] = "global",
    ) -> Alignment:
        """Align two proteins (BLOSUM62) or two stretches of DNA, over their whole length or their best part."""
        alphabet, what = (AMINO_ACIDS, "amino acids") if kind == "protein" else (BASES, "bases")
        one, two = clean(first, alphabet, what), clean(second, alphabet, what)
        if len(one) * len(two) > ALIGNED_CELLS_MAX:
            raise ValueError(f"the lengths' product is above {ALIGNED_CELLS_MAX}; align shorter stretches")
        alignments = aligner(kind, mode).align(one, two)
        if len(alignments) == 0:
            return Alignment(0.0, 0.0, 0, 0, 0, "", "", "")
        best = alignments[0]
        above, below = str(best[0]), str(best[1])
        bars = "".join(
            "|" if a == b else " " if "-" in (a, b) else "." for a, b in zip(above, below, strict=True)
        )
        return Alignment(
            score=float(best.score),
            identity=round(bars.count("|") / len(bars), 4),
            identical=bars.count("|"),
            length=len(bars),
            gaps=bars.count(" "),
            first=above,
            bars=bars,
            second=below,
        )

    def translate(
        self,
        dna: Dna,
        table: Annotated[int, "NCBI's number of the genetic code", {"minimum": 1, "maximum": 33}] = 1,
        shortest: Annotated[int, "amino acids of a gene", {"minimum": 1, "maximum": 10_000}] = 30,
    ) -> Translation:
        """Translate DNA and find its open reading frames on both strands."""
        if table not in CodonTable.unambiguous_dna_by_id:
            raise ValueError(f"there is no genetic code {table}")
        bases = Seq(clean(dna.upper().replace("U", "T"), BASES, "bases"))
        whole = bases[: len(bases) - len(bases) % 3]
        genes = [
            *genes_of(str(bases), "+", table, shortest),
            *genes_of(str(bases.reverse_complement()), "-", table, shortest),
        ]
        return Translation(
            protein=str(whole.translate(table=table)),
            gc=round(gc_fraction(bases), 4),
            genes=sorted(genes, key=lambda gene: (-len(gene.protein), gene.start))[:GENES_MAX],
        )


def clean(sequence: str, alphabet: frozenset[str], what: str) -> str:
    """A sequence in capitals, without white space and FASTA headers, of known letters only."""
    lines = [line for line in sequence.splitlines() if not line.startswith((">", ";"))]
    letters = "".join("".join(lines).split()).upper().removesuffix("*")
    unknown = sorted(set(letters) - alphabet)
    if unknown:
        raise ValueError(f"{', '.join(unknown[:5])} stands for none of the {what}")
    if not letters:
        raise ValueError("the sequence is empty")
    return letters


def aligner(kind: str, mode: str) -> PairwiseAligner:
    """The usual scores: BLOSUM62 with gaps of 11 and 1 for proteins, 2, -1, -3 and -1 for DNA."""
    tool = PairwiseAligner(mode=mode)
    if kind == "protein":
        tool.substitution_matrix = BLOSUM62
        tool.open_gap_score, tool.extend_gap_score = -11, -1
    else:
        tool.match_score, tool.mismatch_score = 2, -1
        tool.open_gap_score, tool.extend_gap_score = -3, -1
    return tool


def genes_of(bases: str, strand: Literal["+", "-"], table: int, shortest: int) -> list[Gene]:
    """Stretches from the first start codon to a stop codon, in the three frames of one strand."""
    code = CodonTable.unambiguous_dna_by_id[table]
    stops, found = set(code.stop_codons), []
    for frame in range(3):
        begin = -1
        for at in range(frame, len(bases) - 2, 3):
            codon = bases[at : at + 3]
            if codon == "ATG" and begin < 0:
                begin = at
            elif codon in stops:
                if begin >= 0 and (at - begin) // 3 >= shortest:
                    protein = str(Seq(bases[begin:at]).translate(table=table))
                    first, last = begin + 1, at + 3
                    if strand == "-":
                        first, last = len(bases) - last + 1, len(bases) - first + 1
                    found.append(Gene(strand, first, last, protein))
                begin = -1
    return found
