#!/usr/bin/env python3
"""Checks that every dependency can be had under a licence of a short list.

Reads `cargo metadata --locked`, which names all packages of all platforms, and evaluates each SPDX expression
(https://spdx.github.io/spdx-spec/v2.3/SPDX-license-expressions/), the old form `MIT/Apache-2.0` included.

    tools/check_licences.py              exit code 1 and the offenders, if any
    tools/check_licences.py --self-test  checks the checker
"""

import json
import re
import subprocess
import sys

# Permissive licences, and MPL-2.0, whose terms end at its own files.
ALLOWED = {
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
}


def satisfiable(expression):
    """Whether a licensee can choose licences of ALLOWED only. Raises ValueError for what is no expression.

    Precedence as in SPDX: WITH binds tighter than AND, AND tighter than OR; `/` is OR.
    """
    tokens = re.findall(r"[()/]|[^\s()/]+", expression)
    position = 0

    def peek():
        return tokens[position] if position < len(tokens) else None

    def take():
        nonlocal position
        token = peek()
        if token is None:
            raise ValueError("it ends too early")
        position += 1
        return token

    def identifier():
        token = take()
        if not re.fullmatch(r"[A-Za-z0-9.:-]+\+?", token) or token in ("AND", "OR", "WITH"):
            raise ValueError(f"`{token}` where a licence should be")
        return token

    def simple():
        if peek() == "(":
            take()
            value = any_of()
            if take() != ")":
                raise ValueError("a parenthesis is not closed")
            return value
        licence = identifier()
        if peek() == "WITH":
            take()
            licence = f"{licence} WITH {identifier()}"
        return licence in ALLOWED

    def all_of():
        value = simple()
        while peek() == "AND":
            take()
            # Not `and`: the right side must be parsed in any case.
            value &= simple()
        return value

    def any_of():
        value = all_of()
        while peek() in ("OR", "/"):
            take()
            value |= all_of()
        return value

    value = any_of()
    if peek() is not None:
        raise ValueError(f"`{peek()}` is left over")
    return value


def complaint(package):
    """What is wrong with a package of `cargo metadata`; None if nothing is."""
    expression = package.get("license")
    if not expression:
        return f"no SPDX expression, only a file ({package['license_file']})" if package.get("license_file") else "none"
    try:
        return None if satisfiable(expression) else expression
    except ValueError as error:
        return f"{expression!r} cannot be read: {error}"


def self_test():
    cases = {
        "MIT": True,
        "GPL-3.0-only": False,
        "MIT OR GPL-3.0-only": True,
        "GPL-3.0-only OR MIT": True,
        "MIT AND GPL-3.0-only": False,
        "MIT/Apache-2.0": True,
        "MIT / GPL-2.0": True,
        "GPL-2.0/LGPL-2.1": False,
        "Apache-2.0 WITH LLVM-exception": True,
        "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT": True,
        "GPL-2.0-only WITH Classpath-exception-2.0": False,
        "MIT WITH LLVM-exception": False,
        # AND binds tighter than OR.
        "MIT OR GPL-3.0-only AND GPL-2.0-only": True,
        "GPL-3.0-only AND GPL-2.0-only OR MIT": True,
        "GPL-3.0-only AND (GPL-2.0-only OR MIT)": False,
        "(MIT OR Apache-2.0) AND Unicode-3.0": True,
        "(MIT OR Apache-2.0) AND Unicode-DFS-2016": False,
        "((MIT))": True,
        "Apache-2.0 AND ISC": True,
        "GPL-2.0+ OR BSD-3-Clause": True,
        "GPL-2.0+": False,
        "LicenseRef-Own": False,
    }
    for expression, expected in cases.items():
        assert satisfiable(expression) is expected, expression
    for broken in ["", "MIT OR", "OR MIT", "MIT AND AND ISC", "(MIT", "MIT)", "MIT Apache-2.0", "MIT WITH", "()", "MIT, ISC"]:
        try:
            satisfiable(broken)
        except ValueError:
            continue
        raise AssertionError(f"{broken!r} was read")
    assert complaint({"license": "MIT"}) is None
    assert complaint({"license": None, "license_file": "LICENCE"}) is not None
    assert complaint({"license": None}) is not None
    assert complaint({"license": "MIT ISC"}) is not None
    print(f"self-test: {len(cases)} expressions as expected")


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    if sys.argv[1:]:
        sys.exit(__doc__)
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    packages = metadata["packages"]
    offenders = [(package, why) for package in packages if (why := complaint(package))]
    for package, why in offenders:
        print(f"{package['name']} {package['version']}: {why}", file=sys.stderr)
    if offenders:
        sys.exit(f"{len(offenders)} of {len(packages)} packages are under no licence of the list in {sys.argv[0]}")
    print(f"licences: {len(packages)} packages, all on the list")


if __name__ == "__main__":
    main()
