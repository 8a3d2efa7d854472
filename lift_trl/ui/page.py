"""What the three pages share: HTML that escapes what people wrote, the player, and a launch that serves nothing else."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ContextDecorator
from html import escape
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import gradio as gr
from starlette.middleware import Middleware

from ..hub.private import SPACE_DATA, keep_private
from ..hub_source import NamedSource
from ..store.votes import VOTES_DIR
from .clips import ClipError, ClipShelf, check_clip
from .identity import VOTES_PER_MINUTE, Gate, Identity, load_salt
from .vote_log import VoteLog


logger = logging.getLogger(__name__)

_HERE = Path(__file__).parent
#: Events that answer at once: any number at a time, no progress bar, not part of a public API.
QUICK: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": None, "show_progress": "hidden"}
_FAILED = (
    "Something failed on the server; its owner can see what. Reload the page and try again: what you typed is kept."
)
SPEEDS = ("0.25", "0.5", "1", "2")


class Settings(NamedTuple):
    """
    What a Space is told by its variables and secrets.

    Attributes:
        data_dir: `DATA_DIR`, where rows and the salt are kept; `/data` on a Space with a persistent disk.
        repo_id: `VOTES_REPO`, the dataset repository that the rows go to.
        owners: `OWNERS`, Hub logins, separated by commas; a Space's author is one always.
        require_login: `REQUIRE_LOGIN=1`: only people who signed in may vote.
        votes_per_minute: `VOTES_PER_MINUTE`, of one login or address.
        salt: secret `SALT`.
        token: secret `HF_TOKEN`, which may write to `repo_id`.
    """

    data_dir: Path
    repo_id: str | None
    owners: tuple[str, ...]
    require_login: bool
    votes_per_minute: int
    salt: str | None
    token: str | None

    @classmethod
    def from_env(cls, name: str) -> "Settings":
        """Reads the environment; `name` is the page's, for the folder where nothing else is said."""
        persistent = Path("/data")
        default = persistent if os.environ.get("SPACE_ID") and os.access(persistent, os.W_OK) else Path(SPACE_DATA)
        names = [*os.environ.get("OWNERS", "").split(","), os.environ.get("SPACE_AUTHOR_NAME", "")]
        return cls(
            data_dir=Path(os.environ.get("DATA_DIR") or default / name),
            repo_id=os.environ.get("VOTES_REPO") or None,
            owners=tuple(owner.strip() for owner in names if owner.strip()),
            require_login=_switch("REQUIRE_LOGIN"),
            votes_per_minute=number_from_env("VOTES_PER_MINUTE", VOTES_PER_MINUTE),
            salt=os.environ.get("SALT") or None,
            token=os.environ.get("HF_TOKEN") or None,
        )

    def identity(self) -> Identity:
        """The page's identity, with the salt that was given or is kept in `data_dir`."""
        return Identity(
            load_salt(self.data_dir, self.salt),
            self.owners,
            require_login=self.require_login,
            votes_per_minute=self.votes_per_minute,
        )

    def clips_dir(self) -> Path:
        """Where the page keeps clips: made for visitors, or out of a dataset that may be private."""
        keep_private(self.data_dir / "clips")
        return self.data_dir / "clips"

    def log(self, card: str = "", *, directory: str = VOTES_DIR) -> VoteLog:
        """A log of the page, of that name in `data_dir` and in the repository."""
        return VoteLog(
            self.data_dir / directory, repo_id=self.repo_id, directory=directory, card=card, token=self.token
        )


def _switch(name: str) -> bool:
    given = os.environ.get(name, "")
    if given not in ("", "0", "1"):
        raise ValueError(f"{name}={given}: write 1 or 0.")
    return given == "1"


def number_from_env(name: str, default: int) -> int:
    """A variable that is a whole number above 0, `default` where it is not set; raises `ValueError` for anything else."""
    given = os.environ.get(name, "")
    if given and not (given.isdecimal() and int(given) > 0):
        raise ValueError(f"{name}={given}: write a whole number above 0.")
    return int(given or default)


def named(text: str) -> dict[str, str]:
    """
    A variable that names several things, in order; a thing without a name is called by the end of its path.

    Raises:
        ValueError: if two things have one name.

    >>> named("base=user/clips-base, user/clips-lift")
    {'base': 'user/clips-base', 'clips-lift': 'user/clips-lift'}
    >>> named("base=/runs/lr=1e-4/clips, /runs/lr=1e-5/more")
    {'base': '/runs/lr=1e-4/clips', 'more': '/runs/lr=1e-5/more'}
    """
    found: dict[str, str] = {}
    for given, source in (NamedSource.parse(entry) for entry in text.split(",") if entry.strip()):
        name = given or source.rstrip("/").rsplit("/", 1)[-1]
        if name in found:
            raise ValueError(
                f"{found[name]} and {source} are both called {name!r}; name them: a={found[name]},b={source}."
            )
        found[name] = source
    return found


def has_login() -> bool:
    """Whether visitors can sign in: a Space with `hf_oauth: true` in its card."""
    return bool(os.environ.get("OAUTH_CLIENT_ID"))


def header(title: str, text: str, *, status: str = "") -> gr.HTML:
    """The page's title, the button to sign in where there is one, and a place beside them that it returns."""
    with gr.Row(elem_id="lift-top"):
        html(f"<h1>{escape(title)}</h1><p>{escape(text)}</p>", elem_id="lift-head", scale=3, min_width=260)
        place = html(status, elem_id="lift-status", scale=2, min_width=260)
        if has_login():
            gr.LoginButton(size="sm", scale=0, min_width=120)
    return place


def html(value: str = "", **kwargs: Any) -> gr.HTML:
    """A place for HTML. Whoever fills it escapes what people wrote."""
    return gr.HTML(value, js_on_load=None, apply_default_css=False, **kwargs)


def prompt_html(prompt: str, title: str = "Prompt") -> str:
    """A prompt or caption, as text."""
    return f'<div class="lift-prompt"><small>{escape(title)}</small><span>{text_html(prompt)}</span></div>'


def player_html(clips: Sequence[tuple[str, str]], *, fps: float, size: tuple[int, int]) -> str:
    """
    A player for clips that start, stop, loop and step together.

    Args:
        clips: (address, caption) of each.
        size: width and height in pixels, for the shape of the frames.
    """
    figures = "".join(_figure_html(url, caption) for url, caption in clips)
    speeds = "".join(f'<option value="{s}"{" selected" * (s == "1")}>{s}x</option>' for s in SPEEDS)
    # Wide clips stand one above the other on a phone, square ones side by side.
    least = 260 if size[0] > 1.2 * size[1] else 130
    return (
        f'<div class="lift-player" role="group" aria-label="Player" data-fps="{fps:g}" '
        f'style="--lift-width: {size[0]}; --lift-height: {size[1]}; --lift-count: {len(clips)}; --lift-min: {least}px">'
        f'<div class="lift-videos">{figures}</div><div class="lift-controls">'
        '<button type="button" class="lift-play" data-action="play" aria-label="Play">&#9654;</button>'
        '<button type="button" data-action="back" aria-label="Previous frame">&#124;&#9664;</button>'
        '<button type="button" data-action="forward" aria-label="Next frame">&#9654;&#124;</button>'
        '<input class="lift-seek" type="range" min="0" max="1" value="0" step="1" aria-label="Frame">'
        '<span class="lift-frame"></span>'
        f'<select class="lift-speed" aria-label="Speed">{speeds}</select>'
        f'<button type="button" data-action="full" aria-label="Full screen">{_icon(_FULL)}</button></div>'
        '<div class="lift-hint lift-wait" role="status"><span> </span> '
        '<button type="button" data-action="retry" hidden>Load it again</button></div></div>'
    )


_FULL = "M1 6V1h5M10 1h5v5M15 10v5h-5M6 15H1v-5"
_SAVE = "M8 1v9M4 7l4 4 4-4M2 15h12"


def _icon(path: str) -> str:
    """Lines on 16 x 16 points, in the colour of the text; its place has the name."""
    return f'<svg viewBox="0 0 16 16" aria-hidden="true"><path d="{path}"></path></svg>'


def _figure_html(url: str, caption: str) -> str:
    """A clip, its caption, and a link that downloads it under a name that tells no more than the caption."""
    name = text_html(f"Clip {caption}".strip())
    file = f"clip-{caption.lower()}.mp4" if caption else "clip.mp4"
    return (
        f'<figure><video src="{escape(url)}" muted playsinline preload="auto" disablepictureinpicture '
        f'aria-label="{name}"></video>'
        + (f"<figcaption>{text_html(caption)}</figcaption>" if caption else "")
        + f'<a class="lift-save" href="{escape(url)}" download="{text_html(file)}" aria-label="Download {name.lower()}" '
        f'title="Download">{_icon(_SAVE)}</a></figure>'
    )


def clip_player(clips: Sequence[tuple[Any, str]], shelf: ClipShelf) -> str:
    """
    A player for clips (path, caption), in the shape and at the speed of the first.

    Raises:
        ClipError: if one of them is gone or no video: it gets no address.
    """
    infos = [check_clip(Path(path)) for path, _ in clips]
    addresses = [(shelf.url(path), caption) for path, caption in clips]
    return player_html(addresses, fps=infos[0].fps, size=(infos[0].width, infos[0].height))


def preload_html(paths: Sequence[Path], shelf: ClipShelf) -> str:
    """Clips that are going to be shown next: the page's script fetches them once the present ones have come."""
    try:
        for path in paths:
            check_clip(path)
    except ClipError:
        return ""  # told when their turn comes
    return f'<div class="lift-next" hidden data-urls="{escape(" ".join(map(shelf.url, paths)))}"></div>'


class told:
    """Turns what is wrong with an answer into a message on the page."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ValueError):
            raise gr.Error(text_html(str(error)), print_exception=False, title="Not sent yet") from error
        if isinstance(error, OSError):
            raise gr.Error("This could not be saved. Please send it again.") from error


class _Answered(ContextDecorator):
    """Whatever goes wrong, the visitor reads that it did. What it was stands on the owner's console only."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, gr.Error):
            logger.error("a visitor's request failed", exc_info=error)
            raise gr.Error(_FAILED, print_exception=False, title="This did not work") from error


#: Decorates every event's function. (A page that is left without an answer looks like one that still works.)
answered = _Answered()


def progress_html(done: int, total: int, noun: str) -> str:
    """How far this visitor is."""
    share = 100 * done / total if total else 100
    bar = f'<div class="lift-bar"><i style="width:{share:.1f}%"></i></div>'
    return f'<div class="lift-hint">{done} of {total} {noun}{bar}</div>'


def notice_html(text: str) -> str:
    """A message that stays."""
    return f'<div class="lift-notice">{text_html(text)}</div>'


def broken_html(whys: Iterable[str]) -> str:
    """What only the owner sees: items that cannot be shown to anybody, or that somebody could not see."""
    listed = "".join(f"<li>{text_html(why)}</li>" for why in whys)
    return f'<div class="lift-notice">Clips that cannot be shown:<ul>{listed}</ul></div>' if listed else ""


def table_html(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; its cells are HTML already."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="lift-scroll"><table class="lift-table"><tr>{top}</tr>{body}</table></div>'


def text_html(text: str) -> str:
    """What people wrote, as HTML that shows it letter by letter."""
    # gr.HTML is a template: what looks like one of its holes must not be filled.
    return escape(text).replace("$", "&#36;").replace("{", "&#123;").replace("}", "&#125;").replace("\n", "<br>")


def theme() -> gr.themes.Base:
    """Gradio's Soft with text, frames and marks that stand out from their ground (WCAG AA: 4.5 : 1 and 3 : 1)."""
    return gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]).set(
        body_background_fill="*neutral_50",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_300",
        input_border_color="*neutral_400",
        input_border_color_dark="*neutral_500",
        input_border_width="1px",
        input_shadow="none",
        block_title_background_fill="transparent",
        block_title_text_color="*body_text_color",
        block_title_text_weight="600",
        block_title_padding="0",
        block_shadow="none",
        checkbox_border_color="*neutral_500",
        checkbox_border_color_dark="*neutral_400",
        checkbox_label_border_color="*neutral_300",
        checkbox_label_border_color_dark="*neutral_600",
        checkbox_label_border_width="1px",
        checkbox_label_shadow="none",
        checkbox_label_background_fill_selected="*primary_50",
        checkbox_label_background_fill_selected_dark="*primary_900",
        checkbox_label_text_color_selected="*body_text_color",
        checkbox_background_color_selected="*primary_600",
        checkbox_border_color_selected="*primary_600",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        color_accent="*primary_600",
        layout_gap="12px",
    )


def serve(demo: gr.Blocks, *, shelf: ClipShelf, on_exit: Callable[[], None], say: str = "") -> None:
    """
    Launches a page until it is stopped. It serves the page, the clips of `shelf`, and no file besides.

    Args:
        on_exit: called once when the process is asked to end (a Space sends SIGTERM before it stops).
        say: a line for the owner's console.
    """
    signal.signal(signal.SIGTERM, _leave)
    # Else uvicorn takes a visitor on this machine at his word about his address, by which votes are counted.
    os.environ.setdefault("FORWARDED_ALLOW_IPS", "")
    if say:
        sys.stdout.write(say + "\n")
        sys.stdout.flush()
    try:
        demo.launch(
            app_kwargs={"routes": [shelf.route], "middleware": [Middleware(Gate)]},
            # Not as `css`: gradio puts a class of its own before each rule, and before `@media` as well, which voids it.
            head=f"<style>{(_HERE / 'style.css').read_text(encoding='utf-8')}</style>"
            + "".join(
                f"<script>{(_HERE / name).read_text(encoding='utf-8')}</script>" for name in ("player.js", "form.js")
            ),
            theme=theme(),
            footer_links=[],
            ssr_mode=False,
            run_history=False,
            mcp_server=False,
            enable_monitoring=False,
        )
    finally:
        # Not by atexit: that comes when threads can no longer be started, and a commit needs some.
        on_exit()


def _leave(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the rows are on their way; a second request changes nothing
    sys.exit(0)
