"""The section about trackers, in which groups keep all their experiments."""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, GetJsonSchemaHandler, field_validator, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from voxelsoup.study.sections.base import Section

Tool = Literal["mlflow", "wandb", "none"]


class Tracking(Section):
    """Which tracker the runs are mirrored to; no result depends on it."""

    tool: Tool = Field(
        "none",
        description="`mlflow` (`pip install 'voxelsoup[mlflow]'`), `wandb` (`pip install "
        "'voxelsoup[wandb]'`) or `none`. TensorBoard events are written in any case.",
    )
    address: str | None = Field(
        None,
        description="Address of the tracker's server, as `https://mlflow.example.org`. Without it "
        "nothing leaves the machine: MLflow's runs lie in `mlflow/`, W&B's in `wandb/` of the "
        "results folder. User names, passwords and keys do not belong here: the tracker takes "
        "them from its own environment variables (docs/tracking.md).",
    )
    experiment: str | None = Field(
        None,
        pattern=r"^[^/\\#?%:\s][^/\\#?%:]{0,99}$",
        description="MLflow's experiment, W&B's project. By default the name of the folder that "
        "the results folder lies in.",
    )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The section, or its short form: editors must not mark it as a mistake."""
        section = handler.resolve_ref_schema(handler(core))
        text = {"enum": ["mlflow", "wandb", "none"], "description": "the tool alone"}
        return {"title": "Tracking", "anyOf": [section, text]}

    @model_validator(mode="before")
    @classmethod
    def _accept_a_tool(cls, value: Any) -> Any:
        return {"tool": value} if isinstance(value, str) else value

    @field_validator("address")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            parts = urlsplit(value)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise ValueError(f"is no address: {error}") from None
        if parts.username is not None or parts.password is not None or parts.query:
            # The study is copied into results and reports.
            raise ValueError(
                "holds a user, a password or a key: leave it out of the study and set the "
                "tracker's environment variables instead"
            )
        if parts.scheme not in ("http", "https") or not host:
            raise ValueError("is no address such as https://mlflow.example.org")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _address_goes_with_a_tool(self) -> Tracking:
        if self.tool == "none" and self.address is not None:
            raise ValueError("`address` goes with `tool: mlflow` or `tool: wandb`")
        return self
