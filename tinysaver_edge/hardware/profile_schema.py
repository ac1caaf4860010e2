"""What a device profile holds: the schema of `devices/*.toml`, checked when one is read."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Text = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EngineTable(_Strict):
    """One way to run models on the device."""

    engine: Text
    device: Text
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    note: str = ""


class FactTable(_Strict):
    """Something that somebody has published about the device."""

    fact: Text
    source: Text


class LatencyTable(_Strict):
    """How long a model takes on the device, by somebody's word."""

    model: Text
    engine: Text
    device: Text
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    mean_ms: Positive
    source: Text


class BudgetsTable(_Strict):
    """Limits in force on the device unless others are asked for; named as on the command line."""

    mean_macs: Positive | None = None
    mean_latency_ms: Positive | None = None
    p95_latency_ms: Positive | None = None
    p99_latency_ms: Positive | None = None
    escalation_rate: Fraction | None = None
    memory_mb: Positive | None = None


class VerifiedTable(_Strict):
    """What somebody ran on the device itself, and what nobody has."""

    on_hardware: bool
    ran: list[Text] = Field(default_factory=list)
    not_run: list[Text] = Field(default_factory=list)


class SetupTable(_Strict):
    """How to set such a device up."""

    steps: list[Text] = Field(default_factory=list)


class ProfileTable(_Strict):
    """A whole profile."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    description: Text
    kind: Literal["board", "jetson", "computer", "server"]
    boards: list[Text] = Field(default_factory=list)
    memory_mb: Annotated[int, Field(gt=0)] | None = None
    power_w: Positive | None = None
    engines: Annotated[list[EngineTable], Field(min_length=1)]
    published: list[FactTable] = Field(default_factory=list)
    latencies: list[LatencyTable] = Field(default_factory=list)
    budgets: BudgetsTable = Field(default_factory=BudgetsTable)
    setup: SetupTable = Field(default_factory=SetupTable)
    verified: VerifiedTable
