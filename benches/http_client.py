"""A small HTTP/1.1 client on asyncio's streams: no more than load tests need, so that they need nothing installed."""

import asyncio
import json


class Response:
    """Status, headers and the body as it comes."""

    def __init__(self, status, headers, reader):
        self.status = status
        self.headers = headers
        self.reader = reader

    async def chunks(self):
        """The body's pieces as they arrive."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(await self.reader.readline(), 16):
                yield await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            await self.reader.readline()
        else:
            length = int(self.headers.get("content-length", 0))
            if length:
                yield await self.reader.readexactly(length)

    async def body(self):
        """The whole body."""
        return b"".join([chunk async for chunk in self.chunks()])

    async def events(self):
        """The data of server-sent events, each as it arrives; comments are left out."""
        rest = b""
        async for chunk in self.chunks():
            rest += chunk
            while b"\n\n" in rest:
                event, rest = rest.split(b"\n\n", 1)
                for line in event.split(b"\n"):
                    if line.startswith(b"data: "):
                        yield line[6:]


class Connection:
    """One connection, for one request at a time."""

    def __init__(self, host, port):
        self.host = host
        self.port = port
        self.reader = self.writer = None

    async def __aenter__(self):
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port, limit=1 << 22)
        return self

    async def __aexit__(self, *_):
        self.writer.close()

    async def send(self, method, path, body=None, headers=()):
        """Sends a request; `body` is bytes, or what becomes JSON."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", f"host: localhost:{self.port}", *headers]
        if body is not None:
            lines += ["content-type: application/json", f"content-length: {len(body)}"]
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b""))
        await self.writer.drain()

    async def receive(self):
        """The head of the response."""
        status = int((await self.reader.readline()).split()[1])
        headers = {}
        while line := (await self.reader.readline()).strip():
            name, value = line.decode("latin-1").split(":", 1)
            headers[name.lower()] = value.strip()
        return Response(status, headers, self.reader)


async def fetch(host, port, method, path, body=None):
    """Status and body of one request."""
    async with Connection(host, port) as connection:
        await connection.send(method, path, body)
        response = await connection.receive()
        return response.status, await response.body()
