"""What the cards of all kinds say of themselves to the Hub's search: tags, tasks, sizes, names, the base's licence."""

from typing import Any

from huggingface_hub import HfApi, ModelCard


TAGS = ("lift-trl", "text-to-video", "human-feedback")
#: Kind -> what a dataset of it is for, by the Hub's names.
TASKS = {
    "hra": ["video-classification", "text-to-video"],
    "generated": ["text-to-video"],
    "scored": ["video-classification"],
    "cache": ["text-to-video"],
}
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def tags(kind: str, *more: str) -> list[str]:
    """The tags of a kind, the same for all but the last."""
    return list(dict.fromkeys([*TAGS, kind_tag(kind), *more]))


def kind_tag(kind: str) -> str:
    """The tag of a kind, by which a card says that its repository is ours."""
    return f"lift-{kind}"


def size_category(num_rows: int) -> str:
    """
    The Hub's name for a number of rows.

    >>> size_category(999), size_category(1000)
    ('n<1K', '1K<n<10K')
    """
    return next((name for limit, name in _SIZES if num_rows < limit), "n>1M")


def pretty_name(repo_id: str) -> str:
    """
    A repository's name as a title.

    >>> pretty_name("user/lift-hra_v2")
    'lift hra v2'
    """
    return repo_id.rpartition("/")[2].replace("-", " ").replace("_", " ")


def licence_of(api: HfApi, base_model: str) -> dict[str, Any]:
    """
    The licence that a model which was made from `base_model` inherits, with name and link where it has terms of its own: the
    base's, or else the base itself; nothing of a base that cannot be seen.
    """
    if not api.repo_exists(base_model):
        return {}
    data = api.model_info(base_model).card_data
    found = data.to_dict() if data else {}
    license, name, link = (found.get(field) for field in ("license", "license_name", "license_link"))
    if license not in (None, "other"):
        return {"license": license}
    page = f"{api.endpoint}/{base_model}"
    if link and "://" not in link:  # a file of the base's repository, which the tuned model's does not have
        link = f"{page}/blob/main/{link}"
    return {"license": "other", "license_name": name or "same-as-base-model", "license_link": link or page}


def with_licence(api: HfApi, text: str) -> str:
    """The model's card with the licence of its base, where it names the base and no licence of its own."""
    card: Any = ModelCard(text)
    if card.data.base_model and card.data.license in (None, "other") and not card.data.get("license_link"):
        for name, value in licence_of(api, card.data.base_model).items():
            setattr(card.data, name, value)
    return str(card)
