"""GET /openapi.json: the calls over HTTP as an OpenAPI document."""

from __future__ import annotations

from typing import Any

import orjson

from trtinfer._core import __version__
from trtinfer.server.datatypes import DATATYPES
from trtinfer.server.http.message import BINARY, JSON, Request, Response
from trtinfer.server.http.routes import Routes
from trtinfer.server.http.tensors import LENGTH_HEADER
from trtinfer.server.metrics import CONTENT_TYPE

Schema = dict[str, Any]

_LENGTH = "Bytes of the JSON before raw tensors; 0: the body is one sample's bare elements"
_COUNT: Schema = {"type": "integer", "minimum": 0}
_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}


class OpenApiCall:
    """The handler of /openapi.json."""

    def __init__(self) -> None:
        """Write the document."""
        self._body = orjson.dumps(document())

    def add_to(self, routes: Routes) -> None:
        """Add the call to a table."""
        routes.add("GET", "/openapi.json", self._send)

    async def _send(self, request: Request) -> Response:
        return Response(200, (self._body,))


def document() -> Schema:
    """Return the document; the page at / is for people and not in it."""
    paths: dict[str, Schema] = {
        "/classify": {"post": _classify()},
        "/metrics": {"get": _get("What the server counts", {CONTENT_TYPE: {"schema": _TEXT}})},
        "/openapi.json": {"get": _get("This document", _json({"type": "object"}))},
        "/v2": {"get": _get("The server", _json(_ref("ServerMetadata")))},
        "/v2/health/live": {"get": _get("The server runs", _json(_ref("Live")))},
        "/v2/health/ready": {"get": _ready()},
        "/v2/models/stats": {"get": _get("What all models did", _json(_ref("Statistics")))},
        "/v2/repository/index": {
            "post": _post("The models", _body({"ready": _FLAG}), _json(_list(_ref("Model"))))
        },
    }
    for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        paths |= _model_calls(path)
    for action in ("load", "unload"):
        parameters = {"parameters": {"type": "object"}}
        path = f"/v2/repository/models/{{name}}/{action}"
        paths[path] = {"post": _post(f"{action.title()} a model", _body(parameters))}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "trtinfer",
            "version": __version__,
            "description": "The Open Inference Protocol, version 2, with Triton's extensions.",
        },
        "paths": {
            path: _with_parameters(path, operations)
            for path, operations in (paths | _memory_calls() | _setting_calls()).items()
        },
        "components": {
            "schemas": _schemas(),
            "responses": {"Error": {"description": "Why not", "content": _json(_ref("Error"))}},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


# --- Calls ----------------------------------------------------------------------------------------


def _model_calls(path: str) -> dict[str, Schema]:
    infer = _post("Infer", None, _json(_ref("InferenceResponse")) | _binary())
    infer["parameters"] = [
        {"name": LENGTH_HEADER, "in": "header", "schema": _COUNT, "description": _LENGTH}
    ]
    infer["requestBody"] = {
        "required": True,
        "content": _json(_ref("InferenceRequest")) | _binary(),
    }
    return {
        path: {"get": _get("A model's inputs and outputs", _json(_ref("ModelMetadata")))},
        f"{path}/ready": {"get": _get("A model takes requests", _json(_ref("ModelReady")))},
        f"{path}/config": {"get": _get("A model's configuration", _json(_ref("ModelConfig")))},
        f"{path}/stats": {"get": _get("What a model did", _json(_ref("Statistics")))},
        f"{path}/infer": {"post": infer},
    }


def _memory_calls() -> dict[str, Schema]:
    handle = {"type": "object", "properties": {"b64": _TEXT}, "required": ["b64"]}
    kinds = {
        "system": {"key": _TEXT, "offset": _COUNT, "byte_size": _COUNT},
        "cuda": {"raw_handle": handle, "device_id": _COUNT, "byte_size": _COUNT},
    }
    paths: dict[str, Schema] = {}
    for kind, fields in kinds.items():
        region = _object({"name": _TEXT, **fields}, ["name", "byte_size"])
        base = f"/v2/{kind}sharedmemory"
        for path in (base, f"{base}/region/{{name}}"):
            paths[f"{path}/status"] = {"get": _get("Regions", _json(_list(region)))}
            paths[f"{path}/unregister"] = {"post": _post("Forget regions", None)}
        body = _body(fields, [name for name in fields if name not in ("offset", "device_id")])
        paths[f"{base}/region/{{name}}/register"] = {"post": _post("Register a region", body)}
    return paths


def _setting_calls() -> dict[str, Schema]:
    paths: dict[str, Schema] = {}
    for path, name in (
        ("/v2/trace/setting", "TraceSettings"),
        ("/v2/models/{name}/trace/setting", "TraceSettings"),
        ("/v2/logging", "LogSettings"),
    ):
        answer = _json(_ref(name))
        body = {"content": _json(_ref(f"{name}Change"))}
        paths[path] = {"get": _get("Settings", answer), "post": _post("Change", body, answer)}
    return paths


def _classify() -> Schema:
    pair = {**_list({"type": ["number", "string"]}), "minItems": 2, "maxItems": 2}
    answer = {"type": "object", "additionalProperties": {"anyOf": [_list(pair), _ref("Error")]}}
    form = {"type": "object", "additionalProperties": {"type": "string", "format": "binary"}}
    operation = _post("Labels of pictures, by name", None, _json(answer))
    # Pictures fail one by one: where all do, the answer says why of each.
    why = {"anyOf": [answer, _ref("Error")]}
    operation["responses"]["4XX"] = {"description": "Why not", "content": _json(why)}
    top_k = {"type": "integer", "minimum": 1, "maximum": 100_000, "default": 5}
    operation["parameters"] = [
        {"name": "top_k", "in": "query", "schema": top_k},
        {"name": "model", "in": "query", "schema": _TEXT},
    ]
    content = {"multipart/form-data": {"schema": form}, "image/*": _binary()[BINARY]}
    operation["requestBody"] = {"required": True, "content": content}
    return operation


def _ready() -> Schema:
    operation = _get("The server takes requests", _json(_ref("Ready")))
    operation["responses"]["503"] = {"description": "It does not", "content": _json(_ref("Ready"))}
    return operation


def _get(summary: str, content: Schema | None = None) -> Schema:
    answer: Schema = {"description": summary}
    if content is not None:
        answer["content"] = content
    error = {"$ref": "#/components/responses/Error"}
    return {"summary": summary, "responses": {"200": answer, "4XX": error, "503": error}}


def _post(summary: str, body: Schema | None, content: Schema | None = None) -> Schema:
    operation = _get(summary, content)
    if body is not None:
        operation["requestBody"] = body
    return operation


def _with_parameters(path: str, operations: Schema) -> Schema:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    if not names:
        return operations
    kinds = {"name": {**_TEXT, "minLength": 1}, "version": {**_TEXT, "pattern": "^[0-9]+$"}}
    return {
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": kinds[name]} for name in names
        ],
        **operations,
    }


# --- Schemas --------------------------------------------------------------------------------------


def _schemas() -> dict[str, Schema]:
    parameters = {"type": "object"}
    datatype = {"enum": list(DATATYPES)}
    shape = _list(_COUNT)
    tensor = {"name": _TEXT, "datatype": datatype, "shape": _list({"type": "integer"})}
    sent = {**tensor, "shape": shape, "data": {"type": "array"}, "parameters": parameters}
    wanted = {"name": _TEXT, "parameters": parameters}
    model = {"name": _TEXT, "version": _TEXT, "state": _TEXT, "reason": _TEXT}
    return {
        "Error": _object({"error": _TEXT}),
        "Live": _object({"live": _FLAG}),
        "Ready": _object({"live": _FLAG, "ready": _FLAG}),
        "ModelReady": _object({"name": _TEXT, "ready": _FLAG}),
        "ServerMetadata": _object({"name": _TEXT, "version": _TEXT, "extensions": _list(_TEXT)}),
        "ModelMetadata": _object(
            {
                "name": _TEXT,
                "versions": _list(_TEXT),
                "platform": _TEXT,
                "inputs": _list(_object(tensor)),
                "outputs": _list(_object(tensor)),
            }
        ),
        "ModelConfig": _object({"name": _TEXT, "platform": _TEXT, "max_batch_size": _COUNT}),
        "Model": _object(model, ["name", "state"]),
        "Statistics": _object({"model_stats": _list({"type": "object"})}),
        "InferenceRequest": _object(
            {
                "id": _TEXT,
                "parameters": parameters,
                "inputs": _list(_object(sent, list(tensor))),
                "outputs": _list(_object(wanted, ["name"])),
            },
            ["inputs"],
        ),
        "InferenceResponse": _object(
            {
                "id": _TEXT,
                "model_name": _TEXT,
                "model_version": _TEXT,
                "outputs": _list(_object(sent, list(tensor))),
            },
            ["model_name", "outputs"],
        ),
        **_setting_schemas(),
    }


def _setting_schemas() -> dict[str, Schema]:
    levels = {**_list({"enum": ["OFF", "TIMESTAMPS"]}), "maxItems": 1}
    number = {"type": "string", "pattern": "^-?[0-9]+$"}
    numbers = dict.fromkeys(("trace_rate", "trace_count", "log_frequency"), number)
    trace = {"trace_level": levels, **numbers, "trace_file": _TEXT, "trace_mode": _TEXT}
    cleared: Schema = {"type": ["string", "integer", "null"]}
    asked: Schema = {"trace_level": {"anyOf": [levels, {"type": "null"}]}}
    asked |= dict.fromkeys(numbers, cleared)
    kinds = dict.fromkeys(("log_info", "log_warning", "log_error"), _FLAG)
    log = {**kinds, "log_verbose_level": _COUNT, "log_file": _TEXT, "log_format": _TEXT}
    return {
        "TraceSettings": _object(trace),
        "TraceSettingsChange": _object(asked, []),
        "LogSettings": _object(log),
        "LogSettingsChange": _object(log, []),
    }


def _object(properties: dict[str, Schema], required: list[str] | None = None) -> Schema:
    needed = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": needed}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _body(properties: dict[str, Schema], required: list[str] | None = None) -> Schema:
    return {"content": _json(_object(properties, required or []))}


def _json(schema: Schema) -> Schema:
    return {JSON: {"schema": schema}}


def _binary() -> Schema:
    return {BINARY: {"schema": {"type": "string", "format": "binary"}}}
