"""
What is on the disk: an account's directory, and the index that gives its files UIDs.

Everything here blocks, so it runs in a thread; `mailplat_eml.store` sees to that.  An
index is a value: `look` reads the old one and returns a new one, already on the disk.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace

INDEX = ".mailplat-eml.json"


@dataclass(frozen=True)
class Message:
    """
    A file.  `stamp` tells whether it is still the same one.

    `size` counts octets with CR LF line ends, as mail has them.
    """

    uid: int
    modseq: int
    size: int
    date: int
    stamp: list[int]


@dataclass(frozen=True)
class Box:
    """A mailbox: a directory and the files in it."""

    uid_validity: int
    uid_next: int = 1
    modseq: int = 1
    files: dict[str, Message] = field(default_factory=dict)


@dataclass(frozen=True)
class Index:
    """An account.  `last_validity` only grows, so no mailbox ever gets another's."""

    last_validity: int = 0
    boxes: dict[str, Box] = field(default_factory=dict)
    subscribed: list[str] = field(default_factory=list)


def accounts(root: str) -> list[str]:
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and usable(entry.name))


def usable(name: str) -> bool:
    """Not hidden, and printable: other names are nobody's business."""
    return not name.startswith(".") and name.isprintable()


def stamp_of(stat: os.stat_result) -> list[int]:
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


def read(directory: str, mailbox: str, name: str, stamp: list[int]) -> bytes:
    """
    A message, with CR LF line ends.

    Raises:
        FileNotFoundError: the file is gone, or is no longer the one with this stamp.
    """
    with open(os.path.join(directory, mailbox, name), "rb") as file:
        if stamp_of(os.fstat(file.fileno())) != stamp:
            raise FileNotFoundError(name)
        return file.read().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def load(directory: str) -> Index:
    try:
        with open(os.path.join(directory, INDEX), encoding="utf-8") as file:
            data = json.load(file)
    except FileNotFoundError:
        return Index()
    boxes = {
        name: Box(**{**box, "files": {file: Message(**m) for file, m in box["files"].items()}})
        for name, box in data["boxes"].items()
    }
    return Index(data["last_validity"], boxes, data["subscribed"])


def save(directory: str, index: Index) -> Index:
    """Durable when it returns: UIDs that a client has seen must not be given again."""
    path = os.path.join(directory, INDEX)
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(asdict(index), file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return index


def look(directory: str, index: Index, now: int) -> Index:
    """The index as the disk is now; the same object if nothing changed."""
    boxes: dict[str, Box] = {}
    last = index.last_validity
    for name, files in listing(directory).items():
        box = index.boxes.get(name)
        if box is None:
            last = max(last + 1, now)
            box = Box(last)
        boxes[name] = look_into(directory, name, box, files)
    if boxes == index.boxes:
        return index
    return save(directory, replace(index, last_validity=last, boxes=boxes))


def look_into(directory: str, name: str, box: Box, files: dict[str, os.stat_result]) -> Box:
    stamps = {file: stamp_of(stat) for file, stat in files.items()}
    kept = {file: known for file, known in box.files.items() if stamps.get(file) == known.stamp}
    new = sorted(files.keys() - kept.keys())
    if not new and len(kept) == len(box.files):
        return box
    modseq, uid = box.modseq + 1, box.uid_next
    for file in new:
        try:
            size = len(read(directory, name, file, stamps[file]))
        except FileNotFoundError:
            continue  # gone or replaced since it was listed; the next look tells
        kept[file] = Message(uid, modseq, size, int(files[file].st_mtime), stamps[file])
        uid += 1
    return replace(box, uid_next=uid, modseq=modseq, files=kept)


def listing(directory: str) -> dict[str, dict[str, os.stat_result]]:
    """Mailbox -> file -> stat.  INBOX is there even if its directory is not."""
    found: dict[str, dict[str, os.stat_result]] = {"INBOX": {}}
    waiting = [""]
    while waiting:
        above = waiting.pop()
        with os.scandir(os.path.join(directory, above)) as entries:
            for entry in entries:
                if not usable(entry.name):
                    continue
                name = f"{above}/{entry.name}" if above else entry.name
                if entry.is_dir(follow_symlinks=False):
                    # Clients may write INBOX in any case, so "Inbox" could not be told from it.
                    if above or entry.name == "INBOX" or entry.name.upper() != "INBOX":
                        found[name] = {}
                        waiting.append(name)
                elif above and entry.name.endswith(".eml") and entry.is_file(follow_symlinks=False):
                    found[above][entry.name] = entry.stat(follow_symlinks=False)
    return found
