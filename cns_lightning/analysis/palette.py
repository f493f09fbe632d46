"""The colours and markers of every chart."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's, which colour-blind readers tell apart; of a middling lightness, for any paper."""
BLACK = "#000000"
MARKERS = "osD^vP*X"
