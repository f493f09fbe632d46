"""Serves the page on this machine."""

from __future__ import annotations

import errno
import os
import signal
import socket
import tempfile
import threading
import webbrowser
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cns_lightning.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cns_lightning.ui.studio import Studio

USUAL_PORT = 7860
TRIED_PORTS = 40
"""How many ports from the usual one on are tried, where the user names none."""
EVERYWHERE = ("0.0.0.0", "::")


@contextmanager
def listening(host: str, port: int | None) -> Iterator[tuple[socket.socket, str]]:
    """Takes a port, so that nobody else can, and gives it back at the end.

    Args:
        host: name or address to listen on.
        port: the port, 0 for any free one; None for the first free one from the usual one on.

    Yields:
        The listening socket, and the page's address.

    Raises:
        UserError: if the host is not this machine, or the port is taken.
    """
    ports = range(USUAL_PORT, USUAL_PORT + TRIED_PORTS) if port is None else [port]
    listener = None
    for number in ports:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listener = socket.create_server((host, number), family=family)
            break
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            if error.errno in (errno.EACCES, errno.EPERM):
                raise UserError("--port", f"{number} may not be used by you", "Give one above 1023") from error
            reason = error.strerror or str(error)
            raise UserError("--host", f"{host} cannot be listened on ({reason})", "Leave --host out") from error
    if listener is None:
        taken = f"{port} is taken" if port is not None else f"{ports[0]} to {ports[-1]} are taken"
        raise UserError("--port", f"{taken} by another program", "Give another one, or 0 for any that is free")
    with listener:
        name = "localhost" if host in EVERYWHERE else f"[{host}]" if ":" in host else host
        yield listener, f"http://{name}:{listener.getsockname()[1]}"


def serve(studio: Studio, listener: socket.socket, address: str, say: Callable[[str], None], is_opened: bool) -> None:
    """Serves the page until the process is asked to end, by Ctrl-C or SIGTERM.

    Pictures shown on the page lie in a temporary folder, which is removed at the end.

    Args:
        studio: draws.
        listener: listening socket.
        address: address of the page.
        say: told once the page can be opened.
        is_opened: whether to open it in the user's browser.
    """
    with tempfile.TemporaryDirectory(prefix="cns-lightning-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        # Here, for both settings are read when it is imported, and it takes seconds.
        import uvicorn

        from cns_lightning.ui.page import application

        config = uvicorn.Config(
            application(studio), log_level="critical", access_log=False, timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        # uvicorn ends orderly on both signals, and then hands them on to whoever had them before.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        say(address)
        if is_opened:
            # Some browsers, those of a terminal, return only when they are closed.
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        try:
            server.run(sockets=[listener])
        except KeyboardInterrupt:
            pass
        finally:
            signal.signal(signal.SIGTERM, before)
            studio.stop()
