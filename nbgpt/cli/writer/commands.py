"""The commands of the writer's terminal: what each does, and the words that explain it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import files
from .candidates import Candidate, paths, settings, words
from .inspection import alternatives_table, next_words, tokens_table, why_table
from .manuscript import Manuscript, Span
from .settings import SETTABLE
from .workspace import Workspace


@dataclass(frozen=True)
class Command:
    """What `/name` does."""

    run: Callable[[Workspace, str], None]
    """Gets what follows the name, without spaces around it."""
    arguments: str
    summary: str
    about: str = ""
    """Sentences that `/help name` adds."""
    complete: Callable[[str], Iterable[Candidate]] = lambda typed: ()
    """What may follow the name, of which `typed` is there."""


INTRODUCTION = """\
Type text and the model continues it; the next line you type continues that. An empty line lets the model go on.
End a line with \\ to type another one below it. Text that begins with / is typed with //.
Ctrl-C stops the model and keeps what it wrote. Ctrl-D leaves. Tab completes commands, Ctrl-R searches what you typed.
"""


def named(name: str) -> Command:
    """The command of a name. Raises ValueError if there is none, with the nearest name."""
    if name in COMMANDS:
        return COMMANDS[name]
    from difflib import get_close_matches

    near = get_close_matches(name, COMMANDS, 1)
    cure = f"did you mean /{near[0]}?" if near else "/help lists those there are"
    raise ValueError(f"no command is called /{name}; {cure}")


def pick(workspace: Workspace, number: str) -> None:
    """Add one of the words that /alternatives has shown. Raises ValueError if there is none of this number."""
    known = workspace.alternatives
    if not known:
        raise ValueError("there are no words to pick from: /alternatives lists them")
    if not number.isdecimal() or not 1 <= int(number) <= len(known):
        raise ValueError(f"{number} is none of the words; pick a number from 1 to {len(known)}")
    word = known[int(number) - 1]
    old = workspace.manuscript
    workspace.change(Manuscript((*old.spans, Span(word, is_written=True))), f"the word {word!r}")
    workspace.show_end()


def _again(workspace: Workspace, typed: str) -> None:
    _check_choice("again", typed, ("", "same"))
    workspace.again(is_same=typed == "same")


def _end(workspace: Workspace, typed: str) -> None:
    _check_choice("end", typed, ("sentence", "paragraph"))
    workspace.go_on(workspace.manuscript, f"/end {typed}", "sentence" if typed == "sentence" else "paragraph")


def _new(workspace: Workspace, typed: str) -> None:
    if workspace.text not in ("", workspace.saved):
        workspace.left = workspace.text
    workspace.change(Manuscript(), "/new")
    workspace.display.note("a new text; /undo brings the old one back")


def _save(workspace: Workspace, typed: str) -> None:
    path = _path("save", typed)
    if path.exists():
        raise ValueError(f"{path} is there already; /save! {typed} replaces it")
    _save_anyway(workspace, typed)


def _save_anyway(workspace: Workspace, typed: str) -> None:
    path = _path("save!", typed)
    files.save(workspace.text, path)
    workspace.saved = workspace.text
    workspace.display.note(f"{len(workspace.text)} characters are in {path}")


def _load(workspace: Workspace, typed: str) -> None:
    path = _path("load", typed)
    text = files.load(path)
    workspace.change(Manuscript((Span(text),) if text else ()), f"/load {typed}")
    workspace.saved = text
    n_tokens, n_ctx = len(workspace.model.tokenizer.encode(text)), workspace.model.config.n_ctx
    workspace.display.note(f"{n_tokens} tokens" + f"; the model sees the last {n_ctx}" * (n_tokens > n_ctx))
    workspace.show_end()


def _edit(workspace: Workspace, typed: str) -> None:
    old = workspace.manuscript
    text = files.edit(old.text)
    if text == old.text:
        return workspace.display.note("the text is as it was")
    workspace.change(old.replaced(text), "/edit")
    return workspace.show_end()


def _alternatives(workspace: Workspace, typed: str) -> None:
    if typed:
        return pick(workspace, typed)
    found, p_end = next_words(workspace.model, workspace.text)
    workspace.display.say(alternatives_table(found, p_end) + "\nA number picks one; anything else is text.")
    workspace.alternatives = [word.text for word in found]
    return None


def _tokens(workspace: Workspace, typed: str) -> None:
    workspace.display.say(tokens_table(workspace.model, typed or workspace.text, workspace.display.columns()))


def _why(workspace: Workspace, typed: str) -> None:
    workspace.display.say(why_table(workspace.model, workspace.text))


def _set(workspace: Workspace, typed: str) -> None:
    name, _, value = typed.partition(" ")
    if not name:
        workspace.display.say(workspace.settings.table() + "\n/set NAME explains one; Tab lists them all.")
    elif not value.strip():
        workspace.display.say(workspace.settings.explained(name))
    else:
        workspace.set(workspace.settings.changed(name, value.strip()))


def _help(workspace: Workspace, typed: str) -> None:
    name = typed.removeprefix("/")
    if not name:
        workspace.display.say(overview())
    elif name in SETTABLE and name not in COMMANDS:
        workspace.display.say(workspace.settings.explained(name))
    else:
        command = named(name)
        workspace.display.say(f"/{name} {command.arguments}".rstrip() + f": {command.summary}\n{command.about}")


def overview() -> str:
    """What `/help` says: an introduction, and a line for each command."""
    heads = {name: f"/{name} {command.arguments}".rstrip() for name, command in COMMANDS.items()}
    width = max(map(len, heads.values()))
    lines = [f"  {head:{width}}  {COMMANDS[name].summary}" for name, head in heads.items()]
    return "\n".join([INTRODUCTION, *lines])


def _check_choice(name: str, typed: str, choices: Sequence[str]) -> None:
    if typed not in choices:
        forms = " or ".join(f"/{name} {choice}".rstrip() for choice in choices)
        raise ValueError(f"/{name} {typed}".rstrip() + f": it must be {forms}")


def _path(name: str, typed: str) -> Path:
    if not typed:
        raise ValueError(f"/{name} needs the name of a file: /{name} story.txt")
    try:
        return Path(typed).expanduser()
    except RuntimeError:
        raise ValueError(f"{typed}: nobody's home folder is known by this name") from None


def _names(typed: str) -> Iterable[Candidate]:
    return [Candidate(name, command.summary) for name, command in COMMANDS.items()]


COMMANDS: dict[str, Command] = {
    "again": Command(
        _again,
        "[same]",
        "write the last continuation anew; same: with the same random numbers",
        "A model gives each token a probability, and random numbers decide which is drawn. They follow from the seed: "
        "the same text, settings and seed give the same continuation, here and with `generate`. /again takes the next "
        "seed. /again same repeats the last one: after /set temperature it shows what the temperature alone does.",
        words("same"),
    ),
    "undo": Command(
        lambda workspace, typed: workspace.undo(),
        "",
        "take back the last change of the text, whatever made it",
        "What was typed and what the model made of it are one change; /new, /load, /edit and a word that was picked "
        "are others. /undo again takes back the one before. Settings stay as they are.",
    ),
    "redo": Command(
        lambda workspace, typed: workspace.redo(),
        "",
        "bring back what /undo took back",
        "It works until the text changes in another way.",
    ),
    "new": Command(_new, "", "begin another text", "The old one comes back with /undo."),
    "text": Command(lambda workspace, typed: workspace.show(), "", "show the whole text"),
    "edit": Command(
        _edit,
        "",
        "change the text in your editor",
        "The editor is $VISUAL, else $EDITOR, else nano or vi. Save, and leave it; /undo brings the old text back.",
    ),
    "save": Command(_save, "FILE", "write the text to a file", "A file that is there already is refused.", paths),
    "save!": Command(_save_anyway, "FILE", "write the text to a file, and replace one that is there", "", paths),
    "load": Command(_load, "FILE", "go on with the text of a file", "It must be UTF-8.", paths),
    "end": Command(
        _end,
        "sentence|paragraph",
        "let the model go on to the end of the sentence or paragraph",
        "It stops there, or after max_tokens. /set end sentence ends every continuation this way. A sentence ends with "
        "a full stop, a question mark or an exclamation mark before a space; a paragraph with a line break.",
        words("sentence", "paragraph"),
    ),
    "alternatives": Command(
        _alternatives,
        "[NUMBER]",
        "the likeliest next words; a number picks one",
        "The model gives every token of its vocabulary a probability of being next. These are its own, before "
        "temperature and top_k. A token is often a whole word with the space before it; a word of several tokens has "
        "the product of their probabilities, each given those before it.",
    ),
    "tokens": Command(
        _tokens,
        "[TEXT]",
        "the tokens of the text, or of another one, with their ids",
        "The model does not read letters. Byte-pair encoding cuts a text into tokens: frequent words are one, with the "
        "space before them; rare ones are several. The id is the token's row in the embedding, the matrix that gives "
        "each token its vector.",
    ),
    "why": Command(
        _why,
        "",
        "how the model came to expect the last word, layer by layer",
        "Every layer adds to the residual stream, one vector for each token of the text. The logit lens reads the "
        "vector before the last word as if no layer followed: row 0 is the embedding alone, the last row the model's "
        "own prediction. Rank 1 is the likeliest token. Early rows see little but the token itself; where a "
        "word rises to rank 1, the layers before it have done their work. nostalgebraist 2020, "
        "'interpreting GPT: the logit lens'; `nbgpt explain` draws it for every token.",
    ),
    "set": Command(
        _set,
        "[NAME [VALUE]]",
        "show or change settings, as /set temperature 0.7",
        "What can be set are the options of `generate`, and end, space and color. Texts may stand in quotation marks, "
        'where \\n is a line break: /set stop "\\n"; lists in brackets: /set bad_words ["night", "dark"]. A number '
        "that makes little sense is refused unless ! follows it. /set color probability shows what the model expected.",
        settings,
    ),
    "help": Command(_help, "[NAME]", "this page, or more about a command or a setting", "", _names),
    "quit": Command(
        lambda workspace, typed: None,
        "",
        "leave; so does Ctrl-D",
        "A text that was not saved is kept in a file, which is named.",
    ),
}
"""Every command, by name. `Repl.run` ends at /quit."""
