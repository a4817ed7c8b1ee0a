"""Probabilities that mean what they say: a temperature within the weights, and thresholds for a wished precision.

`main` is the command. `temperature` fits, `folding` divides the weights of the last linear layer, `thresholds` finds
from which probability on answers are right often enough, and `report` shows all of it.
"""
