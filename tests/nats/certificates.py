"""Certificates for NATS over TLS, made by the command `openssl`: a CA, a server on this machine and a client."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

DAYS = 2
TIME_LIMIT = 30
"""Seconds for one command."""
KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
EXTENSIONS = """\
[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = IP:127.0.0.1, DNS:localhost
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[client]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectAltName = email:adapter@cluster.example
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""
"""As strict as Python 3.13 wants them."""


class Certificates:
    """Made anew in `folder`, in about a tenth of a second; two folders have two CAs that do not know each other."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.ca = folder / "ca.pem"
        self.server_certificate, self.server_key = folder / "server.pem", folder / "server.key"
        self.client_certificate, self.client_key = folder / "client.pem", folder / "client.key"
        (folder / "openssl.conf").write_text(EXTENSIONS, encoding="ascii")
        self._make_ca()
        self._make("server")
        self._make("client")

    def server_config(self, *, verify: bool = True) -> dict[str, Any]:
        """nats-server's configuration; with `verify` it wants a certificate of its clients."""
        files = {"cert_file": self.server_certificate, "key_file": self.server_key, "ca_file": self.ca}
        return {"tls": {**{key: str(path) for key, path in files.items()}, "verify": verify}}

    def client_context(self, *, with_certificate: bool = True) -> ssl.SSLContext:
        """For a client that trusts this CA, with or without the client's certificate."""
        context = ssl.create_default_context(cafile=str(self.ca))
        if with_certificate:
            context.load_cert_chain(self.client_certificate, self.client_key)
        return context

    def _make_ca(self) -> None:
        self._openssl("req", "-x509", *KEY, *self._request("ca"), "-extensions", "ca", "-days", str(DAYS))

    def _make(self, name: str) -> None:
        self._openssl("req", *KEY, *self._request(name))
        (self._folder / f"{name}.pem").rename(self._folder / f"{name}.csr")
        signed_by = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]
        extensions = ["-extfile", "openssl.conf", "-extensions", name]
        files = ["-in", f"{name}.csr", "-out", f"{name}.pem"]
        self._openssl("x509", "-req", *signed_by, *extensions, *files, "-days", str(DAYS))

    def _request(self, name: str) -> list[str]:
        return ["-config", "openssl.conf", "-subj", f"/CN=test {name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"]

    def _openssl(self, *arguments: str) -> None:
        command = ["openssl", *arguments]
        done = subprocess.run(
            command, cwd=self._folder, capture_output=True, text=True, timeout=TIME_LIMIT, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)} exited {done.returncode}:\n{done.stderr}"


def has_openssl() -> bool:
    return shutil.which("openssl") is not None
