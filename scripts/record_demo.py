"""Draw docs/demo.svg from a real run of the demo, for the README.

    .venv/bin/python scripts/record_demo.py [file]

Run it again when the demo's output has changed; ids, times and pids are those of that run.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI

from iapeer.apps.tour.__main__ import main
from iapeer.apps.tour.stage import WIDTH_PLAIN, Stage

TARGET = Path(__file__).parents[1] / "docs" / "demo.svg"

# rich's own format loads a font from a foreign host; any monospaced one does, because the picture
# states the length of each piece of text.
FORMAT = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
    font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
    font-size: {char_height}px;
    line-height: {line_height}px;
    font-variant-east-asian: full-width;
}}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def record(target: Path) -> int:
    """Run the demo, write its picture and return the demo's exit status; a failure draws none."""
    console = Console(
        file=io.StringIO(),
        record=True,
        width=WIDTH_PLAIN,
        force_terminal=True,
        color_system="truecolor",
        highlight=False,
    )
    status = main([], Stage(console, live=False))
    if status:
        sys.stderr.write(console.export_text())
        return status
    picture = console.export_svg(
        title="make demo", theme=MONOKAI, code_format=FORMAT, unique_id="demo"
    )
    target.parent.mkdir(exist_ok=True)
    target.write_text(picture, encoding="utf-8")
    sys.stdout.write(f"wrote {target}\n")
    return 0


if __name__ == "__main__":
    sys.exit(record(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET))
