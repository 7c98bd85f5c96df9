"""Turns on a terminal: a line is continued, or, where it begins with `/`, changes how the next ones are."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module

from rich.console import Console

from pellucid.cli.generate.author import Author
from pellucid.cli.generate.output import Output
from pellucid.cli.generate.settings import DRAWN, Settings
from pellucid.config import nearest
from pellucid.errors import ConfigError, PellucidError
from pellucid.generate.sampling.presets import TABLE
from pellucid.generate.strategies import STRATEGIES
from pellucid.generate.transcript import Transcript

SIGN = "> "

Command = Callable[[str], None]


class Dialogue:
    """Asks for lines until Ctrl-D or /quit; Ctrl-C stops the text that is being written, at the sign it leaves.

    The n-th text draws by the seed + n, counted from 0 and from the last change of the seed.
    """

    def __init__(
        self, author: Author, settings: Settings, output: Output, console: Console, *, is_json: bool
    ) -> None:
        self._plain, self._remembering = author, author.remembering()
        self._at_first = self._settings = settings
        self._output, self._console = output, console
        self._edits_lines = sys.stdout.isatty() and not is_json
        self._transcript: Transcript | None = None
        self._number = 0
        self._is_over = False
        self._commands: dict[str, tuple[str, str, Command]] = {
            "set": (
                "NAME VALUE",
                "one setting, such as /set temperature 0.9; no value: the preset's own",
                self._set,
            ),
            "preset": ("NAME", f"another way of choosing: {', '.join(TABLE)}", self._preset),
            "strategy": ("NAME", f"the same, by a classic name: {', '.join(STRATEGIES)}", self._strategy),
            "show": ("", "the settings now", self._show),
            "reset": ("", "the settings as at the start", self._reset),
            "history": (
                "on|off",
                "whether a line continues all that was said; an empty line then lets the text go on",
                self._history,
            ),
            "forget": ("", "forget what was said", self._forget),
            "help": ("", "this list", self._help),
            "quit": ("", "leave, as Ctrl-D does", self._quit),
        }

    def run(self) -> int:
        """Returns the exit status."""
        if self._edits_lines:
            with suppress(ImportError):  # Windows has none, and edits lines by itself
                import_module("readline")
        self._say("Type a beginning and press Enter; /help lists what can be changed, Ctrl-D leaves.")
        while not self._is_over:
            try:
                line = self._ask()
            except KeyboardInterrupt:
                self._console.print()
                raise
            except UnicodeDecodeError:
                self._warn("that was no text in the terminal's encoding; type it again")
                continue
            if line is None:
                self._console.print()
                break
            if line.startswith("/") and not line.startswith("//"):
                self._command(line[1:])
            elif "\x00" in line:
                self._warn("a zero byte is no text; type the line again")
            else:
                self._turn(line[1:] if line.startswith("//") else line)
        return 0

    def _ask(self) -> str | None:
        """The next line, without its end; None when there are no more."""
        if self._edits_lines:
            try:
                return input(SIGN)
            except EOFError:
                return None
        sys.stderr.write(SIGN)
        sys.stderr.flush()
        line = sys.stdin.readline()
        return line.rstrip("\r\n") if line else None

    # A text ------------------------------------------------------------------------------------------

    def _turn(self, line: str) -> None:
        said = self._transcript
        self._output.text = ""  # so that what is broken off before the first piece is nothing
        author = self._plain if said is None else self._remembering
        prompt, before = (line, ()) if said is None else (said.prompt(line), tuple(said.ids))
        try:
            author.check(prompt)
            results = author.write(prompt, self._settings, self._output, number=self._number, before=before)
        except KeyboardInterrupt:
            self._output.break_off()
            self._say("stopped")
            if said is not None:
                said.add_text(prompt, self._output.text)
        except PellucidError as error:
            if self._output.text:
                self._output.break_off()
            self._warn(f"{error}; or /forget what was said" if before else str(error))
            return
        else:
            if said is not None:
                said.add(prompt, results[0])
        self._number += 1

    # Commands ----------------------------------------------------------------------------------------

    def _command(self, words: str) -> None:
        name, _, rest = words.strip().partition(" ")
        if name not in self._commands:
            hint = nearest(f"/{name}", [f"/{each}" for each in self._commands])
            self._warn(
                f"there is no command /{name}{hint} (/help lists them; a prompt that begins so is typed //{name})"
            )
            return
        try:
            self._commands[name][2](rest.strip())
        except PellucidError as error:
            self._warn(str(error))

    def _set(self, words: str) -> None:
        name, _, value = words.replace("=", " ", 1).partition(" ")
        if not name:
            raise ConfigError(
                "name a setting and its value: /set temperature 0.9 (/show lists those that count)"
            )
        self._refuse_drawn(name.replace("-", "_"))
        self._change(self._settings.with_value(name, value.strip(), self._plain.tokenizer))

    def _preset(self, name: str) -> None:
        self._refuse_drawn("preset")
        self._change(self._settings.with_preset(name))

    def _strategy(self, name: str) -> None:
        self._refuse_drawn("strategy")
        self._change(self._settings.with_strategy(name))

    def _reset(self, _: str) -> None:
        self._change(self._at_first)

    def _change(self, settings: Settings) -> None:
        if settings.sampling.seed != self._settings.sampling.seed:
            self._number = 0
        self._settings = settings
        self._show("")

    def _refuse_drawn(self, name: str) -> None:
        if self._plain.beams is not None and name in DRAWN:
            raise ConfigError(
                f"beams are searched, not drawn: {name} has no effect; start without --num-beams"
            )

    def _show(self, _: str) -> None:
        sampling = self._settings.sampling.model_dump(mode="json", exclude_defaults=True, exclude={"seed"})
        sampling["max_new_tokens"] = self._settings.sampling.max_new_tokens
        values = ", ".join(f"{name} {value}" for name, value in sampling.items())
        seed = f", seed {self._settings.sampling.seed + self._number}" if self._plain.beams is None else ""
        said = "off" if self._transcript is None else f"on ({len(self._transcript.ids)} tokens)"
        self._say(f"{self._settings.name}: {values}{seed}; history {said}")

    def _history(self, word: str) -> None:
        if word not in ("on", "off"):
            raise ConfigError("write /history on or /history off")
        if word == "on" and not self._plain.model.continues_prompt:
            raise ConfigError(
                "an encoder-decoder answers a prompt and does not continue it: each line is answered alone"
            )
        if word == "on" and self._plain.num_results > 1:
            raise ConfigError("history goes on from one text; start without --num-results")
        if word == "off":
            self._transcript = None
        elif self._transcript is None:
            self._transcript = Transcript(self._plain.tokenizer)
        self._show("")

    def _forget(self, _: str) -> None:
        if self._transcript is None:
            raise ConfigError("nothing is remembered; /history on has what is said from then on remembered")
        self._transcript = Transcript(self._plain.tokenizer)
        self._show("")

    def _help(self, _: str) -> None:
        heads = {name: f"/{name} {usage}".strip() for name, (usage, _, _) in self._commands.items()}
        width = max(map(len, heads.values()))
        for name, (_, summary, _act) in self._commands.items():
            self._say(f"  {heads[name]:<{width}}  {summary}")
        self._say(f"  {'//…':<{width}}  a prompt that begins with /")
        self._say("Ctrl-C stops a text; at the prompt sign it leaves, as Ctrl-D does.")

    def _quit(self, _: str) -> None:
        self._is_over = True

    def _say(self, text: str) -> None:
        self._console.print(text, style="dim")

    def _warn(self, text: str) -> None:
        self._console.print(text, style="yellow")
