"""A pretended upstream on loopback: what it does with each request is ordered, and what it got is kept."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import ssl
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

KEY = "sk-upstream-0123456789abcdef"
Order = dict


class Upstream:
    """An HTTP/1.1 server in a thread. ``orders`` are taken one for each request; without one it answers as usual.

    An order's fields: ``status``, ``type``, ``headers``, ``body``, ``raw`` (sent instead of everything), ``hang``
    (seconds before the answer), ``cut`` (end the connection after this many bytes of the body), ``drip`` (go on for
    ever), ``each`` (seconds between the events of a stream), ``reset`` (close before any answer).
    """

    def __init__(self, tls: ssl.SSLContext | None = None):
        self.orders: deque[Order] = deque()
        self.got: list[dict] = []
        self.connections = self.open = 0
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._started.wait()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/v1"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def order(self, *orders: Order) -> None:
        self.orders.extend(orders)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.set_exception_handler(lambda *_: None)  # connections break off here on purpose
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._talks: set[asyncio.Task] = set()
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0, ssl=self._tls)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()
        for task in list(self._talks):
            task.cancel()
        if self._talks:
            await asyncio.wait(self._talks, timeout=5)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._talks.add(task)
        self.connections += 1
        self.open += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (row.partition(":") for row in head[1:])}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.got.append({"line": head[0], "headers": headers, "body": body})
                gone = asyncio.create_task(reader.read(1))
                answer = asyncio.create_task(self._answer(head[0], json.loads(body), writer))
                await asyncio.wait([gone, answer], return_when=asyncio.FIRST_COMPLETED)
                if not answer.done() or not answer.result():
                    answer.cancel()
                    return
                if gone.done():
                    return
                gone.cancel()
                await asyncio.wait([gone])
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError, ssl.SSLError):
            return
        finally:
            self.open -= 1
            self._talks.discard(task)
            writer.transport.abort()

    async def _answer(self, line: str, body: dict, writer: asyncio.StreamWriter) -> bool:
        """Answer; says whether the connection lives on."""
        order = self.orders.popleft() if self.orders else {}
        await asyncio.sleep(order.get("hang", 0))
        if order.get("reset"):
            return False
        if "raw" in order:
            writer.write(order["raw"])
            await writer.drain()
            return order.get("keep", False)
        status = order.get("status", 200)
        if body.get("stream") and status == 200 and "body" not in order:
            return await self._stream(line, body, order, writer)
        content = order.get("body") or json.dumps(answer(line, body)).encode()
        rows = {"Content-Type": order.get("type", "application/json"), "Content-Length": str(len(content))}
        self._head(writer, status, rows | order.get("headers", {}))
        writer.write(content[: order.get("cut", len(content))])
        await writer.drain()
        while order.get("drip"):
            writer.write(b" " * 65536)
            await writer.drain()
            await asyncio.sleep(0)  # over TLS a drain of a lost connection may never wait
        return "cut" not in order

    async def _stream(self, line: str, body: dict, order: Order, writer: asyncio.StreamWriter) -> bool:
        self._head(writer, 200, {"Content-Type": "text/event-stream; charset=utf-8", "Transfer-Encoding": "chunked"})
        for sent, piece in enumerate(events(line, body), start=1):
            await asyncio.sleep(order.get("each", 0))
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
            if sent == order.get("cut"):
                await asyncio.sleep(0.2)  # a connection that is reset takes with it what was not read yet
                return False
            if sent == order.get("stall"):
                await asyncio.sleep(3600)
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    def _head(self, writer: asyncio.StreamWriter, status: int, rows: dict) -> None:
        head = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in rows.items())]
        writer.write(("\r\n".join(head) + "\r\n\r\n").encode())


def answer(line: str, body: dict) -> dict:
    """What is answered as usual; 7 tokens in, 3 out."""
    path = line.split()[1]
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10, "prompt_tokens_details": None}
    if path.endswith("/embeddings"):
        rows = [{"object": "embedding", "index": 0, "embedding": [0.25, -1.5]}]
        return {
            "object": "list",
            "model": body["model"],
            "data": rows,
            "usage": {"prompt_tokens": 7, "total_tokens": 7},
        }
    if path.endswith("/responses"):
        usage = {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}
        text = {"type": "output_text", "text": "over there", "annotations": []}
        item = {"id": "m", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
        return {"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": body["model"],
                "output": [item], "usage": usage}  # fmt: skip
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "over there"}}
    if path.endswith("/v1/completions"):
        choice = {"index": 0, "finish_reason": "stop", "text": "over there"}
    return {"id": "x", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice],
            "usage": usage, "system_fingerprint": "fp_1", "odd": {"kept": 1.5}}  # fmt: skip


def events(line: str, body: dict) -> list[bytes]:
    """The events of a stream; with usage as OpenAI gives it where it was asked for."""
    asked = (body.get("stream_options") or {}).get("include_usage")
    more = {"usage": None} if asked else {}
    made = []
    for text in ("over", " ", "there"):
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
        made.append({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": body["model"],
                     "choices": [choice]} | more)  # fmt: skip
    if asked:
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        made.append(made[0] | {"choices": [], "usage": usage})
    return [b"data: " + json.dumps(event).encode() + b"\n\n" for event in made] + [b"data: [DONE]\n\n"]


def authority(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A CA's certificate in a file, and a server's TLS under it for 127.0.0.1."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = _certificate("a test's CA", ca_key.public_key(), "a test's CA", ca_key, lambda builder: builder.add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True))  # fmt: skip
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    mine = _certificate("upstream", key.public_key(), "a test's CA", ca_key, lambda builder: builder.add_extension(
        names, critical=False))  # fmt: skip
    (folder / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    (folder / "server.pem").write_bytes(
        mine.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "server.pem")
    return folder / "ca.pem", tls


def _certificate(name: str, public, issuer: str, signer, more: Callable):
    now = datetime.datetime.now(datetime.UTC)
    common = lambda text: x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])  # noqa: E731
    builder = x509.CertificateBuilder().subject_name(common(name)).issuer_name(common(issuer)).public_key(public)
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=2))
    builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
    return more(builder).sign(signer, hashes.SHA256())
