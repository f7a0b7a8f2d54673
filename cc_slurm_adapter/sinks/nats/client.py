"""One connection to NATS, in a thread of its own. No other module deals with nats-py.

The connection is opened when there is something to publish, and opened again after it is lost. nats-py never reconnects
by itself, so it cannot give up. A message counts as published only when the server has confirmed it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nats import errors
from nats.aio.client import Client
from nats.js.errors import APIError, NoStreamResponseError

from cc_slurm_adapter.errors import AdapterError
from cc_slurm_adapter.log import Repeated
from cc_slurm_adapter.sinks.base import Answer, Verdict
from cc_slurm_adapter.sinks.nats.keys import public_key, sign
from cc_slurm_adapter.sinks.nats.loop import LoopStopped, LoopThread
from cc_slurm_adapter.sinks.nats.questions import NoReply, Reply

log = logging.getLogger(__name__)

WORK_LIMIT = 120.0
"""Seconds for one batch. Each message has its own limit, so only an error of the program takes this long."""
CLOSE_LIMIT = 0.5
_STOPPED = Answer(Verdict.UNAVAILABLE, "the daemon stops")
_DELIVERED = Answer(Verdict.DELIVERED)
_MESSAGE_ID = "Nats-Msg-Id"
_MESSAGE_EXCEEDS_MAXIMUM = 10054
"""JetStream's error code: the stream has a max_msg_size."""
_DENIED = "permissions violation for publish to"
_DENIED_SUBSCRIPTION = "permissions violation for subscription to"
_INBOXES = "_inbox."
"""The subjects of replies begin with this, in lower case."""
_FAILURES = (errors.Error, APIError, OSError, asyncio.TimeoutError)


class Timing(NamedTuple):
    """How long NATS may take, in seconds."""

    time_limit: float = 10.0
    """For one message, or for opening a connection to one server."""


TIMING = Timing()


@dataclass(frozen=True)
class NatsAccess:
    """The servers and the credentials. `seed` and `jwt` are texts, not files."""

    servers: tuple[str, ...]
    """URLs of the form nats://host:port or tls://host:port."""
    user: str = ""
    password: str = field(default="", repr=False)
    seed: str = field(default="", repr=False)
    jwt: str = field(default="", repr=False)
    tls_ca_file: str = ""
    tls_cert_file: str = ""
    tls_key_file: str = ""
    jet_stream: bool = False
    """Whether a stream receives the messages and acknowledges each."""

    def needs_tls(self, server: str) -> bool:
        """Return whether TLS must begin before anything else is sent to a server."""
        return server.startswith("tls:") or bool(self.tls_ca_file or self.tls_cert_file)


class Outgoing(NamedTuple):
    """A message. A stream recognises a duplicate by `message_id`."""

    subject: str
    payload: bytes
    message_id: str = ""

    @property
    def headers(self) -> dict[str, str] | None:
        """Return the headers for nats-py."""
        return {_MESSAGE_ID: self.message_id} if self.message_id else None

    def fits(self, client: Client) -> bool:
        """Return whether the server accepts a message of this size. Unlike nats-py it also counts the headers."""
        headers = len(f"NATS/1.0\r\n{_MESSAGE_ID}: {self.message_id}\r\n\r\n") if self.message_id else 0
        return headers + len(self.payload) <= client.max_payload


@dataclass(frozen=True)
class _Connection:
    """An open connection. nats-py does not wake those who wait for a reply when the connection is lost."""

    client: Client
    lost: asyncio.Future[None]

    async def note_loss(self) -> None:
        """Record that the connection is lost or closed. nats-py calls this."""
        if not self.lost.done():
            self.lost.set_result(None)

    async def unless_lost(self, work: Coroutine[Any, Any, list[Answer]]) -> list[Answer]:
        """Do the work and return its answers. Raises OSError if the connection is lost before the work is done."""
        task = asyncio.ensure_future(work)
        either: set[asyncio.Future[Any]] = {task, self.lost}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED, timeout=WORK_LIMIT)
        if not task.done():
            task.cancel()
            raise OSError("the connection was lost" if self.lost.done() else "no answer in time")
        return task.result()


class _TlsFailure(OSError):
    """TLS cannot be used: an administrator must act."""


class _TlsClient(Client):
    """A client that sends nothing before TLS.

    nats-py itself continues unencrypted if the server does not demand TLS.
    """

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection and not info.get("tls_required"):
            if not info.get("tls_available"):
                raise _TlsFailure("the server does not offer TLS, which tls:// and the keys natsTls... demand")
            info["tls_required"] = True  # that is where nats-py looks
        await super()._process_info(info, initial_connection)


class _Refused(Exception):
    """The server refuses our credentials: an administrator must act."""


class NatsClient:
    """Publishes messages. Any thread may use it.

    `read_access` is called for each connection, because files may change.
    """

    def __init__(self, read_access: Callable[[], NatsAccess], *, timing: Timing = TIMING) -> None:
        self._read_access = read_access
        self._time_limit = timing.time_limit
        self._thread = LoopThread("nats", self._forget, self._drop)
        self._connection: _Connection | None = None
        self._access = NatsAccess(())
        self._connecting: asyncio.Lock | None = None
        self._is_outdated = False
        """Whether the next batch needs a new connection, because the access may have changed."""
        self._errors = Repeated()
        self._denials: Counter[str] = Counter()
        """How often the server has refused each subject."""

    def publish(self, messages: Sequence[Outgoing]) -> list[Answer]:
        """Publish messages and wait until the server or the stream has them. Return an answer for each."""
        return self._run(self._publish(lambda _: messages, len(messages)), len(messages))

    def publish_all(self, make: Callable[[int], Sequence[Outgoing]]) -> Answer:
        """Publish what `make` returns for the server's largest message size in bytes. Return one answer for all."""
        answers = self._run(self._publish(make, 1), 1)
        return next((answer for answer in answers if answer.verdict is not Verdict.DELIVERED), _DELIVERED)

    def check(self) -> Answer:
        """Connect if there is no connection. Return an answer that tells whether a server accepts us."""

        async def confirm(client: Client) -> list[Answer]:
            await _confirm(client, self._time_limit)
            return [_DELIVERED]

        (answer,) = self._run(self._attempt(confirm, 1), 1)
        return answer

    def renew_access(self) -> None:
        """Connect anew before the next batch, with the access as it is then. Any thread may call this."""
        self._is_outdated = True

    def ask(self, subject: str, question: bytes = b"") -> Reply:
        """Ask a service of the server itself. Nobody who listens to the subjects of jobs and nodes notices it."""
        replies: list[Reply] = []

        async def request(client: Client) -> list[Answer]:
            replies.append(await self._request(client, subject, question))
            return [_DELIVERED]

        (answer,) = self._run(self._attempt(request, 1), 1)
        return replies[0] if replies else Reply(NoReply.FAILED, answer.reason)

    def close(self) -> None:
        """Close the connection and refuse later work. Callers that wait for an answer get UNAVAILABLE.

        May be called more than once.
        """
        self._thread.stop()

    def _run(self, work: Coroutine[Any, Any, list[Answer]], count: int) -> list[Answer]:
        try:
            return self._thread.run(work)
        except LoopStopped:
            return [_STOPPED] * count
        except RuntimeError as error:  # no thread can be made
            return [_unavailable(error, self._time_limit)] * count

    async def _publish(self, make: Callable[[int], Sequence[Outgoing]], count: int) -> list[Answer]:
        """Publish what `make` returns. `count` is the number of answers if there is no server."""
        denials = dict(self._denials)
        messages: list[Outgoing] = []

        def hand_over(client: Client) -> Coroutine[Any, Any, list[Answer]]:
            messages[:] = make(client.max_payload)
            return (self._to_stream if self._access.jet_stream else self._to_server)(client, messages)

        answers = await self._attempt(hand_over, count)
        denied = {subject for subject, count in self._denials.items() if count > denials.get(subject, 0)}
        if not denied:
            return answers
        return [
            _denial(message) if message.subject.lower() in denied else answer
            for message, answer in zip(messages, answers)
        ]

    async def _attempt(self, work: Callable[[Client], Coroutine[Any, Any, list[Answer]]], count: int) -> list[Answer]:
        """Do the work with an open connection. If that fails, the failure is the answer for all messages."""
        try:
            connection = await self._connected()
            answers = await connection.unless_lost(work(connection.client))
        except _Refused as error:
            answers = [_misconfigured(str(error))] * count
        except Exception as error:  # an error of nats-py costs a connection, but no message
            if not isinstance(error, _FAILURES) and self._errors.is_due(type(error).__name__):
                log.exception("NATS: an error of nats-py or of this program%s", self._errors.note)
            answers = [_unavailable(error, self._time_limit)] * count
        if any(answer.verdict is Verdict.UNAVAILABLE for answer in answers):
            await self._drop()
        return answers

    async def _to_server(self, client: Client, messages: Sequence[Outgoing]) -> list[Answer]:
        answers = [_DELIVERED if message.fits(client) else _too_large(message) for message in messages]
        for message, answer in zip(messages, answers):
            if answer is _DELIVERED:
                await client.publish(message.subject, message.payload, headers=message.headers)
        await _confirm(client, self._time_limit)
        return answers

    async def _to_stream(self, client: Client, messages: Sequence[Outgoing]) -> list[Answer]:
        stream = client.jetstream()

        async def publish(message: Outgoing) -> Answer:
            if not message.fits(client):
                return _too_large(message)
            if not message.message_id:  # node states: the next ones replace them
                (answer,) = await self._to_server(client, [message])
                return answer
            try:
                await stream.publish(
                    message.subject, message.payload, timeout=self._time_limit, headers=message.headers
                )
            except (errors.TimeoutError, asyncio.TimeoutError):
                return await self._without_acknowledgement(client, message)
            except _FAILURES as error:
                return _refusal_of_stream(error, message, self._time_limit)
            return _DELIVERED

        return list(await asyncio.gather(*map(publish, messages)))

    async def _request(self, client: Client, subject: str, question: bytes) -> Reply:
        """Send a question and wait for the reply, unless the server says that this user may not ask or listen."""
        denials = self._denials[subject.lower()]
        task = asyncio.ensure_future(client.request(subject, question, timeout=self._time_limit))
        try:
            await _confirm(client, self._time_limit)
            if self._denials[_INBOXES]:  # nats-py subscribes once, so this was perhaps said about an earlier question
                return Reply(NoReply.CANNOT_LISTEN)
            if self._denials[subject.lower()] > denials:
                return Reply(NoReply.NOT_PERMITTED)
            await asyncio.wait({task}, timeout=self._time_limit)
            return Reply(data=task.result().data) if task.done() else Reply(NoReply.FAILED, "no answer in time")
        except errors.NoRespondersError:
            return Reply(NoReply.NOBODY)
        finally:
            task.cancel()

    async def _without_acknowledgement(self, client: Client, message: Outgoing) -> Answer:
        """Return why no stream has acknowledged: the server does not respond, or it does and there is no stream."""
        try:
            await _confirm(client, self._time_limit)
        except _FAILURES as error:
            return _unavailable(error, self._time_limit)
        return _misconfigured(
            f"no stream has acknowledged a message for {message.subject}: create one with nats stream add, and allow"
            " this user to subscribe to _INBOX.>"
        )

    async def _connected(self) -> _Connection:
        if self._connecting is None:
            self._connecting = asyncio.Lock()
        async with self._connecting:
            connection, is_outdated = self._connection, self._is_outdated
            self._is_outdated = False  # before the access is read, which may change meanwhile
            is_fit = not is_outdated or not _works(self._read_access)
            if connection is not None and not connection.lost.done() and is_fit:
                return connection
            await self._drop()
            try:
                self._access = self._read_access()
            except AdapterError as error:
                raise _Refused(str(error)) from error
            self._connection = await self._connect_to_any()
            return self._connection

    async def _connect_to_any(self) -> _Connection:
        """Connect to the first server, in random order, that accepts us. Raises an error with all their reasons."""
        reasons: dict[str, str] = {}
        failure: type[Exception] = OSError
        for server in random.sample(self._access.servers, len(self._access.servers)):
            try:
                return await asyncio.wait_for(self._connect(server), self._time_limit)
            except (errors.Error, OSError, asyncio.TimeoutError) as error:
                reasons[server] = _describe(error, self._time_limit)
                failure = _Refused if _is_refusal(error) else failure
        raise failure("; ".join(f"{server}: {reasons[server]}" for server in self._access.servers))

    async def _connect(self, server: str) -> _Connection:
        access = self._access
        needs_tls = access.needs_tls(server)
        client = _TlsClient() if needs_tls else Client()
        connection = _Connection(client, asyncio.get_running_loop().create_future())
        options: dict[str, Any] = {}
        if access.seed:
            options["signature_cb"] = lambda nonce: sign(access.seed, nonce)
        if access.jwt:
            options["user_jwt_cb"] = lambda: bytearray(access.jwt, "ascii")
        elif access.seed:
            client._public_nkey = public_key(access.seed)
        elif access.user:
            options |= {"user": access.user, "password": access.password}
        if needs_tls:
            options["tls"] = make_tls_context(access)
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
                connect_timeout=int(self._time_limit),
                error_cb=note,
                disconnected_cb=connection.note_loss,
                closed_cb=connection.note_loss,
                **options,
            )
        except BaseException as error:
            is_open = True
            await _close(client)
            if client._server_info.get("tls_verify") and not access.tls_cert_file and isinstance(error, OSError):
                what = f"it requires a certificate: set natsTlsCertFile and natsTlsKeyFile ({error})"
                raise _TlsFailure(what) from error
            raise
        is_open = True
        return connection

    def _note_error(self, error: Exception) -> None:
        """Count a refused subject, and refused subscriptions to replies. Other errors show in the answers.

        nats-py has converted the text to lower case.
        """
        text = str(error).lower()
        subject = text.rpartition(" ")[2].strip("\"'")
        if _DENIED in text:
            self._denials[subject] += 1
        elif _DENIED_SUBSCRIPTION in text and subject.startswith(_INBOXES):
            self._denials[_INBOXES] += 1

    def _forget(self) -> None:
        """Forget what belonged to a loop that has ended."""
        self._connection = self._connecting = None

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await _close(connection.client)


def _works(read_access: Callable[[], NatsAccess]) -> bool:
    """Return whether there is an access; its files may have gone with a change that waits for a restart."""
    try:
        read_access()
    except AdapterError:
        return False
    return True


def _unavailable(error: Exception, time_limit: float) -> Answer:
    return Answer(Verdict.UNAVAILABLE, _describe(error, time_limit))


async def _confirm(client: Client, time_limit: float) -> None:
    """Wait until the server has received what was published. Raises what nats-py raises.

    nats-py sends a PING before the messages that were published last, so only the second PONG confirms them. Its
    flush() would also return when nothing reads replies any more.
    """
    for _ in range(2):
        await client.rtt(int(time_limit))


def _too_large(message: Outgoing) -> Answer:
    return Answer(Verdict.TOO_LARGE, f"it has {len(message.payload)} bytes, more than the server's max_payload")


def _misconfigured(what: str) -> Answer:
    return Answer(Verdict.MISCONFIGURED, what)


def _denial(message: Outgoing) -> Answer:
    return _misconfigured(f"the server does not permit this user to publish to the subject {message.subject}")


def _refusal_of_stream(error: Exception, message: Outgoing, time_limit: float) -> Answer:
    if isinstance(error, NoStreamResponseError):
        return _misconfigured(f"no stream has the subject {message.subject}: create one with nats stream add")
    if not isinstance(error, APIError):
        return _unavailable(error, time_limit)
    if error.err_code == _MESSAGE_EXCEEDS_MAXIMUM:
        return Answer(Verdict.TOO_LARGE, f"it has {len(message.payload)} bytes, more than the stream's max_msg_size")
    return _misconfigured(f"the stream of {message.subject} refuses messages, see its limits: {error.description}")


async def _close(client: Client) -> None:
    """Close a client within CLOSE_LIMIT. After a failed TLS handshake nats-py's own close never returns."""
    closing = asyncio.ensure_future(client.close())
    await asyncio.wait({closing}, timeout=CLOSE_LIMIT)
    if not closing.done():
        closing.cancel()
    elif not closing.cancelled():
        closing.exception()  # it does not matter any more


def _is_refusal(error: BaseException) -> bool:
    """Return whether an error is about our credentials: nats-py has no type for such errors of an open connection."""
    about_us = isinstance(error, (errors.AuthorizationError, ssl.SSLError, _TlsFailure))
    return about_us or "authorization violation" in str(error).lower()


def make_tls_context(access: NatsAccess) -> ssl.SSLContext:
    """Make a TLS context from the files as they are now. Raises OSError."""
    context = ssl.create_default_context(cafile=access.tls_ca_file or None)
    if access.tls_cert_file:
        # Without a pass phrase OpenSSL would ask for one on the terminal.
        context.load_cert_chain(access.tls_cert_file, access.tls_key_file, password="")
    return context


def _describe(error: BaseException, time_limit: float) -> str:
    """Describe an error of nats-py: by its text, or by its type when it has none."""
    if isinstance(error, ssl.SSLError):
        return f"{error}: check natsTlsCaFile, natsTlsCertFile and natsTlsKeyFile"
    if _is_refusal(error) and not isinstance(error, _TlsFailure):
        return "it refuses the user: check natsUser and natsPassword, natsCredsFile or natsNKeySeedFile"
    if isinstance(error, (asyncio.TimeoutError, errors.TimeoutError)):
        return f"no answer within {time_limit:.0f} s"
    return str(error) or type(error).__name__
