"""Credentials in URLs: nothing of them is left in any text, and nothing else of it changes."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelstore import errors
from labelstore.credentials import credentials_in_id, safe_id, without_credentials
from labelstore.records import AnnotatorRecord, Extent, ImportRecord, MemberRecord
from labelstore.schema import StoreInfo

SIGNED = (
    *("X-Amz-Signature", "X-Amz-Credential", "X-Amz-Security-Token", "x-amz-date", "X-Goog-Signature", "X-Goog-Credential"),
    *("Signature", "AWSAccessKeyId", "Expires", "sig", "se", "sp", "sv", "token", "access_token", "SAS_TOKEN", "api_key"),
    *("GoogleAccessId", "Key-Pair-Id", "Policy", "password", "X%2DAmz%2DSignature", "auth", "client_secret"),
)
SECRET = "hunter2"
WORDS = st.text("abcxyz019._-~%", min_size=1, max_size=8)
SECRETS = st.builds(
    lambda before, after: before + SECRET + after, st.text("abc019+=.:%!$*", max_size=4), st.text("abc019+=%!$*", max_size=4)
)
PATHS = st.lists(st.text("abcxyz019._-@: ", min_size=1, max_size=8), max_size=3).map("/".join)
PLAIN = st.tuples(st.sampled_from(["v", "versionId", "width", "page", "signed", "tokens"]), WORDS).map("=".join)
SIGNATURES = st.tuples(st.sampled_from(SIGNED), SECRETS.map(lambda value: quote(value, safe="+=.:%!$*"))).map("=".join)
SCHEMES = st.sampled_from(["http", "https", "s3", "gs", "ftp", "simplecache::s3", "HTTPS"])


@st.composite
def urls(draw: st.DrawFn) -> tuple[str, str]:
    """A URL with credentials in it, or none, and the same without."""
    scheme, host, path = draw(SCHEMES), draw(st.sampled_from(["host", "h.example.org:8080", "bucket"])), draw(PATHS)
    user = draw(st.one_of(st.just(""), SECRETS.map(lambda it: f"{it}@"), SECRETS.map(lambda it: f"user:{it}@")))
    parameters = draw(st.lists(st.one_of(PLAIN, SIGNATURES), max_size=4))
    plain = [each for each in parameters if SECRET not in each]
    base = f"{host}/{path}"
    return (
        f"{scheme}://{user}{base}{'?' if parameters else ''}{'&'.join(parameters)}",
        f"{scheme}://{base}{'?' if plain else ''}{'&'.join(plain)}",
    )


@given(urls())
def test_a_url_loses_its_credentials_and_nothing_else(pair: tuple[str, str]) -> None:
    given_, expected = pair
    found = without_credentials(given_)
    assert SECRET not in found
    assert found == expected
    assert without_credentials(found) == found


@given(
    urls(),
    urls(),
    st.sampled_from(["{}, {}", "'{}': two images have the id 'x': {}", "cannot read {}: see {}.", '["{}", "{}"]']),
)
def test_so_do_urls_in_lists_and_sentences(one: tuple[str, str], other: tuple[str, str], form: str) -> None:
    found = without_credentials(form.format(one[0], other[0]))
    assert SECRET not in found
    assert found == form.format(one[1], other[1])


@given(st.text().filter(lambda text: "://" not in text))
def test_what_is_no_url_stays(text: str) -> None:
    assert without_credentials(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://KEY:se/cret/with@bucket/x@2.jpg", "s3://bucket/x@2.jpg"),  # secrets of Amazon's have slashes
        ("zip://a.jpg::https://u:p@host/x.zip", "zip://a.jpg::https://host/x.zip"),
        ("https://h/x?url=https%3A%2F%2Fu%3Apw%40host%2Fy", "https://h/x"),
        ("https://h/x?a=1?sig=2#access_token=3", "https://h/x?a=1"),
        ("https://h/x?sig=", "https://h/x?sig="),
        ("abfs://container@account.dfs.core.windows.net/x", "abfs://container@account.dfs.core.windows.net/x"),
        ("github://org:repo@main/x.jpg", "github://org:repo@main/x.jpg"),
        ("file:///home/me@work/x.jpg", "file:///home/me@work/x.jpg"),
        ("https://h:443/a@b.jpg", "https://h:443/a@b.jpg"),
        ("https://h: not found; ask a@b.c", "https://h: not found; ask a@b.c"),
        ("https://h/x#part", "https://h/x#part"),
    ],
)
def test_single_cases(text: str, expected: str) -> None:
    assert without_credentials(text) == expected


@pytest.mark.parametrize(
    ("image_id", "expected"),
    [
        ("https://u:p@h/x.jpg", "https://h/x.jpg"),
        ("h/x.jpg?X-Amz-Signature=abc&v=1", "h/x.jpg?v=1"),
        ("a@2x.jpg", None),
        ("a?width=3.jpg", None),
        ("what is this?.jpg", None),
        ("https://h/x.jpg", None),
    ],
)
def test_ids(image_id: str, expected: str | None) -> None:
    assert credentials_in_id(image_id) is (expected is not None)
    assert safe_id(image_id) == (expected or image_id)


URL, CLEAN = "https://u:hunter2@h/x?sig=hunter2", "https://h/x"


def test_records_never_hold_them() -> None:
    member = MemberRecord(URL, 224, URL, URL)
    annotator = AnnotatorRecord(URL, "", 224, (), (), "", URL, URL, (member,))
    extents = (Extent(0, 4, f"{URL}, {URL}"),)
    info = StoreInfo(4, 2, 1, (1, 1), 4, 8, annotator, images_root=URL, extents=extents, imported=ImportRecord("arrays", URL))
    written = info.to_attributes()
    assert "hunter2" not in repr(written) + repr(info)
    assert written["images_root"] == written["imported"]["location"] == written["annotator"]["requested"] == CLEAN
    assert info.extents[0].images_root == f"{CLEAN}, {CLEAN}"


ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.LabelStoreError)]


@pytest.mark.parametrize("kind", ALL)
def test_errors_do_not_show_them(kind: type[errors.LabelStoreError]) -> None:
    error = kind(f"{URL}: cannot be read")
    assert str(error) == f"{CLEAN}: cannot be read"
