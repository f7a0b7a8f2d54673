"""NATS: login at each server, the right to publish, and the stream, without publishing anything to the subjects.

What a server does not tell without that is said as such: then only the first message shows it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator

from cc_slurm_adapter.config.config import Config, read_nats_creds
from cc_slurm_adapter.daemon.checks.configuration import IN_UNIT, ONLY_DAEMON
from cc_slurm_adapter.daemon.checks.token import read_jwt
from cc_slurm_adapter.daemon.destinations import connect_to_nats_for_questions
from cc_slurm_adapter.daemon.faults import advice
from cc_slurm_adapter.errors import AdapterError
from cc_slurm_adapter.model import Finding
from cc_slurm_adapter.sinks.base import Answer, Verdict
from cc_slurm_adapter.sinks.nats.questions import (
    STREAM_NAMES,
    USER_INFO,
    NoReply,
    Permissions,
    Questions,
    Reply,
    parse_stream_names,
    parse_user_info,
    read_permissions,
    stream_question,
)


def find_nats(config: Config, hidden: Collection[str] = ()) -> Iterator[Finding]:
    """Look at everything that concerns NATS; yield nothing where no NATS is configured.

    `hidden` are the keys whose files only the daemon can read.
    """
    unreadable = [key for key in hidden if key.startswith("nats")]
    if config.nats_servers and unreadable:
        yield Finding(logging.INFO, "natsServer", f"NATS is not asked: {unreadable[0]} {ONLY_DAEMON}", IN_UNIT)
        return
    answers: dict[str, Answer] = {}
    about_user: list[Finding] = []
    for server in config.nats_servers:
        client = connect_to_nats_for_questions(config, server)
        try:
            answers[server] = client.check()
            if answers[server].verdict is Verdict.DELIVERED and not about_user:
                about_user = [*_of_subjects(config, client), *_of_stream(config, client)]
        finally:
            client.close()
    yield from _of_servers(answers)
    yield from about_user


def _of_servers(answers: dict[str, Answer]) -> Iterator[Finding]:
    """Judge the login at each server. One server that accepts it is enough."""
    some_accept = any(answer.verdict is Verdict.DELIVERED for answer in answers.values())
    for server, answer in answers.items():
        if answer.verdict is Verdict.DELIVERED:
            yield Finding(logging.INFO, "natsServer", f"{server} accepts the login")
        else:
            level = logging.WARNING if some_accept else logging.ERROR
            step = advice(answer.reason, "see that it runs, and that this host reaches it")
            yield Finding(level, "natsServer", f"NATS cannot be used: {answer.reason}", step)


def _of_subjects(config: Config, client: Questions) -> Iterator[Finding]:
    """Find out whether the user may publish to the subjects."""
    reply = client.ask(USER_INFO)
    permissions = parse_user_info(reply.data) or _of_credentials(config)
    subjects = {"natsSubject": config.nats_subject, "natsNodeSubject": config.nats_node_subject}
    for key, subject in subjects.items():
        if subject:
            yield _of_subject(key, subject, permissions, reply)


def _of_subject(key: str, subject: str, permissions: Permissions | None, reply: Reply) -> Finding:
    if permissions is None:
        why = reply.why if reply.failure else "the server does not tell"
        text = f"{key}: whether this user may publish to {subject} cannot be seen without publishing: {why}"
        return Finding(logging.INFO, key, text, "The first message shows it, and waits if it is refused: see the log")
    if permissions.permit(subject):
        return Finding(logging.INFO, key, f"{key}: this user may publish to {subject}")
    text = f"{key}: the NATS server does not permit this user to publish to the subject {subject}"
    return Finding(logging.ERROR, key, text, advice(text))


def _of_credentials(config: Config) -> Permissions | None:
    """Return what the JWT in natsCredsFile limits; None if it has no limits, as those of its account count then."""
    from cc_slurm_adapter.sinks.nats.keys import read_credentials  # noqa: PLC0415 - it is slow, and seldom needed

    try:
        text = read_nats_creds(config)
        claims = read_jwt(read_credentials(text).jwt) if text else None
        found = read_permissions(claims["nats"]["pub"]) if claims else Permissions()
    except (AdapterError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return found if found != Permissions() else None


def _of_stream(config: Config, client: Questions) -> Iterator[Finding]:
    """Find out whether a stream takes the starts and stops, if their acknowledgements are waited for."""
    if not config.nats_jet_stream:
        return
    subject = config.nats_subject
    reply = client.ask(STREAM_NAMES, stream_question(subject))
    names = parse_stream_names(reply.data)
    step = "create one with nats stream add, or set natsJetStream to false"
    if names:
        text = f"natsJetStream: the stream {', '.join(names)} takes the subject {subject}"
        yield Finding(logging.INFO, "natsJetStream", text)
    elif names is not None:
        yield Finding(logging.ERROR, "natsJetStream", f"natsJetStream: no stream has the subject {subject}", step)
    elif reply.failure is NoReply.NOBODY:
        text = f"natsJetStream: no stream has the subject {subject}, as the server has no JetStream for this account"
        yield Finding(logging.ERROR, "natsJetStream", text, "enable it there, or set natsJetStream to false")
    elif reply.failure is NoReply.CANNOT_LISTEN:
        text = f"natsJetStream: {reply.why}, as do the acknowledgements of the stream"
        yield Finding(
            logging.ERROR, "natsJetStream", text, "allow it on the NATS server, or set natsJetStream to false"
        )
    else:
        why = reply.why or "the server answers something else"
        text = f"natsJetStream: whether a stream has the subject {subject} cannot be seen without publishing: {why}"
        next_step = f"Allow this user to publish to {STREAM_NAMES}, or see nats stream ls"
        yield Finding(logging.INFO, "natsJetStream", text, next_step)
