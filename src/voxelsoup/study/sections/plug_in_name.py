"""Settings whose values are names of the project's own things, or of those of other packages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from voxelsoup.common.plug_ins import (
    BUILT_IN,
    ONE,
    UnknownPlugIn,
    check_one_meaning,
    find,
    offered,
    unknown,
)


@dataclass(frozen=True)
class NameOf:
    """For ``Annotated[str, NameOf("losses")]``: a name of this kind, checked without importing.

    Attributes:
        kind: of plug-ins (``plug_ins.ONE``).
        also: words that are allowed beside the names.
        without: built-in names that are not allowed.
    """

    kind: str
    also: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    @property
    def known(self) -> tuple[str, ...]:
        """The names that need no package."""
        return (*self.also, *(name for name in BUILT_IN[self.kind] if name not in self.without))

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """A text that ``check`` accepts."""
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """For editors: they complete the known names and accept any other one."""
        text = handler(schema)
        return {"anyOf": [{"enum": list(self.known), **text}, text]} if self.known else text

    def check(self, name: str) -> str:
        """Give the name back if there is such a thing, and only one; else raise ValueError."""
        if name in self.known:
            check_one_meaning(self.kind, name)
        elif "." in name or name in offered(self.kind):
            find(self.kind, name)
        elif self.kind != "networks":
            raise UnknownPlugIn(unknown(self.kind, name, self.known))
        return name

    def __str__(self) -> str:
        """What may stand there, for the reference."""
        own = ", ".join(f"`{name}`" for name in self.known)
        other = f"a {ONE[self.kind]} of another package"
        return f"{own}, or {other}" if own else f"text, or {other}"
