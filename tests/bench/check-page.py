#!/usr/bin/env python3
"""Checks what `t2bench report` wrote and what a browser made of it.

  check-page.py html PAGE                   well formed, complete in itself, one script
  check-page.py dom DOM CHARTS FILE...      a browser's DOM holds the rows of the result files (up
                                            to 300), that many charts, and no NaN or undefined
  check-page.py png FILE WIDTHxHEIGHT light|dark
  check-page.py net LOG                     a net log of Chromium: the page asked for nothing
  check-page.py printed PDF                 at least two pages

Prints what is wrong and exits 1.
"""
import html.parser
import json
import re
import struct
import sys
import zlib

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source",
        "wbr"}
MOST_ROWS = 300  # that the page shows before it is asked for more
NO_VALUE = re.compile(r"NaN|undefined|Infinity|\[object")


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.wrong, self.ids, self.count = [], [], set(), {}
        self.attributes, self.texts, self.scripts = [], [], []
        self.feed(text)
        self.close()
        for tag in self.open:
            self.wrong.append(f"<{tag}> is never closed")

    def handle_starttag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1
        names = [name for name, _ in attrs]
        if len(names) != len(set(names)):
            self.wrong.append(f"line {self.getpos()[0]}: <{tag}> has an attribute twice")
        for name, value in attrs:
            self.attributes.append((tag, name, value or ""))
            if name == "id":
                if value in self.ids:
                    self.wrong.append(f"line {self.getpos()[0]}: id '{value}' occurs twice")
                self.ids.add(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if not self.open or self.open[-1] != tag:
            last = self.open[-1] if self.open else "nothing"
            self.wrong.append(f"line {self.getpos()[0]}: </{tag}> where <{last}> is open")
            if tag in self.open:
                while self.open.pop() != tag:
                    pass
        else:
            self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif not self.open or self.open[-1] != "style":
            self.texts.append(data)

    def rows(self, dom):
        """Rows of the table of all rows."""
        part = dom[dom.index('<section id="rows">'):]
        return len(re.findall(r"<tr\b", part[part.index("<tbody"):part.index("</tbody>")]))


def references(page):
    wrong = []
    for tag, name, value in page.attributes:
        if name in ("src", "href", "data", "action", "srcset", "xlink:href", "poster") and \
                not value.startswith(("#", "data:,")):
            wrong.append(f"<{tag} {name}='{value}'> leaves the page")
        if name.startswith("on"):
            wrong.append(f"<{tag}> has a handler {name}")
    for tag in ("img", "iframe", "object", "embed", "form", "base"):
        if tag in page.count:
            wrong.append(f"there is a <{tag}>")
    return wrong


def check_html(path):
    with open(path, encoding="utf-8") as f:
        text = f.read()
    page = Page(text)
    wrong = page.wrong + references(page)
    if not text.startswith("<!DOCTYPE html>\n"):
        wrong.append("no DOCTYPE at the start")
    if page.count.get("script") != 2:
        wrong.append(f"{page.count.get('script')} scripts, expected the data and the program")
    if "default-src 'none'" not in text:
        wrong.append("no content security policy")
    # The hostile texts of the tests hold such names too.
    if any(re.search(r"\{\{[a-z]+\}\}", line) and "injected" not in line
           for line in text.split("\n")):
        wrong.append("a name of the template was not replaced")
    data = json.loads(page.scripts[0])
    if not data["files"] or not data["fields"]:
        wrong.append("the data are empty")
    return wrong


def check_dom(path, charts, files):
    with open(path, encoding="utf-8") as f:
        dom = f.read()
    page = Page(dom)
    wrong = references(page)
    expected = 0
    for name in files:
        with open(name, encoding="utf-8") as f:
            expected += len({entry["run_name"] for entry in json.load(f)["benchmarks"]})
    found = page.rows(dom)
    if found != min(expected, MOST_ROWS):
        wrong.append(f"{found} rows in the table, expected {min(expected, MOST_ROWS)}")
    if f"{expected} row" not in dom:
        wrong.append(f"the number of rows, {expected}, is not named")
    found = len(re.findall(r'<svg [^>]*class="chart"', dom))
    if found != int(charts):
        wrong.append(f"{found} charts, expected {charts}")
    if page.count.get("script") != 2:
        wrong.append(f"{page.count.get('script')} scripts, expected 2")
    for text in page.texts:
        if NO_VALUE.search(text):
            wrong.append(f"text '{text.strip()[:60]}'")
    for tag, name, value in page.attributes:
        if NO_VALUE.search(value):
            wrong.append(f"<{tag} {name}='{value[:60]}'>")
    return wrong[:10]


def unfilter(kind, line, above, step):
    """One line of a PNG, filtered as its first byte says."""
    if kind == 2:
        return bytearray((a + b) & 255 for a, b in zip(line, above))
    for i in range(len(line)):
        left = line[i - step] if i >= step else 0
        if kind == 1:
            guess = left
        elif kind == 3:
            guess = (left + above[i]) // 2
        elif kind == 4:
            up, corner = above[i], above[i - step] if i >= step else 0
            p = left + up - corner
            near = (abs(p - left), abs(p - up), abs(p - corner))
            guess = (left, up, corner)[near.index(min(near))]
        else:
            break
        line[i] = (line[i] + guess) & 255
    return line


def read_png(path):
    """(width, height, {colour: number of pixels})"""
    with open(path, "rb") as f:
        data = f.read()
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("not a PNG")
    at, packed, header = 8, b"", None
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        part = data[at + 8:at + 8 + size]
        if zlib.crc32(kind + part) != struct.unpack(">I", data[at + 8 + size:at + 12 + size])[0]:
            raise ValueError(f"checksum of {kind}")
        if kind == b"IHDR":
            header = struct.unpack(">IIBBBBB", part)
        elif kind == b"IDAT":
            packed += part
        at += 12 + size
    width, height, depth, colour, _, _, interlace = header
    if depth != 8 or colour not in (2, 6) or interlace:
        raise ValueError(f"depth {depth}, colour type {colour}, interlace {interlace}")
    step = 3 if colour == 2 else 4
    raw, above, colours = zlib.decompress(packed), bytearray(width * step), {}
    for y in range(height):
        start = y * (width * step + 1) + 1
        line = bytearray(raw[start:start + width * step])
        above = unfilter(raw[start - 1], line, above, step)
        for x in range(0, width * step, step):
            key = bytes(above[x:x + 3])
            colours[key] = colours.get(key, 0) + 1
    return width, height, colours


def check_png(path, size, theme):
    width, height, colours = read_png(path)
    wrong = []
    if f"{width}x{height}" != size:
        wrong.append(f"{width}x{height} pixels, expected {size}")
    pixels = width * height
    most = max(colours.values())
    if len(colours) < 50 or most > 0.97 * pixels:
        wrong.append(f"looks blank: {len(colours)} colours, {100 * most / pixels:.1f} % are one")
    mean = sum(sum(key) * n for key, n in colours.items()) / (3 * pixels)
    if not (mean > 200 if theme == "light" else mean < 90):
        wrong.append(f"mean brightness {mean:.0f} of 255 is not {theme}")
    # The colour of bars and of the first series, from the style sheet.
    blue = bytes((0, 0x72, 0xb2) if theme == "light" else (0x56, 0xb4, 0xe9))
    if colours.get(blue, 0) < 100:
        wrong.append("nothing is drawn in the first colour")
    return wrong


def check_net(path):
    with open(path, encoding="utf-8") as f:
        text = f.read()
    try:
        log = json.loads(text)
    except ValueError:
        log = json.loads(text.rstrip().rstrip(",") + "]}")  # the browser was stopped early
    # What the browser asks for itself (updates, time) has the initiator "not an origin".
    asked = {event["params"]["url"] for event in log["events"]
             if event.get("params", {}).get("url") and
             event["params"].get("initiator", "not an origin") != "not an origin"}
    return [f"the page asked for {url}" for url in sorted(asked)]


def check_printed(path):
    with open(path, "rb") as f:
        data = f.read()
    pages = len(re.findall(rb"/Type\s*/Page\b", data))
    if not data.startswith(b"%PDF-") or pages < 2:
        return [f"{pages} pages"]
    return []


def main():
    mode, arguments = sys.argv[1], sys.argv[2:]
    if mode == "dom":
        wrong = check_dom(arguments[0], arguments[1], arguments[2:])
    else:
        wrong = {"html": check_html, "png": check_png, "net": check_net,
                 "printed": check_printed}[mode](*arguments)
    for line in wrong:
        print(f"{arguments[0]}: {line}")
    sys.exit(1 if wrong else 0)


main()
