#!/usr/bin/env python3
"""What a video that is being made costs those who wait for text: times between tokens alone and beside it, in turn.

    benches/text_beside_video.py TEXT_MODEL VIDEO_MODEL --users 1 4 --rounds 5

One server has both models. In every round each user asks --requests times in a stream, one after the other, greedy, with no video; then the
same again from the moment that a video is begun, loading included. Printed are medians over rounds of the time between tokens at the 50th and
99th percentile, of the time to the first token, and the limit that a video may cost: twice the 99th percentile alone and 50 ms. Needs
nothing but Python.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile

from http_client import fetch
from load import Server, ask, question


async def call(server, method, path, body=None):
    """A request that must succeed, and its JSON."""
    status, answer = await fetch("127.0.0.1", server.port, method, path, body)
    if status >= 300:
        sys.exit(f"{method} {path}: {status} {answer.decode(errors='replace')}")
    return json.loads(answer)


async def users(server, count, args, number):
    """Every user's requests; percentiles in ms."""
    seen = {"ttft": [], "itl": [], "mean": [], "tokens": 0, "requests": 0, "failed": 0}

    async def user(which):
        rng = random.Random(1000 * number + which)
        for _ in range(args.requests):
            await ask(server, question(rng), args.tokens, seen)

    await asyncio.gather(*(user(which) for which in range(count)))
    if seen["failed"]:
        sys.exit(f"{seen['failed']} requests failed")
    between = statistics.quantiles(seen["itl"], n=100)
    return {"p50": between[49] * 1e3, "p99": between[98] * 1e3, "first": statistics.median(seen["ttft"]) * 1e3}


async def beside(server, count, args, number):
    """The same while a video is made."""
    body = {"model": "video", "prompt": "a red fox in the snow", "size": args.size, "num_frames": args.frames,
            "num_inference_steps": args.steps, "guidance_scale": 1, "seed": number}
    job = await call(server, "POST", "/v1/videos", body)
    # Loading takes turns as well, so it is measured with the rest.
    while (seen := await call(server, "GET", f"/v1/videos/{job['id']}"))["status"] == "queued":
        await asyncio.sleep(0.05)
    row = await users(server, count, args, number)
    after = await call(server, "GET", f"/v1/videos/{job['id']}")
    if after["status"] != "in_progress":
        sys.exit("the video was over before the answers: ask for more --steps")
    row["video"] = after["progress"] - seen["progress"]
    row["stage"] = f"{seen['stage']} to {after['stage']}"
    await call(server, "DELETE", f"/v1/videos/{job['id']}")
    return row


async def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("text")
    parser.add_argument("video")
    parser.add_argument("--wushi", default="target/release/wushi")
    parser.add_argument("--users", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--requests", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", default="256x256")
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        command = [args.wushi, "serve", f"text={args.text}", f"video={args.video}", "--port", "PORT",
                   "--threads", str(args.threads), "--home", home, "--quiet"]
        async with Server("wushi", command) as server:
            for count in args.users:
                rounds = []
                for number in range(args.rounds):
                    # Each comes first in every other round.
                    measures = [users, beside][:: -1 if number % 2 else 1]
                    pair = {measure.__name__: await measure(server, count, args, number) for measure in measures}
                    rounds.append(pair)
                    print(f"{count} users, round {number + 1}: {json.dumps(pair)}", flush=True)
                median = lambda kind, key: statistics.median(pair[kind][key] for pair in rounds)
                print(f"\n| {count} users | between tokens p50, ms | p99, ms | first token, ms |\n|---|---:|---:|---:|")
                for kind, name in (("users", "alone"), ("beside", "beside a video")):
                    print(f"| {name} | {median(kind, 'p50'):.1f} | {median(kind, 'p99'):.1f} | {median(kind, 'first'):.0f} |")
                print(f"| allowed beside a video | | {2 * median('users', 'p99') + 50:.1f} | |\n", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
