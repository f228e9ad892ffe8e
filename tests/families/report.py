"""Judges the figures of the families, and writes them down. No I/O."""

from typing import Any

from families.catalog import FAMILIES, Family

_BOUNDS = {"float32": 1e-3, "bfloat16": 0.5}
"""Nats by which the likelihoods of a sequence may differ, by vLLM's data type; transformers computes in float32."""
MARK = "<!-- make families writes the table below -->\n"


def find_problems(family: Family, figures: dict[str, Any]) -> list[str]:
    """Return how the figures of a family differ from what the catalog says."""
    name, error = family.model_type, figures.get("error", "")
    if family.problem:
        return [] if family.error in error and error else [f"{name}: {family.error!r} was expected, not {error!r}"]
    if error:
        return [f"{name}: {error}"]
    bound = _BOUNDS[figures["dtype"]]
    problems = [
        f"{name}: {side} differs by {figures[side]:.2g} nats" for side in ("base", "adapter") if figures[side] > bound
    ]
    if figures["trained"] != figures["estimated"]:
        problems.append(f"{name}: {figures['trained']} parameters were trained, {figures['estimated']} estimated")
    weak = [kind for kind, effect in figures["effects"].items() if effect < 2 * figures["adapter"]]
    if weak:
        problems.append(f"{name}: the adapters of {', '.join(weak)} change too little to be compared")
    if figures["dtype"] == "float32" and (figures["base_answers"], figures["adapter_answers"]) != (1, 1):
        problems.append(f"{name}: not all greedy answers are the same")
    return problems


def format_table(measured: dict[str, dict[str, Any]]) -> str:
    """Return the table with the figures of all families."""
    nats = "Nats: base, adapter, least effect"
    header = ("Family", "Architecture", "Adapted layers", "Packing", "Tools", "Reasoning", nats, "Answers", "Remarks")
    rows = [header, ("---",) * len(header)]
    rows += [_format_row(FAMILIES[name], figures) for name, figures in measured.items()]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _format_row(family: Family, figures: dict[str, Any]) -> tuple[str, ...]:
    nats, answers = "not compared", "not compared"
    if "base" in figures:
        least = min(figures["effects"].values())
        nats = f"{figures['base']:.1g}, {figures['adapter']:.1g}, {least:.2f}"
        answers = f"{figures['base_answers']:.0%}, {figures['adapter_answers']:.0%}"
    leak = figures.get("leak")
    packing = "not checked" if leak is None else "yes" if leak == 0 else f"no, mixes by {leak:.1g}"
    remarks = [family.problem] if family.problem else []
    if figures.get("dtype") == "bfloat16":
        remarks.append("vLLM computes it in bfloat16 on CPUs")
    layers = ", ".join(figures.get("layers", [])) or "none"
    parsers = [f"`{name}`" for name in figures.get("parsers", [])] or ["by template", "by template"]
    return family.title, f"`{family.architecture}`", layers, packing, *parsers, nats, answers, "; ".join(remarks)
