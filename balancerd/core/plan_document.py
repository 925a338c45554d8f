"""A plan as JSON: what `plan show` and `plan new` print. The shape is fixed."""

from collections.abc import Mapping
from typing import Any

from balancerd.core.codec import decode, encode
from balancerd.core.decoding import decode_list, decode_moment, decoder_of
from balancerd.core.plan import Action, Assessment, Certificate, HostFigures, Move, Plan, Refusal
from balancerd.core.units import format_time


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
        refusal_counts=dict(data.get("refusal_counts", {})),
        certificate=None if certificate is None else decode(Certificate, certificate),
    )


_ACTION: Any = Action
