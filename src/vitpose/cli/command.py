"""How commands are declared: help texts, options as dataclasses, errors in one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from inspect import Parameter, Signature, signature
from typing import Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from ..errors import VitPoseError
from ..hardware.threads import wait_passively
from .hints import hint_at_command, hint_at_option
from .interruption import INTERRUPTED
from .terminal import FAILED, MISUSED, print_error

UsageError: Any = typer.BadParameter.__base__
"""The error of an invalid command line; some versions of typer have their own copy of click's."""


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command in which the fields of parameters that are dataclasses are options.

    Args:
        command: A function whose parameters are annotated with options of typer, or are dataclasses with such fields.
            A parameter `context` receives typer's context.
    """
    hints = get_type_hints(command, include_extras=True) | {"context": typer.Context}
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters: list[Parameter] = []
    for parameter in signature(command).parameters.values():
        group = groups.get(parameter.name)
        if group is None:
            parameters.append(parameter.replace(annotation=hints[parameter.name]))
            continue
        types = get_type_hints(group, include_extras=True)
        parameters += [
            Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=types[field.name])
            for field in fields(group)
        ]

    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = Signature(  # type: ignore[attr-defined]
        [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in parameters]
    )
    return run


_PLACEHOLDERS = {
    "str": "TEXT",
    "list[str]": "TEXT",
    "int": "N",
    "int range": "N",
    "float": "NUMBER",
    "float range": "NUMBER",
    "path": "PATH",
}
"""What the help shows in place of typer's names of types."""


class _PlainTypes:
    """Shows placeholders of values in the help instead of types; none for flags, which take no value, and arguments."""

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if param.param_type_name == "argument":
                param.display_type = lambda ctx: ""
            elif param.metavar is None:
                # Old versions of typer have no `display_type`, and placeholders like these.
                label = param.display_type(ctx).strip("<>") if hasattr(param, "display_type") else ""
                param.metavar = "" if getattr(param, "is_flag", False) else _PLACEHOLDERS.get(label)
        return params


class Command(_PlainTypes, TyperCommand):
    """A command whose help is the text of its docstring up to the sections, wrapped to the width of the terminal."""

    def __init__(self, name: str | None, **settings: Any) -> None:
        text = (settings.pop("help", None) or "").partition("\n\nRaises:")[0]
        paragraphs = (" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
        super().__init__(name, help="\n\n".join(paragraphs), **settings)


class CommandGroup(_PlainTypes, TyperGroup):
    """Prints a `VitPoseError` and an invalid command line as one line; other exceptions keep their traceback."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> Any:
        """Parse the options before the command.

        Raises:
            Exit: They are invalid.
        """
        try:
            return super().make_context(info_name, args, *rest, **extra)
        except UsageError as error:
            raise _reported(error) from error

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command.

        Raises:
            UsageError: There is none of this name.
        """
        hint = hint_at_command(args[0], self.commands)
        if hint and self.get_command(ctx, args[0]) is None:
            raise UsageError(f"there is no command {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command.

        Raises:
            Exit: The command line is invalid, the command failed, or it was interrupted.
        """
        wait_passively()  # before a command loads torch
        try:
            return super().invoke(ctx)
        except UsageError as error:
            raise _reported(error) from error
        except VitPoseError as error:
            print_error(str(error))
            raise typer.Exit(FAILED) from error
        except KeyboardInterrupt as error:
            print_error("interrupted")
            raise typer.Exit(INTERRUPTED) from error


def _reported(error: Any) -> Exception:
    """Print an invalid command line's error, and return the exception that ends the program."""
    if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help
        return error
    names: list[str] = []
    context = error.ctx
    while context is not None and context.parent is not None:
        names.insert(0, context.info_name)
        context = context.parent
    message = _describe(error, " ".join(names))
    advice = "" if message.endswith("?") else f"; see '{' '.join(['vitpose', *names, '--help'])}'"
    print_error(message + advice)
    return typer.Exit(MISUSED)


def _describe(error: Any, command: str) -> str:
    option = getattr(error, "option_name", None)
    if option is None or not hasattr(error, "possibilities"):
        message = error.format_message().removesuffix(".")
        return message[:1].lower() + message[1:]
    params = [] if error.ctx is None else error.ctx.command.params
    options = [name for param in params for name in param.opts if name.startswith("-")]
    arguments = [param.metavar or param.name for param in params if param.param_type_name == "argument"]
    if hint := hint_at_option(option, command, options, "".join(arguments[:1])):
        return hint
    near = f"; did you mean {' or '.join(error.possibilities)}?" if error.possibilities else ""
    return f"there is no option {option}{near}"
