"""The page of all results: reads every `<out>/*/result.json`, judges its form, renders one self-contained HTML file."""

import base64
import json
from pathlib import Path
from typing import Any

VERDICTS = ("holds", "fails", "not run")
_PNG = b"\x89PNG\r\n\x1a\n"
_KEYS: dict[str, type | tuple[type, ...]] = {
    "experiment": str,
    "seconds": (int, float),
    "device": str,
    "versions": dict,
    "seed": int,
    "claims": list,
}


def load(path: Path) -> dict[str, Any]:
    """The result stored in a result.json; ValueError with the reason where it is not one."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"cannot be read: {error}") from error
    except ValueError as error:
        raise ValueError(f"not valid JSON: {error}") from error
    if not isinstance(result, dict):
        raise ValueError("not a JSON object")
    for key, kind in _KEYS.items():
        if not isinstance(result.get(key), kind):
            raise ValueError(f"the key {key!r} is missing or of the wrong type")
    for claim in result["claims"]:
        if not isinstance(claim, dict) or not {"name", "source", "expected", "measured", "verdict"} <= claim.keys():
            raise ValueError("a claim lacks one of name, source, expected, measured, verdict")
        if claim["verdict"] not in VERDICTS:
            raise ValueError(f"a claim has the verdict {claim['verdict']!r}, wanted one of {', '.join(VERDICTS)}")
    _objects(result, "figures", {"file": str, "caption": str})
    _objects(result, "tables", {"title": str, "columns": list, "rows": list})
    if any(not isinstance(row, list) for table in result.get("tables", []) for row in table["rows"]):
        raise ValueError("a table has a row that is not a list")
    if not isinstance(result.get("error"), dict | None):
        raise ValueError("the key 'error' is of the wrong type")
    return result


def render(out: Path) -> str:
    """The HTML of all results in `out`, damaged ones named as such, in the order of their names."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = number
    environment.tests["numeric"] = lambda value: isinstance(value, int | float) and not isinstance(value, bool)
    template = environment.from_string(Path(__file__).with_name("_page.html").read_text(encoding="utf-8"))
    results = [_view(path) for path in sorted(out.glob("*/result.json"))]
    totals = {verdict: sum(r["counts"][verdict] for r in results) for verdict in VERDICTS}
    return template.render(results=results, totals=totals)


def number(value: Any) -> str:
    """A measured value or a table cell as text: floats to four significant digits, booleans in words."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _view(path: Path) -> dict[str, Any]:
    """What the template shows of a result: the stored keys with defaults, its figures inlined, its verdicts counted."""
    view: dict[str, Any] = {"name": path.parent.name, "counts": dict.fromkeys(VERDICTS, 0), "damaged": None}
    try:
        result = load(path)
    except ValueError as reason:
        return {**view, "damaged": str(reason), "status": "damaged", "title": path.parent.name}
    for claim in result["claims"]:
        view["counts"][claim["verdict"]] += 1
    status = "error" if result.get("error") else "fails" if view["counts"]["fails"] else "holds"
    if status == "holds" and not view["counts"]["holds"]:
        status = "not run"
    about = {key: result.get(key) or "" for key in ("title", "question", "expected", "command", "about", "date")}
    return {
        **view,
        **about,
        "title": about["title"] or result["experiment"],
        "status": status,
        "claims": [{"note": "", **claim} for claim in result["claims"]],
        "tables": [{"caption": "", **table} for table in result.get("tables", [])],
        "figures": [{"wide": False, **f, "data": _inline(path.parent, f["file"])} for f in result.get("figures", [])],
        "error": result.get("error"),
        "full": bool(result.get("full")),
        **{key: result[key] for key in ("seconds", "device", "versions", "seed")},
    }


def _inline(folder: Path, file: str) -> str | None:
    """The PNG beside a result.json as base64; None where it is missing. A name cannot lead out of the folder."""
    if Path(file).name != file:
        return None
    try:
        data = (folder / file).read_bytes()
    except (OSError, ValueError):
        return None
    return base64.b64encode(data).decode("ascii") if data.startswith(_PNG) else None


def _objects(result: dict[str, Any], key: str, fields: dict[str, type]) -> None:
    items = result.get(key, [])
    if not isinstance(items, list):
        raise ValueError(f"the key {key!r} is of the wrong type")
    for item in items:
        if not isinstance(item, dict) or any(not isinstance(item.get(f), kind) for f, kind in fields.items()):
            raise ValueError(f"an entry of {key!r} lacks one of {', '.join(fields)}")


def _refuse(token: str) -> Any:
    raise ValueError(f"the token {token} is not JSON")
