"""How right the labels of a store are, and how right a classifier is: held against multi-labels, or against each other."""

from labelstore.evaluation.evaluate import Evaluation, evaluate_predictions, evaluate_store
from labelstore.evaluation.metrics import AtThreshold, Report
from labelstore.evaluation.multilabels import MultiLabels, read_multilabels, stored_multilabels
from labelstore.evaluation.predictions import Predictions, read_predictions

__all__ = [
    "AtThreshold",
    "Evaluation",
    "MultiLabels",
    "Predictions",
    "Report",
    "evaluate_predictions",
    "evaluate_store",
    "read_multilabels",
    "read_predictions",
    "stored_multilabels",
]
