"""How a query and its instruction become one text."""

from __future__ import annotations


def instruction_block(instruction: str | None) -> str:
    """What follows the query: blank line, `Instructions:` line, the text; "" for none."""
    text = (instruction or "").strip()
    return f"\n\nInstructions:\n{text}" if text else ""


def with_instruction(query: str, instruction: str | None) -> str:
    """The query, and below it the instruction; exactly the query when there is none."""
    return query + instruction_block(instruction)
