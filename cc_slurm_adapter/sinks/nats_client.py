"""One connection to NATS, in a thread of its own: asyncio and nats-py stay in here.

It is opened when there is something to publish, and anew whenever it is lost: nats-py is never left to reconnect by
itself, so that it cannot give up. What is published has left only when the server has said so.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import random
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from nats import errors
from nats.aio.client import Client
from nats.js.errors import APIError, NoStreamResponseError

from cc_slurm_adapter.errors import AdapterError
from cc_slurm_adapter.sinks import Answer, Verdict
from cc_slurm_adapter.sinks.nats_keys import public_key, sign

TIME_LIMIT = 10.0
"""Seconds for one message, or for opening a connection to one server."""
CLOSE_LIMIT = 0.5
_STOPPED = Answer(Verdict.SINK_TROUBLE, "the daemon stops")
_DENIED = "permissions violation for publish to"


@dataclass(frozen=True)
class NatsAccess:
    """Where and as whom. `seed` and `jwt` are texts, not files."""

    servers: tuple[str, ...]
    """nats://host:port or tls://host:port."""
    user: str = ""
    password: str = field(default="", repr=False)
    seed: str = field(default="", repr=False)
    jwt: str = field(default="", repr=False)
    tls_ca_file: str = ""
    tls_cert_file: str = ""
    tls_key_file: str = ""
    jet_stream: bool = False
    """A stream takes the messages and acknowledges each."""


class _Refused(Exception):
    """The server does not want us as we are: somebody must act."""


class NatsClient:
    """May be used by several threads at once. `read_access` is called for each connection: files may have changed."""

    def __init__(self, read_access: Callable[[], NatsAccess]) -> None:
        self._read_access = read_access
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._client: Client | None = None
        self._access = NatsAccess(())
        self._connecting: asyncio.Lock | None = None
        self._denials: Counter[str] = Counter()
        """How often the server has refused a subject."""

    def publish(self, subject: str, payload: bytes, message_id: str = "") -> Answer:
        """Publish a message, and wait until the server or the stream has it. `message_id` removes duplicates there."""
        return self._run(self._publish(subject, payload, message_id))

    def close(self) -> None:
        """End it for good: whoever waits for an answer gets none. May be called again."""
        with self._lock:
            was_stopped, self._stopped = self._stopped, True
            if self._loop is not None and not was_stopped:
                self._loop.call_soon_threadsafe(self._loop.stop)

    def _run(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        with self._lock:
            if self._stopped:
                work.close()
                return _STOPPED
            future = asyncio.run_coroutine_threadsafe(work, self._running_loop())
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            return _STOPPED

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._work, args=(self._loop,), name="nats", daemon=True)
            self._thread.start()
        return self._loop

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            loop.run_until_complete(self._drop())
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.wait(left, timeout=CLOSE_LIMIT) if left else asyncio.sleep(0))
        finally:
            loop.close()

    async def _publish(self, subject: str, payload: bytes, message_id: str) -> Answer:
        denials = self._denials[subject.lower()]
        try:
            client = await self._connected()
            await self._hand_over(client, subject, payload, message_id)
            trouble = ""
        except errors.MaxPayloadError:
            return Answer(Verdict.TOO_LARGE, f"it has {len(payload)} bytes, more than the server's max_payload")
        except NoStreamResponseError:
            return Answer(Verdict.HELD, f"no stream takes the subject {subject}: make one with nats stream add")
        except _Refused as error:
            return Answer(Verdict.HELD, str(error))
        except (errors.Error, APIError, OSError, asyncio.TimeoutError) as error:
            await self._drop()
            trouble = _words(error)
        if self._denials[subject.lower()] > denials:
            return Answer(Verdict.HELD, f"the server does not permit this user to publish to the subject {subject}")
        return Answer(Verdict.SINK_TROUBLE, trouble) if trouble else Answer(Verdict.DELIVERED)

    async def _hand_over(self, client: Client, subject: str, payload: bytes, message_id: str) -> None:
        headers = {"Nats-Msg-Id": message_id} if message_id else None
        if self._access.jet_stream and message_id:
            await client.jetstream().publish(subject, payload, timeout=TIME_LIMIT, headers=headers)
        else:
            await client.publish(subject, payload, headers=headers)
            # nats-py sends a PING ahead of what was published just before: the second answer is for that.
            await client.flush(int(TIME_LIMIT))
            await client.flush(int(TIME_LIMIT))

    async def _connected(self) -> Client:
        if self._connecting is None:
            self._connecting = asyncio.Lock()
        async with self._connecting:
            if self._client is None or not self._client.is_connected:
                await self._drop()
                try:
                    self._access = self._read_access()
                except AdapterError as error:
                    raise _Refused(str(error)) from error
                self._client = await self._connect_to_any()
            return self._client

    async def _connect_to_any(self) -> Client:
        """To the first server that takes us; the error of the last one when none does."""
        servers = random.sample(self._access.servers, len(self._access.servers))
        for number, server in enumerate(servers, 1):
            try:
                return await asyncio.wait_for(self._connect(server), TIME_LIMIT)
            except (errors.Error, OSError, asyncio.TimeoutError) as error:
                kind = _Refused if _is_refusal(error) else OSError
                refused: Exception = kind(f"{server}: {_words(error)}")
            if number == len(servers):
                raise refused
        raise OSError("there is no server")

    async def _connect(self, server: str) -> Client:
        access, client = self._access, Client()
        options: dict[str, Any] = {}
        if access.seed:
            options["signature_cb"] = lambda nonce: sign(access.seed, nonce)
        if access.jwt:
            options["user_jwt_cb"] = lambda: bytearray(access.jwt, "ascii")
        elif access.seed:
            client._public_nkey = public_key(access.seed)
        elif access.user:
            options |= {"user": access.user, "password": access.password}
        if server.startswith("tls:") or access.tls_ca_file or access.tls_cert_file:
            options["tls"] = _tls_context(access)
        is_open = False

        async def note(error: Exception) -> None:
            if not is_open:
                raise error  # nats-py would try again, although it was told not to
            self._note_error(error)

        try:
            await client.connect(
                servers=[server],
                name="cc-slurm-adapter",
                allow_reconnect=False,
                connect_timeout=int(TIME_LIMIT),
                error_cb=note,
                **options,
            )
        except BaseException:
            is_open = True
            await _close(client)
            raise
        is_open = True
        return client

    def _note_error(self, error: Exception) -> None:
        """What the server says by the way: of all that only refused subjects matter, the rest shows in the answers.

        nats-py has made it lower case.
        """
        text = str(error).lower()
        if _DENIED in text:
            self._denials[text.rpartition(" ")[2].strip("\"'")] += 1

    async def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await _close(client)


async def _close(client: Client) -> None:
    """After a TLS handshake that failed it would never end."""
    closing = asyncio.ensure_future(client.close())
    await asyncio.wait({closing}, timeout=CLOSE_LIMIT)
    if not closing.done():
        closing.cancel()
    elif not closing.cancelled():
        closing.exception()  # it does not matter any more


def _is_refusal(error: BaseException) -> bool:
    """Whether it is about who we are: nats-py has no type for what the server says while it is connected."""
    return (
        isinstance(error, (errors.AuthorizationError, ssl.SSLError)) or "authorization violation" in str(error).lower()
    )


def _tls_context(access: NatsAccess) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=access.tls_ca_file or None)
    if access.tls_cert_file:
        context.load_cert_chain(access.tls_cert_file, access.tls_key_file)
    return context


def _words(error: BaseException) -> str:
    """What nats-py says, or what it is called when it says nothing."""
    if _is_refusal(error) and not isinstance(error, ssl.SSLError):
        return "it refuses the user: check natsUser and natsPassword, natsCredsFile or natsNKeySeedFile"
    if isinstance(error, (asyncio.TimeoutError, errors.TimeoutError)):
        return f"no answer within {TIME_LIMIT:.0f} s"
    return str(error) or type(error).__name__
