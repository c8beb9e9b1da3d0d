"""Measures bio: weights against those that UniProt lists, and a gene that is found again in its own messenger."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from service import Bio

# Accession: name, mass in dalton as UniProt lists it, sequence.
PROTEINS = {
    "P01308": (
        "insulin, human, precursor", 11_981,
        "MALWMRLLPLLALLALWGPDPAAAFVNQHLCGSHLVEALYLVCGERGFFYTPKTRREAEDLQVGQVELGGGPGAGSLQPLALEGSLQKRGIVEQCCTSICSLYQLENYCN",
    ),
    "P69905": (
        "haemoglobin alpha, human", 15_258,
        "MVLSPADKTNVKAAWGKVGAHAGEYGAEALERMFLSFPTTKTYFPHFDLSHGSAQVKGHGKKVADALTNAVAHVDDMPNALSALSDLHAHKLRVDPVNFKLLSHCLLVTLAAHLPAEFTPAVHASLDKFLASVSTVLTSKYR",
    ),
    "P68871": (
        "haemoglobin beta, human", 15_998,
        "MVHLTPEEKSAVTALWGKVNVDEVGGEALGRLLVVYPWTQRFFESFGDLSTPDAVMGNPKVKAHGKKVLGAFSDGLAHLDNLKGTFATLSELHCDKLHVDPENFRLLGNVLVCVLAHHFGKEFTPPVQAAYQKVVAGVANALAHKYH",
    ),
    "P00698": (
        "lysozyme C, chicken, precursor", 16_239,
        "MRSLLILVLCFLPLAALGKVFGRCELAAAMKRHGLDNYRGYSLGNWVCAAKFESNFNTQATNRNTDGSTDYGILQINSRWWCNDGRTPGSRNLCNIPCSALLSSDITASVNCAKKIVSDGNGMNAWVAWRNRCKGTDVQAWIRGCRL",
    ),
    "P42212": (
        "green fluorescent protein", 26_886,
        "MSKGEELFTGVVPILVELDGDVNGHKFSVSGEGEGDATYGKLTLKFICTTGKLPVPWPTLVTTFSYGVQCFSRYPDHMKQHDFFKSAMPEGYVQERTIFFKDDGNYKTRAEVKFEGDTLVNRIELKGIDFKEDGNILGHKLEYNYNSHNVYIMADKQKNGIKVNFKIRHNIEDGSVQLADHYQQNTPIGDGPVLLPDNHYLSTQSALSKDPNEKRDHMVLLEFVTAAGITHGMDELYK",
    ),
}  # fmt: skip
# One codon for each amino acid, to write a messenger that codes for a known protein.
CODONS = dict(
    zip(
        "ACDEFGHIKLMNPQRSTVWY",
        "GCT TGC GAT GAA TTC GGT CAT ATC AAA CTG ATG AAC CCG CAG CGT TCT ACC GTT TGG TAC".split(),  # noqa: SIM905
        strict=True,
    )
)


def main() -> None:
    """Print the figures as JSON."""
    service, off, found = Bio(), [], 0
    for _, mass, sequence in PROTEINS.values():
        off.append(abs(service.protein(sequence).molecular_weight - mass))
        gene = "".join(CODONS[letter] for letter in sequence) + "TAA"
        messenger = "GCTTAACC" + gene + "CCTAGG"
        found += sequence in [one.protein for one in service.translate(messenger).genes]
    alike = service.align(PROTEINS["P69905"][2], PROTEINS["P68871"][2]).identity
    print(
        json.dumps(
            {
                "headline": f"weights of {len(off)} proteins within {max(off):.1f} Da of UniProt's; {found} of {len(off)} genes found again",
                "set": "five proteins of UniProt (insulin, two haemoglobins, lysozyme, green fluorescent protein)",
                "figures": {
                    "mass_difference_max": round(max(off), 2),
                    "genes_found": found / len(off),
                    "haemoglobin_identity": alike,
                },
            }
        )
    )


main()
