"""Human and mouse insulin by Biopython itself."""

from Bio.Align import PairwiseAligner, substitution_matrices
from timing import told

HUMAN = "MALWMRLLPLLALLALWGPDPAAAFVNQHLCGSHLVEALYLVCGERGFFYTPKTRREAEDLQVGQVELGGGPGAGSLQPLALEGSLQKRGIVEQCCTSICSLYQLENYCN"
MOUSE = "MALLVHFLPLLALLALWEPKPTQAFVKQHLCGPHLVEALYLVCGERGFFYTPKSRREVEDPQVEQLELGGSPGDLQTLALEVARQKRGIVDQCCTSICSLYQLENYCN"
tool = PairwiseAligner(
    mode="global",
    open_gap_score=-11,
    extend_gap_score=-1,
    substitution_matrix=substitution_matrices.load("BLOSUM62"),
)


def alignment() -> dict[str, object]:
    """The best one."""
    best = tool.align(HUMAN, MOUSE)[0]
    return {"score": best.score, "first": str(best[0]), "second": str(best[1])}


told("align", {"first": HUMAN, "second": MOUSE}, alignment)
