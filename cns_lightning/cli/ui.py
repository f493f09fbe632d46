"""``ui``: a page in the browser that draws with what a run has learned."""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec

from cns_lightning.cli.arguments import add_model_options, at_least, path_argument
from cns_lightning.errors import EXIT_DONE, UserError
from cns_lightning.progress import ProgressDisplay
from cns_lightning.runs.folder import RunFolder

LARGEST_PORT = 65535


def parser() -> argparse.ArgumentParser:
    """Makes the parser of the command's arguments."""
    options = argparse.ArgumentParser(
        prog="python -m cns_lightning ui",
        description="Serves a page that draws with the concepts a run has learned; needs cns-lightning[ui].",
        epilog="Ctrl-C ends it. Nothing is sent anywhere: the page needs no network.",
    )
    options.add_argument("--run", type=path_argument, required=True, metavar="DIR", help="run folder")
    options.add_argument(
        "--port", type=at_least(0), help="port of the page, 0 for any free one (the first free one from 7860 on)"
    )
    options.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="NAME",
        help="address to listen on (127.0.0.1, this machine alone); whoever reaches another one can use the page",
    )
    options.add_argument("--open", action="store_true", help="open the page in your browser")
    options.add_argument("--batch-size", type=at_least(1), default=8, help="pictures drawn at once (8)")
    add_model_options(options)
    return options


def run(argv: list[str]) -> int:
    """Runs the command and returns the exit code.

    Raises:
        UserError: if gradio is missing, the run folder holds no registry, the device or the base model is not there, or
            the port is taken.
    """
    arguments = parser().parse_args(argv)
    check_gradio()
    if (arguments.port or 0) > LARGEST_PORT:
        raise UserError("--port", f"is {arguments.port}, and ports end at {LARGEST_PORT}", "Give a smaller one")
    folder = RunFolder.existing(arguments.run)
    # Here, so that --help does not wait for torch.
    from cns_lightning.diffusion.devices import available_device
    from cns_lightning.pipeline import RunModel
    from cns_lightning.registry.registry import NeuronRegistry
    from cns_lightning.ui.server import listening, serve
    from cns_lightning.ui.studio import Studio

    registry = NeuronRegistry.load(folder.registry)
    device = available_device(arguments.device)
    display = ProgressDisplay()
    with listening(arguments.host, arguments.port) as (listener, address):
        display.event(f"loading the model of {arguments.run} to {device}")
        studio = Studio(
            RunModel(folder, registry, arguments.base_model, device), generate_words(arguments), arguments.batch_size
        )
        serve(studio, listener, address, _say, arguments.open)
    return EXIT_DONE


def check_gradio() -> None:
    """Refuses to start without the extra; does not import it.

    Raises:
        UserError: if gradio is not installed.
    """
    if find_spec("gradio") is None:
        remedy = 'Install it: pip install "cns-lightning[ui]", or gradio itself'
        raise UserError("ui", "needs gradio, which is not installed", remedy)


def generate_words(arguments: argparse.Namespace) -> list[str]:
    """Returns the beginning of the command that draws what the page draws."""
    words = ["python", "-m", "cns_lightning", "generate", "--run", str(arguments.run)]
    if arguments.device is not None:
        words += ["--device", arguments.device]
    if arguments.base_model is not None:
        words += ["--base-model", arguments.base_model]
    return words


def _say(address: str) -> None:
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()
