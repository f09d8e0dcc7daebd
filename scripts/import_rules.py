"""A contract type for import-linter: a module imports what is listed and nothing else.

`forbidden` contracts name what must not be imported; a start-up budget needs the opposite, because
any module of the standard library that nobody thought of would spend it.
"""

from __future__ import annotations

from typing import cast

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class AllowedOnlyContract(Contract):
    """Direct imports of `modules` are a subset of `allowed`; a package covers what is inside it."""

    type_name = "allowed_only"

    modules = fields.SetField(subfield=fields.StringField())
    allowed = fields.SetField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Compare each module's imports with the list.

        Raises:
            ValueError: a module of the contract does not exist, so the rule would guard nothing.
        """
        allowed = cast("set[str]", self.allowed)
        foreign: dict[str, list[str]] = {}
        for module in sorted(cast("set[str]", self.modules)):
            if module not in graph.modules:
                message = f"contract 'allowed_only' names {module}, which does not exist"
                raise ValueError(message)
            imported = graph.find_modules_directly_imported_by(module)
            extra = sorted(name for name in imported if not _covered(name, allowed))
            if extra:
                foreign[module] = extra
        return ContractCheck(kept=not foreign, metadata={"foreign": foreign})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print one line per import too many."""
        for module, names in check.metadata["foreign"].items():
            for name in names:
                output.print_error(f"{module} may not import {name}", bold=False)


def _covered(name: str, allowed: set[str]) -> bool:
    """Tell whether `name` or a package above it is listed."""
    parts = name.split(".")
    return any(".".join(parts[:end]) in allowed for end in range(1, len(parts) + 1))
