"""How the services are told to follow a JSON schema: one function for each form of request."""

import json
from typing import Any

from cache.rows.spec import SamplingSpec

# Name of the schema at the service, and of the tool whose arguments are the answer.
SCHEMA_NAME = "answer"


def response_format(sampling: SamplingSpec, schema_form: str = "json_schema") -> dict[str, Any]:
    """The key `response_format` of OpenAI's API and of vLLM's server; nothing without a schema.

    schema_form: "json_object" asks for any JSON object. Services with that form want the word JSON in the prompt.
    """
    if not sampling.json_schema:
        return {}
    if schema_form == "json_object":
        return {"response_format": {"type": "json_object"}}
    schema = {"name": SCHEMA_NAME, "strict": True, "schema": json.loads(sampling.json_schema)}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def forced_tool(sampling: SamplingSpec) -> dict[str, Any]:
    """The keys `tools` and `tool_choice` of Anthropic's API: one tool that must be called; nothing without a schema."""
    if not sampling.json_schema:
        return {}
    tool = {
        "name": SCHEMA_NAME,
        "description": "Takes the answer.",
        "input_schema": json.loads(sampling.json_schema),
    }
    return {"tools": [tool], "tool_choice": {"type": "tool", "name": SCHEMA_NAME}}
