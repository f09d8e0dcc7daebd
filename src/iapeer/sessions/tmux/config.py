"""The configuration every server of ours starts with; the user's own is never read."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from iapeer.sessions.tmux.command import quote

DEFAULT_SIZE = (160, 50)
"""Columns and rows of a detached pane; CLIs cut their marks on panes under 120 columns."""

CONFIG_TEXT = """\
set-option -g remain-on-exit on
set-option -s escape-time 0
set-option -s exit-empty on
set-option -s exit-unattached off
set-option -s set-clipboard off
set-option -s buffer-limit 50
set-option -g update-environment ''
set-option -g destroy-unattached off
set-option -g detach-on-destroy on
set-option -g default-size 160x50
set-option -g history-limit 5000
set-option -g default-terminal screen-256color
set-option -g status off
set-option -g set-titles off
set-option -g visual-activity off
set-option -g visual-bell off
set-option -g bell-action none
set-option -g mouse on
set-option -g prefix 'C-]'
set-option -g prefix2 None
set-option -g automatic-rename off
set-option -g allow-rename off
set-option -g monitor-activity off
set-option -g window-size latest
unbind-key C-b
bind-key 'C-]' send-prefix
"""
"""`remain-on-exit` must be known before the program starts, or one that exits at once leaves no
status (contract: presets caught 10 of 10, later commands 9 of 10). No status line: it would take
a row from the pane. The prefix is `C-]`, as `C-b` and `C-a` are keys of the CLIs themselves."""


def config_text(hooks: Mapping[str, str]) -> str:
    """Return the whole configuration; `hooks` maps a tmux hook's name to its command line."""
    presets = (f"set-hook -g {name} {quote(command)}\n" for name, command in hooks.items())
    return CONFIG_TEXT + "".join(presets)


def shell_word(word: str) -> str:
    """Return one word for a shell command that tmux runs, with nothing in it that tmux expands.

    tmux looks for formats (`#`) and, in some commands, times (`%`) in what it gives to a shell.
    """
    quoted = shlex.quote(word)
    for character in "#%":
        quoted = quoted.replace(character, f"'\"$(printf '\\{ord(character):03o}')\"'")
    return quoted
