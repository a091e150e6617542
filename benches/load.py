#!/usr/bin/env python3
"""Many users at once: Wushi and llama-server with the same model, threads and number of places, in turn.

    benches/load.py MODEL.gguf --peer target/peer/build-0.3.36/bin/llama-server --users 16 64 --rounds 3

Every user waits a random time (exponential, so that arrivals are Poisson), asks in a stream, reads the answer, and waits
again. Requests are the same for both servers: drawn from one seed, with prompts of various lengths behind one system
message, answers greedy and of at most --tokens tokens. Printed are medians over rounds: tokens per second, the time to
the first token and between tokens at the 50th and 99th percentile, and a row for each round. Needs nothing but Python.
"""

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time

from http_client import Connection, fetch

SYSTEM = "You are a careful assistant. Answer in plain words, and say so where you do not know."
WORDS = (
    "river mountain copper engine garden winter letter machine island bridge paper silver forest harbour "
    "orchard signal mirror window station pattern shadow lantern market village theory kernel compass thunder"
).split()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def question(rng):
    """A prompt of 20 to 300 words."""
    words = " ".join(rng.choice(WORDS) for _ in range(int(rng.uniform(20, 300))))
    return f"Write a short story in which these words occur, in any order: {words}."


class Server:
    """A server under test."""

    def __init__(self, name, command):
        self.name = name
        self.port = free_port()
        self.command = [part.replace("PORT", str(self.port)) for part in command]
        self.process = None

    async def __aenter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
            try:
                path = "/ready" if self.name == "wushi" else "/health"
                if (await fetch("127.0.0.1", self.port, "GET", path))[0] == 200:
                    return self
            except (OSError, ValueError, IndexError):
                pass
            if self.process.poll() is not None:
                sys.exit(f"{self.name} ended: {' '.join(self.command)}")
            await asyncio.sleep(0.1)
        sys.exit(f"{self.name} does not become ready")

    async def __aexit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def peak_memory(self):
        """Bytes resident at most, where the system says."""
        try:
            with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
                return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
        except (OSError, StopIteration):
            return 0


async def ask(server, prompt, tokens, seen):
    """One request; adds what was measured to `seen`."""
    body = {
        "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    async with Connection("127.0.0.1", server.port) as connection:
        start = time.perf_counter()
        await connection.send("POST", "/v1/chat/completions", body)
        response = await connection.receive()
        if response.status != 200:
            seen["failed"] += 1
            return
        first = last = None
        tokens_said = 0
        async for data in response.events():
            if data == b"[DONE]":
                break
            event = json.loads(data)
            if event.get("usage"):
                tokens_said = event["usage"]["completion_tokens"]
                seen["tokens"] += tokens_said
            choices = event.get("choices") or [{}]
            if not choices[0].get("delta", {}).get("content"):
                continue
            now = time.perf_counter()
            if last is None:
                first = now
                seen["ttft"].append(now - start)
            else:
                seen["itl"].append(now - last)
            last = now
        # Several tokens may come in one chunk, or chunks at once: an answer's mean is fair to both.
        if tokens_said > 1:
            seen["mean"].append((last - first) / (tokens_said - 1))
    seen["requests"] += 1


async def measure(server, users, args, round_number):
    """One round: all users for --seconds, then what is under way is waited for."""
    seen = {"ttft": [], "itl": [], "mean": [], "tokens": 0, "requests": 0, "failed": 0}
    begin = time.perf_counter()
    end = begin + args.seconds

    async def user(number):
        rng = random.Random(1000 * round_number + number)
        while True:
            await asyncio.sleep(rng.expovariate(1 / args.think))
            if time.perf_counter() > end:
                return
            await ask(server, question(rng), args.tokens, seen)

    await asyncio.gather(*(user(number) for number in range(users)))
    elapsed = time.perf_counter() - begin
    cuts = {name: statistics.quantiles(seen[name], n=100) if len(seen[name]) > 1 else [float("nan")] * 99 for name in ("ttft", "itl", "mean")}
    return {
        "tokens/s": seen["tokens"] / elapsed,
        "requests": seen["requests"],
        "failed": seen["failed"],
        "ttft p50 ms": cuts["ttft"][49] * 1e3,
        "ttft p99 ms": cuts["ttft"][98] * 1e3,
        "itl p50 ms": cuts["itl"][49] * 1e3,
        "itl p99 ms": cuts["itl"][98] * 1e3,
        "mean per token p50 ms": cuts["mean"][49] * 1e3,
        "mean per token p99 ms": cuts["mean"][98] * 1e3,
        "peak MB": server.peak_memory() / 1e6,
    }


def commands(args, users):
    """How both servers are started: as many places as users, a context of --ctx each."""
    threads = str(args.threads)
    wushi = [args.wushi, "serve", args.model, "--port", "PORT", "--threads", threads, "--ctx", str(args.ctx)]
    wushi += ["--sequences", str(users), "--kv-tokens", str(users * args.ctx), "--quiet"]
    servers = [("wushi", wushi)]
    if args.peer:
        peer = [args.peer, "-m", args.model, "--port", "PORT", "-t", threads, "-tb", threads, "-np", str(users)]
        peer += ["-c", str(users * args.ctx), "--no-webui"]
        servers.append(("llama-server", peer))
    return servers


async def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("model")
    parser.add_argument("--wushi", default="target/release/wushi")
    parser.add_argument("--peer", help="llama-server; without it only Wushi is measured")
    parser.add_argument("--users", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--think", type=float, default=2, help="seconds that a user waits, on average")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--ctx", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    for users in args.users:
        rounds = {}
        for number in range(args.rounds):
            # Each goes first in every other round.
            for name, command in commands(args, users)[:: -1 if number % 2 else 1]:
                async with Server(name, command) as server:
                    row = await measure(server, users, args, number)
                if row["failed"]:
                    sys.exit(f"{name}: {row['failed']} requests failed")
                rounds.setdefault(name, []).append(row)
                print(f"{users} users, round {number + 1}, {name}: " + json.dumps({k: round(v, 1) for k, v in row.items()}), flush=True)
        print(f"\n| {users} users | " + " | ".join(rounds[next(iter(rounds))][0]) + " |")
        print("|---" * (1 + len(rounds[next(iter(rounds))][0])) + "|")
        for name, rows in rounds.items():
            medians = [statistics.median(row[key] for row in rows) for key in rows[0]]
            print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in medians) + " |")
        print(flush=True)


if __name__ == "__main__":
    asyncio.run(main())
