"""`ossicle separate` and `ossicle denoise`, each with its verbs."""

from __future__ import annotations

import typer

from ossicle import cli_denoise
from ossicle.cli_separate import run
from ossicle.cli_separate_mix import mix
from ossicle.cli_separate_score import score
from ossicle.cli_separate_train import train

separate = typer.Typer(
    no_args_is_help=True, help="Take mixtures apart: speakers, speech and noise, any sources."
)
separate.command()(mix)
separate.command()(train)
separate.command()(run)
separate.command()(score)

denoise = typer.Typer(
    no_args_is_help=True, help="Take noise out of recordings, without ever hearing a clean one."
)
denoise.command()(cli_denoise.train)
denoise.command()(cli_denoise.run)
denoise.command()(cli_denoise.score)
