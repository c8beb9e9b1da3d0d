"""A mixed review by VADER itself."""

from timing import told
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

TEXT = "The room was lovely and the staff were kind, but the noise at night was terrible."
analyzer = SentimentIntensityAnalyzer()
told("analyze", {"text": TEXT}, lambda: {"score": analyzer.polarity_scores(TEXT)["compound"]})
