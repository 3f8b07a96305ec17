"""Bounds on what one GraphQL request may make the server do.

Depth is measured on the text, before any parser sees it: parsers recurse, some of them in C, and a deep text must not decide
how much stack there is.
"""

from __future__ import annotations

from typing import Any

from graphql import (
    ASTValidationRule,
    GraphQLError,
    Lexer,
    OperationDefinitionNode,
    Source,
    TokenKind,
    ValidationContext,
)

MAX_DEPTH = 100
MAX_TOKENS = 50_000
MAX_ROOT_FIELDS = 10
MAX_FIELDS = 500

_OPENING = {TokenKind.BRACE_L, TokenKind.BRACKET_L, TokenKind.PAREN_L}
_CLOSING = {TokenKind.BRACE_R, TokenKind.BRACKET_R, TokenKind.PAREN_R}


def check_query(text: str) -> None:
    """Refuse the text of a query that nests more than 100 levels deep, or is longer than 50,000 tokens.

    Raises:
        GraphQLError: it does, it is, or it is no GraphQL.
    """
    lexer = Lexer(Source(text))
    depth = 0
    for _ in range(MAX_TOKENS):
        kind = lexer.advance().kind
        if kind is TokenKind.EOF:
            return
        depth += (kind in _OPENING) - (kind in _CLOSING)
        if depth > MAX_DEPTH:
            raise GraphQLError(f"the query is nested more than {MAX_DEPTH} levels deep")
    raise GraphQLError(f"the query is longer than {MAX_TOKENS} tokens")


class QueryLimits(ASTValidationRule):
    """Refuses documents that ask for too many fields."""

    def __init__(self, context: ValidationContext) -> None:
        super().__init__(context)
        self._fields = 0

    def enter_field(self, *_: Any) -> None:
        """Count the fields of the whole document, fragments included."""
        self._fields += 1
        if self._fields == MAX_FIELDS + 1:
            self.report_error(GraphQLError(f"the query names more than {MAX_FIELDS} fields"))

    def enter_operation_definition(self, node: OperationDefinitionNode, *_: Any) -> None:
        """Each field at the root is a submission, a validation or an introspection of its own."""
        if len(node.selection_set.selections) > MAX_ROOT_FIELDS:
            self.report_error(GraphQLError(f"the query has more than {MAX_ROOT_FIELDS} fields at its root"))
