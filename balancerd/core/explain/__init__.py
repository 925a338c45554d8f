"""Answers to an operator's questions about a decision, as values.

Why does this VM move, or stay? Why not to that host, and what would have to change? What waits
for what? Nothing here decides anything: the same layout, rules and checker are asked as in
planning.
"""

from balancerd.core.explain.answer import Answer, Decision, Fact
from balancerd.core.explain.graph import Graph, as_dot, as_svg, graph_of_hosts, graph_of_moves
from balancerd.core.explain.why import why
from balancerd.core.explain.why_not import why_not

__all__ = [
    "Answer",
    "Decision",
    "Fact",
    "Graph",
    "as_dot",
    "as_svg",
    "graph_of_hosts",
    "graph_of_moves",
    "why",
    "why_not",
]
