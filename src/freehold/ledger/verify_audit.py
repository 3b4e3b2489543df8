#!/usr/bin/env python3
"""Check an export of Freehold's audit chain without Freehold.

    python verify_audit.py EXPORT.jsonl --key BASE64 [--key ...] [--checkpoint FILE ...]

It needs Python 3.9 or later and the package "cryptography", and reaches for nothing else. --key is the house's public
key, 32 bytes in base64, which you should have by another way than the export: `freehold report --public-key` prints
it. --checkpoint is a file of checkpoints that was kept outside the house; what was cut off the end of the chain is
found by it alone. The exit code is 0 where everything holds, 1 where something does not, and the first such thing is
named; 2 where the check cannot be made.

What is checked: every event has the next number, names the hash of the event before, and has the SHA-256 of its own
bytes; every checkpoint is signed (Ed25519 in a DSSE envelope) by a key that you named, and agrees with the chain; the
last event is signed by one; every checkpoint of the same home that was kept outside is found in the chain, unless it
is from before the export's first event.
"""

import argparse
import base64
import hashlib
import json
import sys

TYPE = "application/vnd.freehold.checkpoint.v1+json"
FIELDS = {"act", "actor", "at", "detail", "previous", "seq", "subject"}


class No(Exception):
    """Something does not hold."""


class Cannot(Exception):
    """The check cannot be made."""


def once(pairs):
    """A JSON object; a name that is there twice would mean one thing to one reader and another to the next."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice")
    return found


def parse(text):
    """A JSON document, strictly."""

    def refuse(word):
        raise ValueError(f"{word} is no JSON")

    return json.loads(text, object_pairs_hook=once, parse_constant=refuse)


def load_keys(words):
    """The public keys, by their fingerprints."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    found = {}
    for word in words:
        try:
            raw = base64.b64decode(word, validate=True)
            found["sha256:" + hashlib.sha256(raw).hexdigest()] = Ed25519PublicKey.from_public_bytes(raw)
        except ValueError as error:
            raise Cannot(f"--key {word} is no Ed25519 public key in base64: {error}") from None
    return found


def opened(envelope, keys, where):
    """The checkpoint in a DSSE envelope, if one of the keys signed it."""
    from cryptography.exceptions import InvalidSignature

    try:
        payload = base64.b64decode(envelope["payload"], validate=True)
        (signature,) = envelope["signatures"]
        kind, named = envelope["payloadType"], signature.get("keyid")
        made = base64.b64decode(signature["sig"], validate=True)
        checkpoint = parse(payload)
        if not {"at", "events", "head", "home"} == set(checkpoint) or type(checkpoint["events"]) is not int:
            raise ValueError("it is no checkpoint")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise No(f"{where}: the checkpoint cannot be read ({error})") from None
    if kind != TYPE:
        raise No(f"{where}: what is signed there is a {kind}, and no checkpoint")
    if named not in keys:
        raise No(f"{where}: the checkpoint is signed by {named}, a key that you did not name")
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(payload), payload)
    try:
        keys[named].verify(made, signed)
    except InvalidSignature:
        raise No(f"{where}: the signature of the checkpoint of {checkpoint['events']} events does not fit") from None
    return checkpoint


class Chain:
    """What was read so far."""

    def __init__(self, first, keys):
        if first.get("freehold.audit") != 1:
            raise Cannot("the file's first line does not say that it is an export of format 1")
        self.keys, self.home, self.first = keys, first["home"], first["from"]
        self.seq, self.head = first["from"] - 1, first["previous"]
        if self.first == 1 and self.head != "sha256:" + "0" * 64:
            raise No("line 1: the first event follows nothing, and the file says that it follows something")
        self.signed = self.checkpoints = 0
        self.last = None
        self.ended = False

    def event(self, line, number):
        """One event: its bytes stand between the line's head and its hash."""
        content, _, rest = line[len('{"event":') :].rpartition(',"hash":"')
        hash = rest[:-2]
        event = parse(content)
        if rest[-2:] != '"}' or set(event) != FIELDS:
            raise No(f"line {number}: this is no event as it should be")
        expected = self.seq + 1
        if event["seq"] != expected:
            raise No(f"event {expected} is missing: after {self.seq} comes {event['seq']} (line {number})")
        if event["previous"] != self.head:
            raise No(f"event {expected} does not follow event {self.seq}: it names another predecessor")
        if "sha256:" + hashlib.sha256(content.encode()).hexdigest() != hash:
            raise No(f"event {expected} ({event['act']} {event['subject']}) was changed: its hash does not fit")
        self.seq, self.head = expected, hash

    def checkpoint(self, envelope, number):
        """One checkpoint: it signs the event before it."""
        made = opened(envelope, self.keys, f"line {number}")
        self.agree(made, f"the checkpoint in line {number}")
        self.signed, self.last = self.seq, made
        self.checkpoints += 1

    def agree(self, made, where):
        """Does a checkpoint say of the chain what is there?"""
        if made["home"] != self.home:
            raise No(f"{where} is of another home, {made['home']}")
        if (made["events"], made["head"]) != (self.seq, self.head):
            raise No(f"{where} signs {made['events']} events with the head {made['head']}, and here it is not so")

    def end(self, said, number):
        """The last line."""
        if (said["events"], said["head"]) != (self.seq, self.head):
            raise No(f"line {number}: the file says that it ends at event {said['events']}, and it ends at {self.seq}")
        self.ended = True


def outside(paths, keys, home):
    """The home's checkpoints in files that were kept elsewhere, by the number of events."""
    found = {}
    for path in paths:
        own = 0
        with open(path, encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    where = f"line {number} of {path}"
                    made = opened(parse(line), keys, where)
                    if made["home"] == home:
                        own += 1
                        found.setdefault(made["events"], []).append((made, where))
        if not own:
            raise No(f"{path} has no checkpoint of this home, {home}")
    return found


def walk(stream, keys, paths):
    """Read the export to its end. Raises No at the first thing that does not hold."""
    chain, kept = Chain(parse(stream.readline()), keys), {}
    if paths:
        kept = outside(paths, keys, chain.home)
    for number, line in enumerate(stream, start=2):
        if chain.ended:
            raise No(f"line {number}: something follows the end")
        if not line.endswith("\n"):
            raise No(f"line {number} is not whole: the file was cut off")
        line = line[:-1]
        try:
            if line.startswith('{"event":'):
                chain.event(line, number)
                for made, where in kept.pop(chain.seq, ()):
                    chain.agree(made, where)
            else:
                found = parse(line)
                if set(found) == {"checkpoint"}:
                    chain.checkpoint(found["checkpoint"], number)
                elif set(found) == {"end"}:
                    chain.end(found["end"], number)
                else:
                    raise No(f"line {number} is none that an export has")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise No(f"line {number} cannot be read: {error}") from None
    finish(chain, kept)
    return chain


def finish(chain, kept):
    """What can be said at the end alone."""
    beyond = [one for seq, found in kept.items() if seq >= chain.first for one in found]
    for made, where in beyond:
        raise No(f"{where} signs {made['events']} events, and the file ends at {chain.seq}: the rest was cut off")
    if not chain.ended:
        raise No(f"the file has no end: it was cut off after event {chain.seq}")
    if chain.signed != chain.seq:
        raise No(f"no checkpoint signs the events after {chain.signed}")


def main():
    """Read the flags, check, and say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export")
    parser.add_argument("--key", required=True, action="append", metavar="BASE64")
    parser.add_argument("--checkpoint", action="append", default=[], metavar="FILE")
    arguments = parser.parse_args()
    try:
        keys = load_keys(arguments.key)
        with open(arguments.export, encoding="utf-8", newline="\n") as stream:
            chain = walk(stream, keys, arguments.checkpoint)
    except (No, UnicodeDecodeError) as reason:
        print(f"THE CHAIN DOES NOT HOLD: {reason}.")
        return 1
    except KeyboardInterrupt:
        return 130
    except (Cannot, OSError, ImportError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as reason:
        print(f"This cannot be checked: {reason}.", file=sys.stderr)
        return 2
    print(f"The chain holds: events {chain.first} to {chain.seq} of {chain.home}, {chain.checkpoints} checkpoints.")
    print(f"head {chain.head}")
    print(f"signed at {chain.last['at']:.3f} (seconds since 1970); what came later is not in this file")
    if chain.first > 1:
        print(f"The file begins at event {chain.first}: what was before is signed, but not in it.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
