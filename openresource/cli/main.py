"""Every command of `openresource`, by group; a command's module is imported when it is called, so help is instant."""

import importlib
import resource
import sys
from typing import NamedTuple

import click

from openresource import __version__


class Entry(NamedTuple):
    """Where a command lives and what it says about itself in the list."""

    target: str
    summary: str


COMMANDS: dict[str, dict[str, Entry]] = {
    "The whole network on this machine": {
        "up": Entry("up:up", "Start a node, three providers and the pages here; stay until Ctrl-C."),
        "doctor": Entry("doctor:doctor", "What this machine can do, and how to make it do more."),
    },
    "Publish and host": {
        "init": Entry("init:init", "Begin a service in a folder."),
        "check": Entry("init:check", "Try a folder's program in a sandbox; nothing is published."),
        "publish": Entry("publish:publish", "Publish a folder as a service and wait until somebody runs it."),
        "rollback": Entry(
            "rollback:rollback", "Make an earlier version the one that a service's name means."
        ),
        "provide": Entry("provide:provide", "Run other people's programs on this machine and be paid."),
        "permit": Entry("permit:permit", "Who may call and run a service, and what a machine must bring."),
        "shell": Entry(
            "shell:shell", "A shell or a command on a machine that you own, rent or are a guest of."
        ),
        "bond": Entry("bond:bond", "Show, add to and withdraw a provider's bond."),
        "provider": Entry("provider:provider", "What the chain knows of a provider's work."),
    },
    "Improve, and keep whole": {
        "program": Entry(
            "program:program", "Fork a service, give your own up, vote about stopping one and giving it back."
        ),
        "report": Entry("program:report", "Report harm by a program, for everybody to read."),
        "stake": Entry("stake:stake", "Coins that give you a say in votes of the network."),
    },
    "Find, call, pay": {
        "services": Entry("services:services", "Search the services on the network."),
        "quote": Entry("services:quote", "What a call would cost, provider by provider."),
        "call": Entry("call:call", "Call a service, pay, check the receipt."),
        "receipt": Entry("receipt:receipt", "What a call cost with all that was done for it, checked."),
        "job": Entry("job:job", "Have a program run and checked by others; see the verdict and its reasons."),
        "connect": Entry(
            "connect:connect", "A plain localhost address for curl and stock clients, paid by your wallet."
        ),
        "channel": Entry("channel:channel", "List, open, extend and close payment channels."),
        "pages": Entry("pages:pages", "The marketplace, the chain and your money in a browser."),
        "money": Entry("money:money", "Where each coin is and when it returns; set spending limits."),
        "wallet": Entry("wallet:wallet", "Create, show, encrypt and export a wallet; send coins."),
    },
    "The chain": {
        "node": Entry("node:node", "Keep and serve the chain."),
        "read": Entry("state:read", "Read a path, pending, final or at a past height, with a proof."),
        "write": Entry("state:write", "Write a path: a value, a rule, a function or an owner."),
        "watch": Entry("state:watch", "Follow what is written at a path, live."),
        "app": Entry("app:app", "Create an app: a place in the tree with rules of your own."),
        "verify-proof": Entry("proof:verify_proof", "Check a saved proof against a genesis hash."),
    },
}

EXIT_CODES = """\b
Exit codes: 0 done · 1 refused or failed · 2 wrong usage · 3 node or provider away
            4 deadline passed · 5 over your spending limit · 130 interrupted"""


class LazyGroup(click.Group):
    """A group that knows its commands by name and loads one only when it is used."""

    def list_commands(self, context: click.Context) -> list[str]:
        """All names, group by group."""
        return [name for entries in COMMANDS.values() for name in entries]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Import the module of one command."""
        for entries in COMMANDS.values():
            if name in entries:
                module, attribute = entries[name].target.split(":")
                command = getattr(importlib.import_module(f"openresource.cli.{module}"), attribute)
                assert isinstance(command, click.Command)
                _document_exit_codes(command)
                return command
        return None

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest command when one is mistyped."""
        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(context, name) is None:
            import difflib

            near = difflib.get_close_matches(name, self.list_commands(context), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else " See openresource --help."
            context.fail(f"There is no command {name!r}.{hint}")
        return super().resolve_command(context, args)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing any of them."""
        for title, entries in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name, entry.summary) for name, entry in entries.items()])


def _document_exit_codes(command: click.Command) -> None:
    """Every command's help says what its exit codes mean; where it does not itself, the list of all stands in."""
    if isinstance(command, click.Group):
        for one in command.commands.values():
            _document_exit_codes(one)
    if "Exit codes" not in (command.epilog or ""):
        command.epilog = f"{command.epilog or ''}\n\n{EXIT_CODES}"


@click.group(
    cls=LazyGroup,
    epilog=EXIT_CODES
    + """\n
\b
First steps:  openresource up
              in a second terminal, with the line OPENRESOURCE_HOME=… that it prints:
              openresource call gist text="One line. Another line."
              openresource money""",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="openresource")
def group() -> None:
    """The open backend for AI: publish a program, any machine runs it and is paid, anyone calls it."""


def main() -> None:
    """Run the command line; no refusal ends in a traceback."""
    from openresource.cli.output import report_failure

    # A process that holds a key leaves no picture of its memory behind.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        group(standalone_mode=False)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except click.ClickException as wrong:
        wrong.show()
        sys.exit(wrong.exit_code)
    except (KeyboardInterrupt, click.Abort):
        print("\nInterrupted.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:  # The last line of defence: a refusal is explained, a defect is reported.
        sys.exit(report_failure(error))
