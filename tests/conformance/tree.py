#!/usr/bin/env python3
"""Writes a source tree of COUNT files below FOLDER: text of varied length, folders of varied depth, a few
executables, symbolic links and an empty folder. The same bytes every time."""

import os
import random
import sys


def main() -> None:
    folder, count = sys.argv[1], int(sys.argv[2])
    choice = random.Random(20)
    words = ["ring", "queue", "entry", "batch", "ticket", "chunk", "lease", "extent", "owner", "reply"]
    for number in range(count):
        parts = [words[choice.randrange(10)] + str(choice.randrange(6)) for _ in range(choice.randrange(1, 5))]
        place = os.path.join(folder, *parts)
        os.makedirs(place, exist_ok=True)
        path = os.path.join(place, f"{choice.choice(words)}_{number}.txt")
        length = int(choice.paretovariate(1.1) * 120) % 200_000
        with open(path, "w", encoding="utf-8") as file:
            for line in range(length // 60 + 1):
                file.write(f"{line} {choice.choice(words)} {choice.choice(words)} {choice.getrandbits(64):x}\n")
        if number % 37 == 0:
            os.chmod(path, 0o755)
        if number % 101 == 0:
            os.symlink(os.path.basename(path), path + ".link")
    os.makedirs(os.path.join(folder, "empty"))


main()
