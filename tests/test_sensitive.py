"""Secrets and personal data: what is found, what is not, and that a mask can be taken off again."""

import json
import re
import subprocess
import sys
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold import sensitive
from freehold.sensitive import Form, Hit, Kind, Names, Reading, Unmasker, find, mask, path, places, unmask
from freehold.sensitive.find import WINDOW, _joined, _whole
from freehold.sensitive.mask import LONGEST
from freehold.sensitive.numbers import IBAN_LENGTHS, NATIONAL

BODY = "\n".join(["MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7"] * 3)
RANDOM = "q9Zk2LmP0xR7vT4sB8nW1cY6dF3hJ5aG"


def pem(name: str) -> str:
    return f"-----BEGIN {name}-----\n{BODY}\n-----END {name}-----"


def token(header: str) -> str:
    return f"{header}.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"


# A text and the part of it that is to be found; check digits are those of published samples.
FOUND = [
    (Kind.PRIVATE_KEY, pem("PRIVATE KEY"), pem("PRIVATE KEY")),
    (Kind.PRIVATE_KEY, f"key:\n{pem('RSA PRIVATE KEY')}\nend", pem("RSA PRIVATE KEY")),
    (Kind.PRIVATE_KEY, pem("OPENSSH PRIVATE KEY").replace("\n", "\\n"), None),
    (Kind.PRIVATE_KEY, f"-----BEGIN EC PRIVATE KEY-----\n{BODY}", None),  # cut off
    (Kind.JWT, f"Bearer {token('eyJhbGciOiJIUzI1NiJ9')}", token("eyJhbGciOiJIUzI1NiJ9")),
    (Kind.JWT, f"id={token('eyJhbGciOiJub25lIn0')}&x=1", token("eyJhbGciOiJub25lIn0")),
    (Kind.JWT, token("eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9"), None),
    (Kind.API_KEY, "AKIA2E0A8F3B244C9986".replace("0", "7").replace("8", "5").replace("9", "3"), None),
    (Kind.API_KEY, "use ghp_16C7e42F292c6912E7710c838347Ae178B4a now", "ghp_16C7e42F292c6912E7710c838347Ae178B4a"),
    (Kind.API_KEY, f"sk-proj-{RANDOM}{RANDOM}", None),
    (Kind.API_KEY, "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw1", None),
    (Kind.PASSWORD, "password: hunter2", "hunter2"),
    (Kind.PASSWORD, '{"password": "letmein"}', "letmein"),
    (Kind.PASSWORD, "postgres://app:s3cr3t@db.company.io/x", "s3cr3t"),
    (Kind.PASSWORD, "mot de passe : Azerty30!", "Azerty30!"),
    (Kind.PASSWORD, "Authorization: Basic YWxhZGRpbjpvcGVuc2VzYW1l", "YWxhZGRpbjpvcGVuc2VzYW1l"),
    (Kind.SECRET, f"client_secret={RANDOM}", RANDOM),
    (Kind.SECRET, f'"apiKey": "{RANDOM}"', RANDOM),
    (Kind.SECRET, f"Authorization: Bearer {RANDOM}", RANDOM),
    (Kind.CARD, "card 4111 1111 1111 1111, 12/27", "4111 1111 1111 1111"),
    (Kind.CARD, "5555555555554444", "5555555555554444"),
    (Kind.CARD, "amex 3782-822463-10005.", "3782-822463-10005"),
    (Kind.CARD, "4111\u200b1111\uff11\uff11\uff11\uff111111", None),  # a zero-width space, full-width digits
    (Kind.IBAN, "to DE89 3704 0044 0532 0130 00 BIC COBADEFFXXX", "DE89 3704 0044 0532 0130 00"),
    (Kind.IBAN, "GB82WEST12345698765432", "GB82WEST12345698765432"),
    (Kind.IBAN, "fr14 2004 1010 0505 0001 3m02 606", None),
    (Kind.EMAIL, "Write to jane.doe@corp.de.", "jane.doe@corp.de"),
    (Kind.EMAIL, "<j+x@a-b.co.uk>", "j+x@a-b.co.uk"),
    (Kind.EMAIL, "jürgen@müller.at", "jürgen@müller.at"),
    (Kind.PHONE, "ring +44 20 7946 0958 now", "+44 20 7946 0958"),
    (Kind.PHONE, "Tel. 0171 2345678", "0171 2345678"),
    (Kind.PHONE, "(415) 522-2671 after six", "(415) 522-2671"),
    (Kind.PHONE, "06 12 34 56 78", "06 12 34 56 78"),
    (Kind.IP_ADDRESS, "from 81.2.69.142.", "81.2.69.142"),
    (Kind.IP_ADDRESS, "peer 2a00:1450:4001:81b::200e: timed out", "2a00:1450:4001:81b::200e"),
    (Kind.IP_ADDRESS, "client=8.8.8.8;", "8.8.8.8"),
]
NATIONALS = [
    "SSN: 536-90-4399",
    "ITIN 912-90-3456",
    "Steuer-ID 86 095 742 719",
    "2 95 10 99 126 111 93",
    "54362315K",
    "X-2482300-W",
    "RCCMNL83S18D969H",
    "BSN 111222333",
    "AB 12 34 56 C",
    "NHS number 943 476 5870",
    "PESEL 44051401359",
    "880320-0016",
    "131052-308T",
    "CPR 211062-5629",
    "fødselsnummer 151086 95088",
    "93.05.18-223.61",
    "756.9217.0769.85",
    "SVNR 1237 010180",
    "NIF 123 456 789",
    "CNP 1630615123457",
    "710319/2745",
    "EGN 7523169263",
    "OIB 33392005961",
    "AMKA 01013099997",
    "PPS 6433435F",
    "isikukood 36805280109",
    "asmens kodas 33309240064",
    "TC Kimlik 17291716060",
    "390.533.447-05",
    "20-05536168-2",
    "12.531.909-2",
    "BOXW310820HNERXN09",
    "SIN 123-456-782",
    "Aadhaar 2341 2341 2346",
    "PAN ACUPA7085R",
    "360426199101010071",
    "ID number 7503305044089",
    "TFN 123 456 782",
]
NOT_FOUND = [
    (Kind.PRIVATE_KEY, "It begins with -----BEGIN PRIVATE KEY----- and ends with -----END PRIVATE KEY-----."),
    (Kind.PRIVATE_KEY, pem("PUBLIC KEY")),
    (Kind.PRIVATE_KEY, pem("CERTIFICATE")),
    (Kind.JWT, "eyJhbGciOiJIUzI1NiJ9 is a header alone"),
    (Kind.JWT, token("eyJmb28iOiJiYXIifQ")),  # names no algorithm
    (Kind.JWT, "eyJ0.eyJ1.abc"),
    (Kind.API_KEY, "ghp_" + "x" * 36),
    (Kind.API_KEY, "AKIAIOSFODNN7EXAMPLE"),
    (Kind.API_KEY, "sk-learn-pipeline-with-a-very-long-name"),
    (Kind.API_KEY, "550e8400-e29b-41d4-a716-446655440000"),
    (Kind.PASSWORD, "The password must have 12 characters."),
    (Kind.PASSWORD, 'password = os.environ["PASSWORD"]'),
    (Kind.PASSWORD, "def login(user: str, password: str) -> None:"),
    (Kind.PASSWORD, "password_reset_url: https://site.com/reset"),
    (Kind.PASSWORD, "see http://host.company.io:8080/path"),
    (Kind.SECRET, "The key to success: patience and practice."),
    (Kind.SECRET, "sort_key: created_at_descending_v2"),
    (Kind.SECRET, "max_tokens=4096"),
    (Kind.SECRET, "api_key=YOUR_API_KEY_GOES_HERE_12345"),
    (Kind.CARD, "4111 1111 1111 1112"),
    (Kind.CARD, "order number 4111111111111111"),
    (Kind.CARD, "1234567812345670"),  # nobody issues such numbers
    (Kind.CARD, "0.4111111111111111"),
    (Kind.IBAN, "DE88 3704 0044 0532 0130 00"),
    (Kind.IBAN, "DE89 3704 0044 0532 0130"),
    (Kind.IBAN, "XX89370400440532013000"),
    (Kind.NATIONAL_ID, "536-90-4399"),  # nothing says what it is
    (Kind.NATIONAL_ID, "BSN 111222334"),
    (Kind.NATIONAL_ID, "54362315A"),
    (Kind.NATIONAL_ID, "390.533.447-06"),
    (Kind.EMAIL, "someone@example.com"),
    (Kind.EMAIL, "git@github.com:org/repo.git"),
    (Kind.EMAIL, "icon@2x.png, lodash@4.17.21, user @ host"),
    (Kind.PHONE, "Part no. 415-522-2671"),
    (Kind.PHONE, "call me on 2024-05-06 10:30"),
    (Kind.PHONE, "the number 0171 2345678 is odd"),
    (Kind.IP_ADDRESS, "127.0.0.1, 10.0.0.3, 192.0.2.7 and ::1"),
    (Kind.IP_ADDRESS, "version 10.2.33.4"),
    (Kind.IP_ADDRESS, "std::vector and a::b, 300.1.2.3"),
]


@pytest.mark.parametrize(("kind", "text", "part"), FOUND)
def test_it_is_found(kind, text, part):
    """In its text, from its first character to its last."""
    hits = [hit for hit in find(text) if hit.kind is kind]
    assert [text[hit.start : hit.end] for hit in hits] == [part or text]


@pytest.mark.parametrize("text", NATIONALS)
def test_national_numbers_are_found(text):
    """A published sample of each country's, beside the word that it needs, and nothing else is taken for one."""
    (hit,) = [hit for hit in find(text) if hit.kind is Kind.NATIONAL_ID]
    assert text.endswith(text[hit.start : hit.end])


def test_every_national_number_has_a_sample():
    """But those of Korea and Israel, of which there is none with check digits that hold."""
    named = {find(text)[0].what for text in NATIONALS}
    left = {number.what for number in NATIONAL} - named
    assert left == {"Korean resident number", "Israeli identity number"}


UNCHECKED = ("CPR", "SSN", "ITIN", "SVNR")  # their last digit checks nothing


@pytest.mark.parametrize("text", [text for text in NATIONALS if text[-1].isdigit() and not text.startswith(UNCHECKED)])
def test_a_wrong_check_digit_is_no_national_number(text):
    """With another last digit it is none."""
    changed = text[:-1] + str((int(text[-1]) + 1) % 10)
    assert not [hit for hit in find(changed) if hit.kind is Kind.NATIONAL_ID]


@pytest.mark.parametrize(("kind", "text"), NOT_FOUND)
def test_what_looks_like_it_is_not_found(kind, text):
    """A near-miss of each kind."""
    assert [hit for hit in find(text) if hit.kind is kind] == []


def test_every_kind_has_its_samples():
    """At least three that are found and three that are not."""
    for kind in Kind:
        found = len(NATIONALS) if kind is Kind.NATIONAL_ID else sum(row[0] is kind for row in FOUND)
        assert found >= 3 and sum(row[0] is kind for row in NOT_FOUND) >= 3, kind


def test_only_the_kinds_that_are_asked_for():
    """And none for none."""
    text = "jane@corp.de, card 4111 1111 1111 1111, ring +44 20 7946 0958"
    assert [hit.kind for hit in find(text)] == [Kind.EMAIL, Kind.CARD, Kind.PHONE]
    assert [hit.kind for hit in find(text, {Kind.CARD})] == [Kind.CARD]
    assert find(text, ()) == []


def test_a_hit_never_holds_the_text():
    """Neither as it is nor in its repr."""
    for _, text, part in FOUND:
        for hit in find(text):
            assert text[hit.start : hit.end] not in repr(hit)
            (place,) = places({"a": text})
            assert (part or text) not in repr(place) + repr(Reading(text))
    assert set(Hit.__struct_fields__) == {"kind", "start", "end", "what"}


def test_overlapping_hits_become_one_over_all():
    """Of the longest one's kind; of equals, of the more certain one's; and nothing found is left uncovered."""
    email, phone = Hit(Kind.EMAIL, 5, 20, "e"), Hit(Kind.PHONE, 10, 40, "p")
    assert _joined(iter([email, phone])) == [Hit(Kind.PHONE, 5, 40, "p")]
    assert _joined(iter([Hit(Kind.SECRET, 0, 9, "s"), Hit(Kind.API_KEY, 0, 9, "a")])) == [Hit(Kind.API_KEY, 0, 9, "a")]
    assert _joined(iter([phone, Hit(Kind.CARD, 40, 50, "c")])) == [phone, Hit(Kind.CARD, 40, 50, "c")]


spans = st.tuples(st.sampled_from(Kind), st.integers(0, 60), st.integers(1, 20)).map(
    lambda made: Hit(made[0], made[1], made[1] + made[2], "x")
)


@given(st.lists(spans, max_size=12))
def test_joined_hits_cover_the_same_and_do_not_overlap(hits):
    """Whatever the detectors say."""
    joined = _joined(iter(hits))
    assert {at for hit in hits for at in range(hit.start, hit.end)} == {
        at for hit in joined for at in range(hit.start, hit.end)
    }
    assert all(one.end <= two.start for one, two in pairwise(joined))


pieces = st.lists(
    st.one_of(
        st.text(max_size=12),
        st.sampled_from([row[1] for row in FOUND] + NATIONALS),
        st.sampled_from(
            ["[EMAIL_1]", "[email\\_2]", "[", "_1]", "[API_KEY_", "\u200b", "\uff14", "@", "::", "+", "=", "."]
        ),
    ),
    max_size=6,
).map("".join)


@settings(max_examples=200, deadline=None)
@given(pieces)
def test_a_mask_can_be_taken_off(text):
    """The text is back as it was, character by character, and nothing found is left in what was masked."""
    names = Names()
    hits = find(text)
    masked = mask(text, hits, names)
    assert unmask(masked, names) == text
    assert all(0 <= hit.start < hit.end <= len(text) for hit in hits)


def test_the_same_text_has_the_same_name_within_a_call():
    """Over several texts; another one has another; and the names do not show what they hold."""
    names = Names()
    one = mask("a@corp.de, b@corp.de", find("a@corp.de, b@corp.de"), names)
    two = mask("b@corp.de", find("b@corp.de"), names)
    assert (one, two) == ("[EMAIL_1], [EMAIL_2]", "[EMAIL_2]")
    assert repr(names) == "<Names of 2>"


@pytest.mark.parametrize("written", ["[email_1]", "[Email_1]", "[EMAIL\\_1]", "[EMAIL_01]"])
def test_a_placeholder_is_known_however_a_model_writes_it(written):
    """In other case, and with its underscore escaped; one that is nobody's stays."""
    names = Names()
    mask("a@corp.de", find("a@corp.de"), names)
    assert unmask(f"to {written}.", names) == "to a@corp.de."
    assert unmask("[EMAIL_7] [CARD_1]", names) == "[EMAIL_7] [CARD_1]"


def test_a_stream_is_unmasked_in_every_cut():
    """Cut in two and in three anywhere, and character by character."""
    names = Names()
    names.mark("email", "a@b.de"), names.mark("api_key", "k[EMAIL_1]")
    text = "x [[EMAIL_1] [API_KEY_1][email\\_1] [a] [API_ [1]["
    whole = unmask(text, names)
    assert whole == "x [a@b.de k[EMAIL_1]a@b.de [a] [API_ [1]["
    cuts = [(one, two) for one in range(len(text) + 1) for two in range(one, len(text) + 1)]
    for one, two in cuts:
        assert stream([text[:one], text[one:two], text[two:]], names) == whole
    assert stream(list(text), names) == whole


def stream(parts, names):
    unmasker = Unmasker(names)
    return "".join([*(unmasker.feed(part) for part in parts), unmasker.flush()])


@given(st.text("[EMAIL_1]x\\", max_size=200), st.integers(1, 9))
def test_no_more_is_held_back_than_the_longest_placeholder(text, size):
    """However the text goes on, and all of it comes in the end."""
    unmasker, came = Unmasker(Names()), 0
    for start in range(0, len(text), size):
        came += len(unmasker.feed(text[start : start + size]))
        assert min(start + size, len(text)) - came < LONGEST
    assert came + len(unmasker.flush()) == len(text)


def read(body: dict) -> list[tuple[str, Form, list[Kind]]]:
    """What is found where."""
    read = [(place, Reading(place.text, place.beside)) for place in places(body)]
    return [(path(place.steps), place.form, [hit.kind for hit in one.hits]) for place, one in read if one.hits]


def test_requests_are_walked():
    """Each text of either dialect, with the path that leads to it; media and names of roles are not read."""
    body = {
        "model": "jane@corp.de",
        "messages": [
            {"role": "user", "content": "b@corp.de"},
            {"role": "user", "content": [{"type": "text", "text": "c@corp.de"}]},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}]},
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": '{"to": "d@corp.de"}'}}]},
            {"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text", "text": "e@corp.de"}]}]},
            {"role": "assistant", "content": [{"type": "tool_use", "input": {"to": ["g@corp.de"], "n": 1}}]},
        ],
        "input": ["f@corp.de"],
        "system": [{"type": "text", "text": "I am a@corp.de"}],
        "tools": [{"function": {"parameters": {"properties": {"to": {"description": "as h@corp.de"}}}}}],
        "user": "i@corp.de",
    }
    assert [found[0] for found in read(body)] == [
        "system[0].text",
        "tools[0].function.parameters.properties.to.description",
        "user",
        "messages[0].content",
        "messages[1].content[0].text",
        "messages[3].tool_calls[0].function.arguments",
        "messages[4].content[0].content[0].text",
        "messages[5].content[0].input",
        "input[0]",
    ]


def test_what_only_claims_to_be_formal_or_a_picture_is_read():
    """A type that is an address, a data URL that is a sentence, a file that is text."""
    data = "data:text/plain;base64,my mail is a@corp.de"
    body = {"messages": [{"type": "a@corp.de", "url": data, "file_data": "a@corp.de " * 40, "detail": {"x": "a@b.de"}}]}
    assert len(read(body)) == 4


def test_tokens_and_media_are_told_as_unread():
    """Nothing can be said of them."""
    body = {"prompt": [1, 2], "messages": [{"url": "data:image/png;base64,aGk="}, {"data": "aGk=" * 100}]}
    assert [path(place.steps) for place in places(body) if place.form is Form.UNREAD] == [
        "prompt", "messages[0].url", "messages[1].data",
    ]  # fmt: skip
    assert [place.form for place in places({"input": [[1, 2], "text"]})] == [Form.UNREAD, Form.TEXT]


def test_a_key_says_what_its_value_is():
    """In a tool's arguments, and beside a text."""
    body = {"messages": [{"content": [{"type": "tool_use", "input": {"password": "hunter2"}}]}], "password": "hunter2"}
    assert read(body) == [
        ("password", Form.TEXT, [Kind.PASSWORD]),
        ("messages[0].content[0].input", Form.TREE, [Kind.PASSWORD]),
    ]


def test_a_path_tells_nothing():
    """A key that is personal data itself is found, and stands in the path as a star."""
    assert read({"schema": {"jane@corp.de": "x"}}) == [("schema.*", Form.KEY, [Kind.EMAIL])]
    assert path(("schema", "jane@corp.de", 3, "text")) == "schema.*[3].text"


def test_a_deep_request_is_walked():
    """Deeper than Python would go by itself."""
    body: dict = {"content": "a@corp.de"}
    for _ in range(3000):
        body = {"content": [body]}
    assert [place.text for place in places(body)] == ["a@corp.de"]


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ('{"to": "\\nanna@corp.de"}', [Kind.EMAIL]),
        ('{"to": "anna\\u0040corp.de", "n": 4}', [Kind.EMAIL]),
        ('[{"label": "SSN", "value": "536-90-4399"}]', [Kind.NATIONAL_ID]),
        ('{"card": 4111111111111111}', [Kind.CARD]),
        ('{"a": {"password": "pa\\"ss\\\\wort7"}}', [Kind.PASSWORD]),
        ('{"inner": "{\\"to\\": \\"\\\\nanna@corp.de\\"}"}', [Kind.EMAIL]),
        ('{"anna@corp.de": "x"}', [Kind.EMAIL]),
        ('{"key": "-----BEGIN PRIVATE KEY-----\\n' + "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC" * 3 + '"}', [Kind.PRIVATE_KEY]),
        ('{"n": 5, "words": ["nothing", "here"]}', []),
    ],
)
def test_json_in_a_text_stays_json(text, kinds):
    """It is read unescaped, in the light of its keys and of JSON within; masked, it is JSON of the same form, with
    nothing left of what was found; and the mask comes off."""
    reading, names = Reading(text), Names()
    assert [hit.kind for hit in reading.hits] == kinds
    masked = reading.masked(names, set(Kind))
    assert Reading(masked, again=True).hits == []
    plain = json.loads(text)
    assert type(json.loads(masked)) is type(plain) and (masked == text) == (not kinds)
    unmasked = json.loads(unmask(masked, names, in_json=True))
    assert unmasked == plain or unmasked == {"card": "4111111111111111"}


@given(st.recursive(st.text() | st.sampled_from(["a@corp.de", "[EMAIL_1]", 'x"\\\n a@corp.de']) | st.integers(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=8), inner)))  # fmt: skip
def test_any_json_is_masked_and_unmasked(value):
    """Whatever strings it holds; only numbers that were masked come back as strings."""
    text = json.dumps(value)
    names = Names()
    masked = Reading(text).masked(names, {Kind.EMAIL})
    assert json.loads(unmask(masked, names, in_json=True)) == value
    assert "a@corp.de" not in masked


@pytest.mark.parametrize("shift", range(0, 700, 97))
def test_a_long_text_is_read_as_a_short_one_is(shift):
    """In windows, whose edges fall anywhere: what is found is the same, at the same places."""
    lines = [text for _, text, _ in FOUND] + [text for _, text in NOT_FOUND]
    long = "x " * shift + "\n".join(lines * (4 * WINDOW // sum(map(len, lines)) + 1))
    whole = _joined(_whole(long, frozenset(Kind)))
    assert len(whole) > 100 and find(long) == whole


@pytest.mark.parametrize("size", [3_000, 20_000, 60_000, 200_000])
def test_what_is_longer_than_a_window_is_found_to_its_end(size):
    """A key of so many characters, wherever it begins; and what comes after it."""
    text = pem("PRIVATE KEY").replace("\n", "\n" + "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC" * (size // 32), 1)
    for before in (0, WINDOW - 5, WINDOW + 300):
        long = "a word " * (before // 7) + text + " mail a@corp.de " + "and so on " * 3_000
        found = [hit for hit in find(long) if hit.kind is Kind.PRIVATE_KEY]
        assert found[0].start == long.index("-----BEGIN")
        assert size > 65_536 or [hit.end for hit in found] == [long.index(" mail")]
        assert [hit.kind for hit in find(long)][-1] is Kind.EMAIL
        assert "MIIE" not in mask(long, find(long), Names())


HOSTILE = [
    "7", "@", "a.a.", "-", "٣", "4\u200b", "\uff14", "a@", "a@a.", "eyJ", "eyJhbGciOiJI.", "://", "://a:", "password",
    "password=", "password is ", "key=", "1.", "1-", "1 ", "(1", "A.", "AA11", "[", "::", "a:", "ghp_", "sk-", "+1",
    "-----BEGIN PRIVATE KEY-----", "4111111111111111 ", "tel 0171 2345678 ", "\u200b", "ssn 536-90-4399 ", "xoxb-1-",
]  # fmt: skip


@pytest.mark.parametrize("part", HOSTILE)
def test_hostile_texts_take_linear_steps(part):
    """Four times the length takes at most some nine times the time: a quadratic search would take sixteen."""
    sizes = 20_000, 80_000
    texts = [(part * size)[:size] for size in sizes]
    for _ in range(3):  # another process may come between
        small, large = (min(seconds(text) for _ in range(2)) for text in texts)
        if large < 9 * small + 0.05:
            return
    pytest.fail(f"{small:.3f} s, then {large:.3f} s")


def seconds(text: str) -> float:
    begun = time.process_time()
    find(text)
    return time.process_time() - begun


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=300))
def test_any_text_can_be_read(text):
    """Lone surrogates and all; hits are in order, within it and apart."""
    hits = find(text)
    assert all(one.end <= two.start for one, two in pairwise(hits))
    assert all(0 <= hit.start < hit.end <= len(text) for hit in hits)


def test_iban_lengths_are_the_registry_s():
    """As stdnum's copy of the registry has them, for every country in both."""
    from stdnum.iban import _ibandb

    told = {country: properties.get("bban") for _, country, _, properties, _ in _ibandb.prefixes}
    for country, size in IBAN_LENGTHS.items():
        if bban := told.get(country):
            assert size == 4 + sum(map(int, re.findall(r"([0-9]+)!", bban))), country
    assert len(told.keys() & IBAN_LENGTHS.keys()) > 70


def test_nothing_is_imported_before_it_is_needed():
    """Not by the gateway at its start, and the libraries only for a number that looks like one."""
    code = (
        "import sys, freehold.app.serve; assert 'freehold.sensitive' not in sys.modules;"
        "from freehold.sensitive import find; find('Hello, order 12 of 2024-05-06. jane@corp.de');"
        "assert not {'stdnum', 'phonenumbers'} & set(sys.modules), sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == ""


def test_the_kinds_are_secrets_or_personal():
    """Each one of the two."""
    assert set(Kind) == sensitive.SECRETS | sensitive.PERSONAL and not sensitive.SECRETS & sensitive.PERSONAL
