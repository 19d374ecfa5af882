"""The prompt at which a person talks to the Mayor: history, completion, several lines. It alone has prompt_toolkit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path


def lines(directory: Path, words: Callable[[str], Sequence[tuple[str, str]]], hint: Callable[[], str]) -> Iterator[str]:
    """What is typed, one message after the other, until the end of input.

    Enter sends; Alt-Enter begins a new line, and pasted text may have several. Ctrl-C clears what is typed.

    Args:
        directory: where what was typed before is kept, for this user alone.
        words: what may complete a text, with what each means.
        hint: what is shown below the prompt.
    """
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion
    from prompt_toolkit.document import Document
    from prompt_toolkit.history import FileHistory
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    class Words(Completer):
        def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
            """The words that what is typed may become."""
            del complete_event
            word = document.get_word_before_cursor(WORD=True)
            for text, meaning in words(document.text_before_cursor):
                if text.startswith(word):
                    yield Completion(text, start_position=-len(word), display_meta=meaning)

    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    path = directory / "mayor-history"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    session: PromptSession[str] = PromptSession(
        history=FileHistory(str(path)),
        completer=Words(),
        complete_while_typing=False,
        key_bindings=keys,
        enable_history_search=True,
    )
    while True:
        try:
            # Once for each message: what is drawn at each key must ask no store.
            yield session.prompt("mayor> ", bottom_toolbar=hint())
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
