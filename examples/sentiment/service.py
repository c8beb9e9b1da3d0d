"""How does a text feel? From -1 (awful) to 1 (wonderful), in a tenth of a millisecond."""

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer


class Sentiment:
    """VADER: a lexicon and a handful of grammar rules, made for short English texts."""

    def setup(self) -> None:
        """Read the lexicon once."""
        self.analyzer = SentimentIntensityAnalyzer()

    def analyze(self, text: str) -> dict:
        """Score one text."""
        scores = self.analyzer.polarity_scores(text)
        compound = scores["compound"]
        label = "positive" if compound >= 0.05 else "negative" if compound <= -0.05 else "neutral"
        return {
            "label": label,
            "score": compound,
            "positive": scores["pos"],
            "neutral": scores["neu"],
            "negative": scores["neg"],
        }
