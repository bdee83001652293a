"""The `mobile-avatar` command: finds a command's file when it is asked for, and turns errors into one sentence."""

import importlib
import signal
import sys

import click

from mobile_avatar.errors import MobileAvatarError

COMMANDS = {
    "export": "Export an avatar for a phone or a computer, verify the file and write a bundle.",
    "quantize-report": "Show what 8 bits cost, layer by layer, and write a recipe of mixed precision.",
    "verify": "Run the file of a bundle again and compare it with torch.",
    "benchmark": "Measure a bundle here, on a phone or in the cloud, and hold it against a budget.",
    "report": "Write one page about a bundle: frames, parity, operators, times.",
    "create": "Make an avatar from one photo.",
    "animate": "Play an avatar from a built-in track, keypoints or a video.",
    "mesh": "Write a rigged head as a glTF file that 3D programs open.",
    "import": "Convert officially released weights.",
    "personalize": "Make the avatar of one person from a short video, by fine-tuning.",
    "train": "Train a model on synthetic heads or on a prepared dataset.",
    "evaluate": "Measure a model on people it never saw.",
    "prepare": "Turn videos into a dataset: crops, keypoints, masks.",
    "synthesize": "Write a dataset of synthetic heads.",
    "doctor": "Show which targets, runtimes and accounts this machine has.",
}


class LazyGroup(click.Group):
    """Lists commands from the table above; imports one only to run it or to show its help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = name.replace("-", "_") + ("_" if name == "import" else "")
        return importlib.import_module(f"mobile_avatar.cli.commands.{module}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mobile-avatar", message="%(version)s")
def cli() -> None:
    """Neural head avatars on phones: create, export, verify, animate."""


def main() -> None:
    """Entry point: exit 0 done, 1 a check failed, 2 wrong usage or bad input, 3 a tool is missing."""
    # Job schedulers end with SIGTERM; as an exception it cleans up like every other failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        code = cli.main(standalone_mode=False)
    except MobileAvatarError as error:
        code = _complain(str(error), error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        code = 2
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f" (see `{context.command_path} --help`)" if context else ""
        code = _complain(error.format_message() + hint, 2)
    except (KeyboardInterrupt, click.Abort):
        code = _complain("stopped", 130)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        code = _complain(f"{name}{error.strerror or error}", 2)
    sys.exit(code if isinstance(code, int) else 0)


def _complain(sentence: str, code: int) -> int:
    click.echo(f"error: {sentence}", err=True)
    return code
