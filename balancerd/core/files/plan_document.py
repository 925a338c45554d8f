"""A plan as JSON: what `plan show` and `plan new` print. The shape is fixed."""

from collections.abc import Mapping
from typing import Any

from balancerd.core.files.codec import CodecError, decode, encode
from balancerd.core.files.decoding import decode_list, decode_moment, decoder_of
from balancerd.core.files.json_lines import read_json
from balancerd.core.plan import Action, Assessment, Certificate, HostFigures, Move, Plan, Refusal
from balancerd.core.units import format_time

_NEEDED: Mapping[str, type] = {
    "policy": str,
    "objective": str,
    "reason": str,
    "score_before": float,
    "score_after": float,
}


def plan_document(plan: Plan) -> dict[str, Any]:
    """A plan as `plan show` and `plan new` print it; the order of moves is that of their start."""
    return {
        "at": format_time(plan.at),
        "policy": plan.policy,
        "objective": plan.objective,
        "reason": plan.reason,
        "score_before": encode(plan.score_before),
        "score_after": encode(plan.score_after),
        "moves": [encode(move) for move in plan.moves],
        "power_actions": [
            encode(action, Action) for action in plan.actions if not isinstance(action, Move)
        ],
        "refusals": [encode(refusal) for refusal in plan.refusals],
        "refusal_counts": dict(plan.refusal_counts),
        "certificate": None if plan.certificate is None else encode(plan.certificate),
        "hosts_before": [encode(figures) for figures in plan.before],
        "hosts_after": [encode(figures) for figures in plan.after],
        "assessments": [encode(assessment) for assessment in plan.assessments],
    }


def parse_plan_document(text: str | bytes, source: str) -> tuple[int | None, Plan]:
    """The plan in a document's text, and its number in the record that it comes from, if any.

    CodecError says what is wrong where in `source`.
    """
    return read_json(text, source, _checked)


def _checked(data: Any) -> tuple[int | None, Plan]:
    """The plan in a document that anybody may have written."""
    if not isinstance(data, dict) or "moves" not in data:
        raise CodecError('not a plan: "moves" is missing')
    for key, hint in _NEEDED.items():
        if key not in data:
            raise CodecError(f'"{key}" is missing')
        try:
            decode(hint, data[key])
        except CodecError as error:
            raise error.under(key) from None
    number = data.get("id")
    return number if isinstance(number, int) else None, plan_of(data)


def plan_of(data: Mapping[str, Any]) -> Plan:
    """The plan that a document holds; keys it does not know are passed over."""
    moves = decode_list(data, "moves", decoder_of(Move))
    power = decode_list(data, "power_actions", lambda item: decode(_ACTION, item))
    certificate = data.get("certificate")
    return Plan(
        at=decode_moment(data),
        policy=data["policy"],
        objective=data["objective"],
        actions=tuple(sorted([*moves, *power], key=lambda action: action.number)),
        reason=data["reason"],
        score_before=decode(float, data["score_before"]),
        score_after=decode(float, data["score_after"]),
        assessments=tuple(decode_list(data, "assessments", decoder_of(Assessment))),
        before=tuple(decode_list(data, "hosts_before", decoder_of(HostFigures))),
        after=tuple(decode_list(data, "hosts_after", decoder_of(HostFigures))),
        refusals=tuple(decode_list(data, "refusals", decoder_of(Refusal))),
        refusal_counts=decode(_COUNTS, data.get("refusal_counts", {})),
        certificate=None if certificate is None else decode(Certificate, certificate),
    )


_ACTION: Any = Action
_COUNTS: Any = Mapping[str, int]
