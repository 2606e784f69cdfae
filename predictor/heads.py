"""The heads, all of them: importing this module enters each under its name.

A head of one's own is a subclass of `Head` with `@register_head("name")`. No head imports scikit-learn, torch or
LightGBM before it is fitted or given something else than a clean table.
"""

from __future__ import annotations

from .extra_trees_head import ExtraTreesHead
from .fuzzy_head import FuzzyMLPHead
from .gbdt_head import GBDTHead
from .gp_head import GPHead
from .head import HEADS, Head, HeadState, head_class, make_head, register_head
from .linear_head import BayesLinearHead, RidgeHead
from .mlp_head import MLPHead
from .pairwise_head import PairwiseHead

__all__ = [
    "HEADS",
    "BayesLinearHead",
    "ExtraTreesHead",
    "FuzzyMLPHead",
    "GBDTHead",
    "GPHead",
    "Head",
    "HeadState",
    "MLPHead",
    "PairwiseHead",
    "RidgeHead",
    "head_class",
    "make_head",
    "register_head",
]
