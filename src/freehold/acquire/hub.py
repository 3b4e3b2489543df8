"""A model on a hub: the Hugging Face Hub, or whatever ``HF_ENDPOINT`` names.

The session, proxies, certificates, tokens and the local cache are those of ``huggingface_hub``. The bytes are fetched
here, over its session, for three reasons: since 2.x its downloads start anew after a kill (`file_download` unlinks
what is partial), it reads a listing without a bound, and it does not compare what arrived with what was listed.

API: ``GET /api/models/<id>/revision/<revision>?blobs=true`` lists the files of one commit, each with its size and
the SHA-256 of its content (Git LFS) or the SHA-1 of its git blob; ``GET /<id>/resolve/<commit>/<path>`` is a file, in
ranges (RFC 9110, 14). The revision is looked up once, and everything is fetched by the commit that it stood for.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import Struct

from freehold import disk
from freehold.acquire import local
from freehold.acquire.base import (
    CHUNK,
    KEPT_NOTHING,
    MAX_FILES,
    Choice,
    Progress,
    checked,
    clear_errors,
    files_folder,
    ggufs,
    model_name,
    shown,
)
from freehold.acquire.partial import Partial, Promise, Unfinished, kept, swapped
from freehold.acquire.source import Source
from freehold.errors import AcquireFailed
from freehold.names import size
from freehold.types import Acquired

_LISTING = 64 << 20  # bytes of a listing; 20,000 files need about 8 MiB
_LISTING_SECONDS = 120
_STRETCH = 8 << 30  # bytes asked for at once: content networks do not serve whole files over 50 GB
_WAITS = (0.5, 1.0, 2.0, 4.0)  # seconds before each further try
_LONGEST_WAIT = 60  # what a hub may ask us to wait, in seconds
_ENOUGH = 1 << 20  # bytes that must arrive for a try to count as progress
_LATER = (408, 429, 500, 502, 503, 504)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class _Lfs(Struct, frozen=True):
    sha256: str
    size: int


class _Sibling(Struct, frozen=True, rename="camel"):
    rfilename: str
    size: int | None = None
    blob_id: str | None = None
    lfs: _Lfs | None = None


class _Listing(Struct, frozen=True, rename="camel"):
    sha: str
    siblings: list[_Sibling]
    card_data: Any = None


class _Cut(Exception):
    """One try ended early. ``wait`` is what the hub asks for, in seconds."""

    def __init__(self, why: str, wait: float = 0):
        super().__init__(why)
        self.wait = wait


def fetch(
    source: Source, choice: Choice, folder: Path, progress: Progress, *, name: str = "", downloads: Path
) -> Acquired:
    """Fetch the chosen files of a repository into ``folder``.

    An interrupted download waits in a folder of its own below ``downloads``, each file under its digest, and goes on
    from there at the next try of the same source; it is gone when all has arrived, or when something is refused.

    Raises:
        AcquireFailed: the library is not installed, the hub cannot be reached or refuses, the repository, revision
            or file is not there, the listing or a file is not what it should be, or there is no space.
    """
    hub = _Hub(_library(), source)
    if hub.offline:
        return _from_cache(hub, choice, folder, progress, name)
    with kept(downloads / hub.key) as parts, clear_errors(str(source)):
        listing = hub.listing()
        promises = _promises(listing)
        sizes = {path: promise.size for path, promise in promises.items()}
        chosen = [promises[path] for path in choice.of(sizes, shown(source.where))]
        if not choice.path and not choice.include:
            _need_one(source, {one.path: one.size for one in chosen})
        _arrive(hub, listing.sha, chosen, parts, folder, progress)
    licence, bases = _card(listing.card_data)
    return Acquired(
        folder=folder / "files",
        name=name or _name(source, [one.path for one in chosen]),
        source=_pinned(source, listing.sha),
        digests={one.path: f"sha256:{one.digest}" for one in chosen if len(one.digest) == 64},
        licence=licence,
        base_models=bases,
    )


def _library() -> SimpleNamespace:
    """What is used of huggingface_hub. It is imported here alone, as it is an extra, and heavy."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own remarks on its settings
            import huggingface_hub
            from huggingface_hub import constants, errors, utils
    except ImportError:
        raise AcquireFailed(
            "A hub is reached through the package huggingface_hub, which is not installed.",
            hint="Install it with pip install 'freehold[hub]'; files that are here are added with file:PATH.",
        ) from None
    constants.HF_HUB_DISABLE_TELEMETRY = True
    return SimpleNamespace(api=huggingface_hub, constants=constants, errors=errors, utils=utils)


class _Hub:
    """One repository on one hub, through the library's session."""

    def __init__(self, library: SimpleNamespace, source: Source):
        self.library = library
        self.source = source
        self.endpoint = (os.environ.get("HF_ENDPOINT") or library.constants.ENDPOINT).rstrip("/")
        self.offline = library.constants.HF_HUB_OFFLINE or _is_true(os.environ.get("HF_HUB_OFFLINE", ""))
        self.key = hashlib.sha256(f"{self.endpoint}\0{source}".encode()).hexdigest()[:32]
        self._repository = quote(source.where)
        if not _is_address(self.endpoint):
            raise AcquireFailed(f"HF_ENDPOINT is {shown(self.endpoint)}, which is no web address.", hint="Correct it.")

    def listing(self) -> _Listing:
        """The files of the revision, and the commit that it stands for."""
        url = (
            f"{self.endpoint}/api/models/{self._repository}/revision/{quote(self.source.revision, safe='')}?blobs=true"
        )
        content, kind = self.patiently(lambda: self._document(url), lambda: 0)
        try:
            listing = msgspec.json.decode(content, type=_Listing)
        except (msgspec.MsgspecError, RecursionError):
            raise Unfinished(
                f"{self.endpoint} does not answer as a hub does: it sent {shown(kind) or 'something'} that is no "
                f"listing of {self.source.where}.",
                hint="Check HF_ENDPOINT, and that no proxy or sign-in page answers in the hub's place.",
            ) from None
        given = self.source.revision
        if not _COMMIT.fullmatch(listing.sha) or (_COMMIT.fullmatch(given) and given != listing.sha):
            raise AcquireFailed(
                f"The hub answers {shown(given)} with the commit {shown(listing.sha)}.", hint="Do not use that hub."
            )
        return listing

    def patiently(self, attempt, arrived) -> Any:
        """The result of ``attempt``, tried again where the hub or the network fails; for ever, as long as
        ``arrived()`` bytes keep growing."""
        tries, before = 0, arrived()
        while True:
            try:
                return attempt()
            except _Cut as cut:
                if arrived() >= before + _ENOUGH:
                    tries, before = 0, arrived()
                if tries == len(_WAITS) or cut.wait > _LONGEST_WAIT:
                    raise self._given_up(str(cut), arrived()) from None
                time.sleep(max(_WAITS[tries], cut.wait))
                tries += 1

    @contextmanager
    def get(self, url: str, **headers: str) -> Iterator[Any]:
        """A response to read from. Raises _Cut where another try may help, and AcquireFailed where none will."""
        constants, utils = self.library.constants, self.library.utils
        try:
            sent = utils.build_hf_headers(library_name="freehold") | headers
            options = {"timeout": constants.HF_HUB_DOWNLOAD_TIMEOUT, "follow_redirects": True}
            with utils.get_session().stream("GET", url, headers=sent, **options) as response:
                self._check(response)
                yield response
        except UnicodeEncodeError:
            raise Unfinished("HF_TOKEN holds letters that no token has.", hint="Set it anew.") from None
        except self.library.errors.HTTPError as error:  # the root of all that the session raises
            raise _Cut(shown(str(error)) or type(error).__name__) from None

    def _document(self, url: str) -> tuple[bytes, str]:
        """A listing's bytes and media type. Raises AcquireFailed where it is too large or too slow."""
        content, deadline = bytearray(), time.monotonic() + _LISTING_SECONDS
        with self.get(url) as response:
            for block in response.iter_bytes(CHUNK):
                content += block
                if len(content) > _LISTING or time.monotonic() > deadline:
                    raise AcquireFailed(
                        f"The listing of {self.source.where} is over {_LISTING >> 20} MiB or takes over "
                        f"{_LISTING_SECONDS} seconds.",
                        hint=KEPT_NOTHING,
                    )
            return bytes(content), response.headers.get("content-type", "")

    def _check(self, response: Any) -> None:
        """Raise what a status other than success means."""
        status = response.status_code
        if status in (200, 206):
            return
        if status in _LATER:
            wait = response.headers.get("retry-after", "")
            raise _Cut(f"it answers {status}", float(wait) if re.fullmatch(r"\d{1,9}", wait) else 0)
        raise self._refusal(status, response.headers.get("x-error-code", ""))

    def _refusal(self, status: int, code: str) -> Unfinished:
        """What the hub says by a status and its own error code, as a sentence."""
        where, token = self.source.where, "Set HF_TOKEN to a token that may read it"
        said = {
            "GatedRepo": (
                f"{where} is open only to those who have agreed to its terms.",
                f"Agree to them at {self.endpoint}/{where}, then set HF_TOKEN to a token of that account.",
            ),
            "RepoNotFound": (
                f"There is no model {where} on {self.endpoint}, or it is not open to you.",
                f"Check the name. {token}, if it is private.",
            ),
            "RevisionNotFound": (
                f"{where} has no revision {shown(self.source.revision)}.",
                "Give a branch, a tag or a commit after the @.",
            ),
            "EntryNotFound": (f"{where} lists a file that the hub does not have.", "Try another revision."),
        }
        asks = (f"{self.endpoint} asks for a token to read {where}, or refuses the one it got.", f"{token}.")
        other = (f"{self.endpoint} answers {status} for {where}.", "Check the name, and HF_ENDPOINT.")
        message, hint = said.get(code) or (asks if status in (401, 403) else other)
        return Unfinished(message, hint=hint)

    def _given_up(self, why: str, arrived: int) -> Unfinished:
        kept = "What has arrived is kept, and the same command goes on from there." if arrived else ""
        return Unfinished(
            f"{self.source.where} could not be fetched from {self.endpoint}: {why}.",
            hint=f"Check the network, HF_ENDPOINT and the proxy settings, or try again later. {kept}".strip(),
        )

    def fetch(self, commit: str, part: Partial) -> None:
        """Fetch what a partial file lacks, from where it ends."""
        url = f"{self.endpoint}/{self._repository}/resolve/{commit}/{quote(part.promise.path)}"
        while part.missing:
            self.patiently(lambda: self._stretch(url, commit, part), lambda: part.size)

    def _stretch(self, url: str, commit: str, part: Partial) -> None:
        end = min(part.promise.size, part.size + _STRETCH)
        ranged = {"Range": f"bytes={part.size}-{end - 1}"} if part.size or end < part.promise.size else {}
        with self.get(url, **{"Accept-Encoding": "identity"}, **ranged) as response:
            self._same(response, commit, part)
            for block in response.iter_bytes():  # as they come, so that a cut loses none of them
                part.add(block)
        if part.size < end:
            raise _Cut(f"{shown(part.promise.path)} broke off after {part.size} of {part.promise.size} bytes")

    def _same(self, response: Any, commit: str, part: Partial) -> None:
        """Raise unless the response is the file that was asked for, from where it was asked for."""
        for one in (*response.history, response):
            if one.headers.get("x-repo-commit", commit) != commit:
                raise AcquireFailed(
                    f"The hub answers with another commit than the {commit} that it listed.", hint=KEPT_NOTHING
                )
        page = response.headers.get("content-type", "").startswith("text/html")
        if page and not part.promise.path.endswith((".html", ".htm")):
            raise Unfinished(
                f"A web page came in the place of {shown(part.promise.path)}.",
                hint="Something between here and the hub answers for it, such as a proxy's sign-in page.",
            )
        if response.status_code == 200:
            part.restart()  # it took no notice of the range
        elif not response.headers.get("content-range", "").startswith(f"bytes {part.size}-"):
            raise _Cut("it sends another range than the one asked for")


def _promises(listing: _Listing) -> dict[str, Promise]:
    """What is promised for each file. Raises AcquireFailed where a name is unsafe or nothing usable is promised."""
    if len(listing.siblings) > MAX_FILES:
        raise AcquireFailed(f"The repository holds more than {MAX_FILES:,} files.", hint="Choose another.")
    checked(one.rfilename for one in listing.siblings)
    return {one.rfilename: _promise(one) for one in listing.siblings}


def _promise(one: _Sibling) -> Promise:
    size, digest = (one.lfs.size, one.lfs.sha256) if one.lfs else (one.size, one.blob_id or "")
    form = _SHA256 if one.lfs else _COMMIT
    if size is None or not 0 <= size < 1 << 60 or not form.fullmatch(digest):
        raise AcquireFailed(
            f"The hub's listing does not say what {shown(one.rfilename)} is: it lacks a sound size or digest.",
            hint="Use a hub or mirror that answers '?blobs=true'.",
        )
    return Promise(one.rfilename, size, digest)


def _need_one(source: Source, sizes: dict[str, int]) -> None:
    """Raises AcquireFailed where there are several GGUF models, as those of one repository mostly are one model in
    several precisions."""
    models = ggufs(sizes)
    if len(models) < 2:
        return
    some = "".join(f"\n  {size(bytes_):>10}  {shown(path)}" for path, bytes_ in list(models.items())[:50])
    one = shlex.quote(f"{source}/{shown(next(iter(models)))}")
    raise AcquireFailed(
        f"{source.where} holds {len(models)} GGUF models:{some}\n",
        hint=f"Choose one: freehold models add {one}; --include '*' takes them all.",
    )


def _arrive(hub: _Hub, commit: str, chosen: Sequence[Promise], parts: Path, folder: Path, progress: Progress) -> None:
    """Fetch every chosen file, then lay each under its own name."""
    wanted = {one.digest: one for one in chosen}
    for left in parts.iterdir():
        if left.name not in wanted:
            left.unlink()  # of another commit or choice
    here = sum(min(left.stat().st_size, wanted[left.name].size) for left in parts.iterdir())
    disk.need_space(folder, sum(one.size for one in chosen) - here)
    total, done = sum(one.size for one in wanted.values()), 0
    for one in wanted.values():
        _arrive_one(hub, commit, one, parts, lambda count, before=done: progress("fetching", before + count, total))
        done += one.size
    _lay_out(chosen, parts, files_folder(folder))


def _arrive_one(hub: _Hub, commit: str, promise: Promise, parts: Path, tell) -> None:
    part = Partial(parts, promise, tell)
    try:
        hub.fetch(commit, part)
        if not part.right and part.found:  # what the earlier try left may have been hurt by a crash of the machine
            part.restart()
            hub.fetch(commit, part)
        if not part.right:
            raise swapped(promise, "its digest differs")
    finally:
        part.close()


def _lay_out(chosen: Sequence[Promise], parts: Path, files: Path) -> None:
    """Move what has arrived to its own names; what stands under several names is copied for all but the last."""
    last = {one.digest: one.path for one in chosen}
    for one in chosen:
        target = files / one.path
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if last[one.digest] == one.path:
            os.rename(parts / one.digest, target)
        else:
            shutil.copyfile(parts / one.digest, target)


def _from_cache(hub: _Hub, choice: Choice, folder: Path, progress: Progress, name: str) -> Acquired:
    """Copy the repository out of the local cache of huggingface_hub. Raises AcquireFailed if it is not all there."""
    source, library = hub.source, hub.library
    cache = Path(os.environ.get("HF_HUB_CACHE") or library.constants.HF_HUB_CACHE)
    only = [source.path] if source.path else None
    try:
        found = library.api.snapshot_download(
            source.where,
            revision=source.revision,
            cache_dir=cache,
            local_files_only=True,
            allow_patterns=only or list(choice.include) or None,
            ignore_patterns=list(choice.exclude) or None,
        )
        if not only:  # without the listing nobody knows whether it is all there
            library.api.get_cached_repo_tree(source.where, revision=source.revision, cache_dir=cache)
    except (OSError, ValueError, library.errors.CachedRepoTreeNotFoundError):
        raise AcquireFailed(
            f"HF_HUB_OFFLINE is set, and the cache {cache} does not hold all of {source}.",
            hint="Unset HF_HUB_OFFLINE; or add the folder or file that is here with file:PATH.",
        ) from None
    root = Path(os.path.realpath(found))
    acquired = local.take(root, "", choice, folder, progress)
    paths = [str(path.relative_to(acquired.folder)) for path in acquired.folder.rglob("*") if path.is_file()]
    return Acquired(
        folder=acquired.folder,
        name=name or _name(source, paths),
        source=_pinned(source, root.name),
        digests=acquired.digests,
    )


def _pinned(source: Source, commit: str) -> str:
    return f"hf:{source.where}@{commit}" + (f"/{source.path}" if source.path else "")


def _name(source: Source, paths: Sequence[str]) -> str:
    """The model's name: the file's, where one was chosen or there is but one GGUF, else the repository's."""
    models = list(ggufs(dict.fromkeys(paths, 0)))
    return model_name(source.path or (models[0] if len(models) == 1 else source.where))


def _card(card: Any) -> tuple[str, tuple[str, ...]]:
    """The licence and the base models in the model card's front matter, as the hub gives it."""
    if not isinstance(card, dict):
        return "", ()
    licence = " ".join(_texts(card.get("license"))[:10])
    if licence == "other":
        licence = (_texts(card.get("license_name")) or [licence])[0]
    return licence, tuple(_texts(card.get("base_model"))[:100])


def _texts(value: Any) -> list[str]:
    return [one[:200] for one in (value if isinstance(value, list) else [value]) if isinstance(one, str) and one]


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _is_true(value: str) -> bool:
    return value.upper() in ("1", "ON", "YES", "TRUE")
