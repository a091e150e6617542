#!/usr/bin/env python3
"""Two thousand requests as networks and strangers make them; afterwards nothing may be left of them.

    benches/chaos.py MODEL.gguf --requests 2000

Ordinary answers are mixed with clients that go away at any moment, that read slowly, that send half a body, bodies that
are too large, malformed JSON and invalid UTF-8, from --clients connections at once. Then the server's own counts must
say that no sequence runs or waits and no page is held, it must have as many threads as before, and its memory must
have stopped growing: that of the second half of the requests is compared with that of the first. Exits with 1
otherwise, and when anything is answered as it should not be. Set MALLOC_ARENA_MAX=1 where the allocator is glibc's: it
keeps memory for each thread otherwise, which grows to several percent more before it stays. Needs nothing but Python, on Linux.
"""

import argparse
import asyncio
import collections
import json
import random
import subprocess
import sys
import time

from http_client import Connection, fetch
from load import Server, question

# How often each kind comes, and how it may end; 429 where the queue is full. A body that is too large may be refused before
# all of it is sent, which closes the connection.
KINDS = {
    "whole": (5, {200, 429}),
    "stream": (5, {200, 429}),
    "leaves": (5, {"left", 200, 429}),
    "leaves early": (3, {"left"}),
    "slow reader": (1, {200, 429}),
    "half a body": (2, {"left"}),
    "too large": (1, {413, "closed"}),
    "not JSON": (2, {400}),
    "not UTF-8": (1, {400}),
    "wrong type": (2, {200, 400, 429}),
    "unknown path": (1, {404}),
    "embeddings": (1, {200, 429}),
    "constrained": (2, {200, 429}),
}


def chat(rng, **more):
    messages = [{"role": "user", "content": question(rng)}]
    return {"messages": messages, "max_tokens": rng.randint(1, 40), "seed": rng.randint(0, 9), **more}


async def one(kind, server, rng):
    """One request; gives the status, or what happened instead."""
    path = "/v1/chat/completions"
    async with Connection("127.0.0.1", server.port) as connection:
        if kind == "leaves early":
            await connection.send("POST", path, chat(rng, stream=rng.random() < 0.5))
            await asyncio.sleep(rng.uniform(0, 0.3))
            return "left"
        if kind == "half a body":
            body = json.dumps(chat(rng)).encode()
            half = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            connection.writer.write(half + body[: len(body) // 2])
            await connection.writer.drain()
            await asyncio.sleep(rng.uniform(0, 0.2))
            return "left"
        bodies = {
            "whole": lambda: chat(rng, n=rng.choice([1, 1, 1, 3])),
            "stream": lambda: chat(rng, stream=True),
            "leaves": lambda: chat(rng, stream=True),
            "slow reader": lambda: chat(rng, stream=True, logprobs=True, top_logprobs=20),
            "too large": lambda: b'{"messages": "' + b"x" * (9 << 20) + b'"}',
            "not JSON": lambda: json.dumps(chat(rng)).encode()[: rng.randint(0, 60)],
            "not UTF-8": lambda: b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}',
            "wrong type": lambda: chat(rng, temperature=rng.choice(["hot", [], -1, 1e40, None, {}])),
            "unknown path": lambda: chat(rng),
            "embeddings": lambda: {"input": [question(rng)] * rng.randint(1, 4)},
            "constrained": lambda: chat(rng, response_format={"type": "json_object"}),
        }
        paths = {"unknown path": "/v1/nothing", "embeddings": "/v1/embeddings"}
        try:
            await connection.send("POST", paths.get(kind, path), bodies[kind]())
            response = await connection.receive()
        except (ConnectionError, IndexError):
            # A body that is too large may be refused before all of it is sent.
            return "closed"
        if kind in ("leaves", "slow reader"):
            left = rng.randint(0, 20)
            async for _ in response.events():
                left -= 1
                if kind == "slow reader":
                    await asyncio.sleep(0.05)
                elif left < 0:
                    return "left"
        else:
            await response.body()
        return response.status


def resident(server):
    """Threads, and bytes resident now."""
    with open(f"/proc/{server.process.pid}/status", encoding="ascii") as status:
        fields = dict(line.split(":", 1) for line in status)
    return int(fields["Threads"]), int(fields["VmRSS"].split()[0]) * 1024


async def settle(server):
    """Waits until nothing is under way; the models' counts then."""
    for _ in range(600):
        _, body = await fetch("127.0.0.1", server.port, "GET", "/status")
        models = [model for model in json.loads(body)["models"] if model["pages"]]
        if not any(model["running"] + model["waiting"] + model["pages"]["used"] for model in models):
            return models
        await asyncio.sleep(0.1)
    sys.exit(f"something is still under way: {models}")


async def run(server, args, count, rng, seen):
    kinds = rng.choices(list(KINDS), [often for often, _ in KINDS.values()], k=count)

    async def client(number):
        # Of each client's own, so that what is asked does not depend on who is first.
        own = random.Random(rng.random() + number)
        while kinds:
            kind = kinds.pop()
            outcome = await asyncio.wait_for(one(kind, server, own), 120)
            seen[kind, outcome] += 1
            if outcome not in KINDS[kind][1]:
                sys.exit(f"{kind}: {outcome}")

    await asyncio.gather(*(client(number) for number in range(args.clients)))


async def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("model")
    parser.add_argument("--wushi", default="target/release/wushi")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    command = [args.wushi, "serve", args.model, "--port", "PORT", "--ctx", "1024", "--kv-tokens", "4096", "--sequences", "16"]
    async with Server("wushi", command) as server:
        seen, begin = collections.Counter(), time.perf_counter()
        # What is made once and kept is made by these.
        await run(server, args, args.requests // 2, rng, seen)
        # Each kind takes the most memory when all clients come with it at once, which chance might keep for the second half.
        for kind in KINDS:
            await asyncio.gather(*(one(kind, server, rng) for _ in range(args.clients)))
        await settle(server)
        await asyncio.sleep(12)
        threads, memory = resident(server)
        await run(server, args, args.requests - args.requests // 2, rng, seen)
        models = await settle(server)
        # Threads for blocking work leave after ten idle seconds.
        await asyncio.sleep(12)
        threads_after, memory_after = resident(server)
        for (kind, outcome), count in sorted(seen.items(), key=str):
            print(f"{count:5} {kind}: {outcome}")
        print(f"{sum(seen.values())} requests in {time.perf_counter() - begin:.0f} s; {json.dumps(models[0]['pages'])}")
        print(f"threads {threads} -> {threads_after}; resident {memory / 1e6:.1f} MB -> {memory_after / 1e6:.1f} MB")
        grown = memory_after - memory
        if threads_after > threads or grown > 0.05 * memory:
            sys.exit("threads or memory have grown")


if __name__ == "__main__":
    asyncio.run(main())
