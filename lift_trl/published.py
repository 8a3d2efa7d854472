"""What may be published of names and commands: no folder of this machine, no key, no password."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


#: `user:password@` of a URL. A password may hold a slash (AWS keys do). Of hf:// the `@` is a revision.
_USER = re.compile(r"""(?<![\w+.-])(?!hf:)([a-z][\w+.-]*:/+)(?:[^\s/"]*|[^\s/@:"]+:[^\s@"]*)@""", re.IGNORECASE)
#: What follows the `?` of a URL: signatures, access tokens.
_QUERY = re.compile(r"""([a-z][\w+.-]*:/+[^\s"?#]*)[?#][^\s"]+""", re.IGNORECASE)
#: Source: https://huggingface.co/docs/hub/security-tokens
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}")
#: An absolute path: alone, behind `=`, a comma, a bracket, a quotation mark, or among words.
_PLACE = re.compile(r"""(?:(?<![^=,"[({])|(?<=::))(?:(?:file|local):)?/[^"]*|(?<=\s)/[^\s"/]+/[^\s"]*""")
#: Options that hold a secret. `--eos_token` and `--max_new_tokens` do not.
_SECRET = re.compile(
    r"--(?!(?:bos|cls|eos|mask|pad|sep|unk)[_-])(?:[\w-]+[_-])?(?:token|secret|password|(?:api|access)[_-]?key)"
)


def published(value: Any) -> Any:
    """
    `value`, or what a mapping or list of such holds, without folders of this machine and without secrets: of an absolute
    path its name is left, of a URL neither user, password nor what follows the `?`. Whatever is no text stays as it is.

    >>> published({"critic": "/srv/ada/runs/critic@0123", "clips": "s3://KEY:SECRET@bucket/clips", "seed": 7})
    {'critic': 'critic@0123', 'clips': 's3://bucket/clips', 'seed': 7}
    >>> published(["lift=/srv/ada/lr=1e-4/clips", "runs/base", "hf://datasets/user/clips@v1"])
    ['lift=clips', 'runs/base', 'hf://datasets/user/clips@v1']
    """
    if isinstance(value, Mapping):
        return {published(key): published(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [published(entry) for entry in value]
    if not isinstance(value, str):
        return value
    text = _HUB_TOKEN.sub("...", _QUERY.sub(r"\1?...", _USER.sub(r"\1", value)))
    return _PLACE.sub(lambda place: Path(place[0]).name or "/", text)


def published_words(words: Sequence[str]) -> list[str]:
    """
    The words of a command as they may be published.

    >>> published_words(["--hub_token", "hf_x", "--token=hf_y", "--max_new_tokens", "9", "--dir=/srv/ada/lr=2/out"])
    ['--hub_token', '...', '--token=...', '--max_new_tokens', '9', '--dir=out']
    """
    shown: list[str] = []
    hidden = False
    for word in words:
        option, equals, _ = word.partition("=")
        is_secret = _SECRET.fullmatch(option) is not None
        shown.append("..." if hidden else f"{option}=..." if is_secret and equals else published(word))
        hidden = is_secret and not equals
    return shown
