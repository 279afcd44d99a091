#!/usr/bin/env python3
"""Reads a result file of t2bench from standard input and writes it with hostile texts wherever its
format allows any text: what a page must show, and never run.

The texts would end a script, open a comment, add an element or a handler, turn the direction of
writing, or be run if they were taken for markup; all try to set the title to "injected".
"""
import json
import sys

RUN = "document.title='injected'"
TEXTS = [
    f"</script><script>{RUN}</script>",
    f"<!--<script>{RUN}//",
    f"<img src=x onerror=\"{RUN}\">",
    f"\"' onpointermove=\"{RUN}\" x='",
    f"]]>&lt;b&gt;</td></tr></table></style></title><svg onload={RUN}>",
    "\u202eright to left\u2066 \u2028new line\u2029 \x01\x1b[31m \ufeff end",
    "{{cards}} {{data}} ${document.title='injected'} %s%n",
    "a|b\\`*c*_[x](y)<br>",
]


def main():
    data = json.load(sys.stdin)
    turn = 0

    def text():
        nonlocal turn
        turn += 1
        return TEXTS[turn % len(TEXTS)] + f" {turn}"

    context = data["context"]
    context["date"] = text()
    context["machine"].update(name=text(), hypervisor=text(), kernel=text(), libc=text())
    context["build"].update(compiler=text(), flags=text(), git=text())
    context["t2bench"]["version"] = text()
    for peer in context["peers"]:
        peer.update(version=text(), note=text(), name=text())
    names = {}
    for entry in data["benchmarks"]:
        if entry.get("error_message"):
            entry["error_message"] = text()
        if entry.get("limit"):
            entry["limit"] = text()
        for name in list(entry.get("peer_results") or {}):
            peer = entry["peer_results"].pop(name)
            names.setdefault(name, text())
            entry["peer_results"][names[name]] = peer
            if peer["error"]:
                peer["error"] = text()
        if entry.get("best_peer") in names:
            entry["best_peer"] = names[entry["best_peer"]]
    json.dump(data, sys.stdout)


main()
