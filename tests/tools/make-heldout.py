#!/usr/bin/env python3
"""Writes the held-out prompts of t2-chars: task, prompt and answer, TAB-separated, to stdout.

A prompt is held out from all training when FNV1a32(prompt) % 5 == 0. Of each task's held-out
prompts, in rising order of a second hash (FNV1a32 of the prompt with "#" before it, then of the
prompt itself), the first 200 are taken: a fixed choice without any pattern. Adding has only 157.
"""
import itertools
import sys

LETTERS = "abcdefgh"
DIGITS = "0123456789"
WANTED = 200


def fnv1a32(text):
    state = 0x811C9DC5
    for byte in text.encode("ascii"):
        state = (state ^ byte) * 0x01000193 & 0xFFFFFFFF
    return state


def words(alphabet, length):
    return ("".join(word) for word in itertools.product(alphabet, repeat=length))


def shifted(word):
    return "".join(LETTERS[(LETTERS.index(letter) + 1) % len(LETTERS)] for letter in word)


def tasks():
    """Every input of every task: (task, prompt, answer)."""
    for word in words(LETTERS, 5):
        yield "R", f"R{word}=", word[::-1] + ";"
    for word in words(DIGITS, 5):
        yield "S", f"S{word}=", "".join(sorted(word)) + ";"
    for word in words(LETTERS, 6):
        yield "C", f"C{word}=", shifted(word) + ";"
    for a, b in itertools.product(range(10, 100), range(1, 10)):
        yield "A", f"A{a}+{b}=", f"{a + b:03d};"


def main():
    held_out = {}
    for task, prompt, answer in tasks():
        if fnv1a32(prompt) % 5 == 0:
            held_out.setdefault(task, []).append((prompt, answer))
    for task, rows in held_out.items():
        rows.sort(key=lambda row: (fnv1a32("#" + row[0]), row[0]))
        for prompt, answer in rows[:WANTED]:
            sys.stdout.write(f"{task}\t{prompt}\t{answer}\n")


if __name__ == "__main__":
    main()
