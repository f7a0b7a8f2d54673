"""What a test does at NATS as somebody else: listen, publish, make a stream and read it, all with nats-py's client."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Callable, NamedTuple, TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error
from nats.js.api import StreamConfig, StreamInfo
from nats.js.errors import NotFoundError

from cc_slurm_adapter.sinks.nats import keys

TIME_LIMIT = 10.0
"""Seconds that a test waits before it fails, where it does not say otherwise."""
CONNECT_LIMIT = 5
CLOSE_LIMIT = 0.2

Answer = TypeVar("Answer")


class Message(NamedTuple):
    """As it arrived."""

    subject: str
    payload: bytes
    headers: dict[str, str]


@dataclass(frozen=True)
class Login:
    """Who a client is: options of nats-py's connect(), and the public key of a user with just an nkey."""

    options: dict[str, Any] = field(default_factory=dict)
    public_nkey: str | None = None


NOBODY = Login()


def with_password(user: str, password: str) -> Login:
    return Login({"user": user, "password": password})


def with_nkey(seed: str) -> Login:
    return Login({"signature_cb": lambda nonce: keys.sign(seed, nonce)}, keys.public_key(seed))


def with_credentials(text: str) -> Login:
    """The text of a .creds file."""
    jwt, seed = keys.read_credentials(text)
    return Login(
        {
            "signature_cb": lambda nonce: keys.sign(seed, nonce),
            "user_jwt_cb": lambda: bytearray(jwt, "ascii"),
        }
    )


async def connect(url: str, login: Login, complaints: list[Exception] | None = None, **options: Any) -> Client:
    """A client that is connected, or the error at the first attempt.

    What goes wrong later is added to `complaints`. nats-py itself goes on trying when a connection is refused, even
    without `allow_reconnect`, and tells its error_cb only.
    """
    client = Client()
    client._public_nkey = login.public_nkey
    ready = False

    async def note(error: Exception) -> None:
        if not ready:
            raise error
        if complaints is not None:
            complaints.append(error)

    try:
        own = {"error_cb": note, "allow_reconnect": False, "connect_timeout": CONNECT_LIMIT}
        await client.connect(servers=[url], **{**own, **login.options, **options})
    except BaseException:
        ready = True
        with contextlib.suppress(asyncio.TimeoutError):  # after a TLS handshake that failed it never ends
            await asyncio.wait_for(client.close(), CLOSE_LIMIT)
        raise
    ready = True
    return client


async def settle(client: Client) -> None:
    """Return when the server has taken all that was published and subscribed so far.

    A single flush() does not say that: nats-py 2.16 sends its PING ahead of what publish() has put aside. The first
    flush() makes it write that, and the second PING comes behind it.
    """
    await client.flush()
    await client.flush()


def talk(url: str, work: Callable[[Client], Awaitable[Answer]], login: Login = NOBODY) -> Answer:
    """Connect once, do `work` and give its result. What the server complains about meanwhile is raised at the end."""

    async def connected() -> Answer:
        complaints: list[Exception] = []
        client = await connect(url, login, complaints)
        try:
            answer = await work(client)
            if client.is_connected:
                await settle(client)
        finally:
            await client.close()
        for complaint in complaints:
            raise complaint
        return answer

    return asyncio.run(asyncio.wait_for(connected(), TIME_LIMIT))


def publish(
    url: str, subject: str, *payloads: bytes, headers: dict[str, str] | None = None, login: Login = NOBODY
) -> None:
    async def send(client: Client) -> None:
        for payload in payloads:
            await client.publish(subject, payload, headers=headers)

    talk(url, send, login)


def make_stream(url: str, name: str, subjects: Sequence[str], *, login: Login = NOBODY, **limits: Any) -> StreamInfo:
    """A stream on disk that takes these subjects; `limits` are further fields of nats-py's StreamConfig."""
    config = StreamConfig(name=name, subjects=list(subjects), **{"duplicate_window": 120.0, **limits})

    async def make(client: Client) -> StreamInfo:
        return await client.jetstream().add_stream(config)

    return talk(url, make, login)


def read_stream(url: str, name: str, login: Login = NOBODY) -> list[Message]:
    """All messages that a stream holds, the oldest first."""

    async def read(client: Client) -> list[Message]:
        stream = client.jetstream()
        state = (await stream.stream_info(name)).state
        messages = []
        for number in range(max(state.first_seq, 1), state.last_seq + 1):  # both are 0 in an empty one
            with contextlib.suppress(NotFoundError):  # somebody has deleted it
                found = await stream.get_msg(name, number)
                messages.append(Message(found.subject or "", found.data or b"", dict(found.headers or {})))
        return messages

    return talk(url, read, login)


class Subscriber:
    """Collects what is published to `subjects`, in a thread of its own, and comes back after the server was away.

    The order of messages is that in which they came for each of `subjects`, not among them. What is published while
    the server or the connection is away is never seen: so it is with NATS. Used with `with`.
    """

    def __init__(self, url: str, *subjects: str, login: Login = NOBODY) -> None:
        self._url, self._subjects, self._login = url, subjects or (">",), login
        self._changed = threading.Condition()
        self._messages: list[Message] = []
        self._connected = False
        self._connections = 0
        """How often it was connected and the server had its subscriptions."""
        self._failure: Exception | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, name="subscriber", daemon=True)

    @property
    def messages(self) -> list[Message]:
        """All so far."""
        with self._changed:
            return list(self._messages)

    @property
    def connections(self) -> int:
        """How often it was connected, counting the first."""
        return self._connections

    def wait_for(self, count: int, seconds: float = TIME_LIMIT) -> list[Message]:
        """All so far, once there are `count` of them; fails if that takes longer than `seconds`."""
        self._wait(lambda: len(self._messages) >= count, seconds, f"{count} messages")
        return self.messages

    def wait_until_connected(self, times: int = 1, seconds: float = TIME_LIMIT) -> None:
        """Until it is connected, and has been `times` times, counting the first."""
        self._wait(lambda: self._connected and self._connections >= times, seconds, f"connection {times}")

    def __enter__(self) -> Subscriber:
        self._thread.start()
        try:
            self.wait_until_connected()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        with contextlib.suppress(RuntimeError):  # the thread has ended by itself
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _wait(self, happened: Callable[[], bool], seconds: float, what: str) -> None:
        with self._changed:
            self._changed.wait_for(lambda: happened() or self._failure is not None, seconds)
            if self._failure is not None:
                raise self._failure
            assert happened(), f"no {what} within {seconds:g} s; so far: {self._messages}"

    @contextlib.contextmanager
    def _change(self) -> Iterator[None]:
        with self._changed:
            yield
            self._changed.notify_all()

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            client = self._loop.run_until_complete(self._subscribed())
            self._loop.run_forever()
            self._loop.run_until_complete(client.close())
        except (Error, OSError, asyncio.TimeoutError) as error:
            with self._change():
                self._failure = error
        finally:
            self._loop.close()

    async def _subscribed(self) -> Client:
        client = await connect(
            self._url,
            self._login,
            reconnect_time_wait=0.02,
            disconnected_cb=self._note_disconnected,
            reconnected_cb=self._note_reconnected,
        )
        self._client = client
        client.options.update(allow_reconnect=True, max_reconnect_attempts=-1)  # only the first attempt may fail
        for subject in self._subjects:
            await client.subscribe(subject, cb=self._take)
        await self._note_connected()
        return client

    async def _take(self, message: Msg) -> None:
        with self._change():
            self._messages.append(Message(message.subject, message.data, dict(message.headers or {})))

    async def _note_disconnected(self) -> None:
        with self._change():
            self._connected = False

    async def _note_reconnected(self) -> None:
        self._noting = asyncio.ensure_future(self._note_connected())  # nats-py waits for this callback

    async def _note_connected(self) -> None:
        with contextlib.suppress(Error, OSError, asyncio.TimeoutError):  # it is away again
            await settle(self._client)
            with self._change():
                self._connected, self._connections = True, self._connections + 1
