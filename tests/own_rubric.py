"""A rubric of one's own: two dimensions and four labels, of which none is LiFT's."""

from typing import Any

from lift_trl.store.rubrics.form import rubric_from_plain


SIGNS: dict[str, Any] = {
    "labels": {"Awful": 0.0, "Poor": 0.25, "Fair": 0.6, "Great": 1.0},
    "dimensions": {
        "colour_match": {
            "question": "Please judge the colour of the object in this video against the caption.",
            "definitions": {"Awful": "Another.", "Poor": "Hardly.", "Fair": "Nearly.", "Great": "The very same."},
        },
        "steadiness": {
            "question": "Please judge how steady the object moves in this video.",
            "definitions": {"Awful": "Erratic.", "Poor": "Uneven.", "Fair": "A hop.", "Great": "Steady."},
        },
    },
}
OWN = rubric_from_plain(SIGNS)
