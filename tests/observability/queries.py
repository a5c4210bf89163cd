"""PromQL, taken apart: which metrics with which labels a query names."""

from collections.abc import Iterator, Mapping

import promql_parser

# Grafana puts a duration in their place.
VARIABLES = {"$__rate_interval": "5m", "$__interval": "10s"}


def parse(query: str) -> promql_parser.Expr:
    """Raises ``ValueError``."""
    for variable, duration in VARIABLES.items():
        query = query.replace(variable, duration)
    return promql_parser.parse(query)


def faults(query: str, labels_by_sample: Mapping[str, frozenset[str]]) -> list[str]:
    """What a query names that nobody exports."""
    return list(_faults(parse(query), labels_by_sample))


def _faults(expr: promql_parser.Expr, known: Mapping[str, frozenset[str]]) -> Iterator[str]:
    selectors = list(_selectors(expr))
    for selector in selectors:
        if selector.name not in known:
            yield f"{selector.name} is not exported"
            continue
        for matcher in selector.matchers.matchers:
            if matcher.name not in known[selector.name]:
                yield f"{selector.name} has no label {matcher.name}"
    for aggregate in _aggregates(expr):
        inside = [known[one.name] for one in _selectors(aggregate.expr) if one.name in known]
        for label in aggregate.modifier.labels if aggregate.modifier else ():
            if not all(label in labels for labels in inside):
                yield f"{aggregate.prettify()}: a metric inside has no label {label}"


def _selectors(expr: promql_parser.Expr) -> Iterator[promql_parser.VectorSelector]:
    for node in _nodes(expr):
        if isinstance(node, promql_parser.VectorSelector):
            yield node


def _aggregates(expr: promql_parser.Expr) -> Iterator[promql_parser.AggregateExpr]:
    for node in _nodes(expr):
        if isinstance(node, promql_parser.AggregateExpr):
            yield node


def _nodes(expr: promql_parser.Expr) -> Iterator[promql_parser.Expr]:
    yield expr
    children: list[promql_parser.Expr] = []
    if isinstance(expr, promql_parser.BinaryExpr):
        children = [expr.lhs, expr.rhs]
    elif isinstance(expr, promql_parser.Call):
        children = list(expr.args)
    elif isinstance(expr, promql_parser.MatrixSelector):
        children = [expr.vector_selector]
    elif isinstance(
        expr,
        promql_parser.AggregateExpr | promql_parser.ParenExpr | promql_parser.SubqueryExpr | promql_parser.UnaryExpr,
    ):
        children = [expr.expr]
    for child in children:
        yield from _nodes(child)
