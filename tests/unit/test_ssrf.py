"""The guard before URLs that merchants give us: hostile spellings, and addresses not to be called."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tillgate.domain.errors import Misconfigured, RequestError
from tillgate.ssrf import AllowList, ForbiddenUrl, Target, check_address, check_url, parse_url

NOBODY = AllowList()


def words(text: str) -> list[str]:
    return text.split()


FINE = words("""
https://shop.example.com
https://shop.example.com/
https://shop.example.com/hook?order=1&sig=a%2Fb
https://shop.example.com?token=abc
https://shop.example.com:8443/hook
https://shop.example.com:443/hook
https://SHOP.Example.COM/Hook
HTTPS://shop.example.com/hook
https://shop.example.com./hook
https://xn--e1afmkfd.xn--p1ai/hook
https://пример.рф/hook
https://a_b.example.com/
https://8.8.8.8/hook
https://[2606:4700:4700::1111]/hook
https://[2606:4700:4700::1111]:8443/hook
https://[64:ff9b::8.8.8.8]/
https://1.example.com/
https://localhost.example.com/
https://user.example.com/@name
""")

LOOPBACK = words("""
https://localhost/
https://LOCALHOST/
https://localhost./
https://api.localhost/
https://localhost.localdomain/
https://127.0.0.1/
https://127.0.0.1./
https://127.0.0.1:8080/
https://127.1.2.3/
https://127.1/
https://127.0.1/
https://2130706433/
https://017700000001/
https://0177.0.0.1/
https://0177.0.0.01/
https://0x7f.0.0.1/
https://0x7f000001/
https://0X7F000001/
https://0x7f.1/
https://127.0.0.0x1/
https://0x7f.0.0.1./
https://00000127.0.0.1/
https://127.000.000.001/
https://0/
https://0.0.0.0/
https://0x/
https://1.2.3.4.5/
https://256.256.256.256/
https://１２７.０.０.１/
https://127。0。0。1/
https://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/
https://%6c%6f%63%61%6c%68%6f%73%74/
https://%31%32%37.0.0.1/
https://[::1]/
https://[::]/
https://[0:0:0:0:0:0:0:1]/
https://[0000::0001]:8443/
https://[::127.0.0.1]/
https://[::ffff:127.0.0.1]/
https://[::ffff:7f00:1]/
https://[::ffff:0:127.0.0.1]/
https://[64:ff9b::127.0.0.1]/
https://[64:ff9b::7f00:1]/
https://[64:ff9b:1::7f00:1]/
https://[2002:7f00:1::]/
https://[2001:0:7f00:1::]/
https://[::1%25lo]/
https://[::1%lo]/
https://[fe80::1%25eth0]/
""")

INSIDE = words("""
https://10.0.0.5/
https://172.16.0.1/
https://192.168.1.1/
https://100.64.0.1/
https://100.100.100.200/latest/meta-data/
https://169.254.169.254/latest/meta-data/
https://168.63.129.16/machine
https://192.0.0.192/
https://198.18.0.1/
https://255.255.255.255/
https://[fd00:ec2::254]/latest/
https://[fe80::1]/
https://[::ffff:169.254.169.254]/
https://[64:ff9b::a9fe:a9fe]/
https://[2002:a9fe:a9fe::]/
https://metadata.google.internal/
https://metadata/
https://postgres:8443/
https://printer.local/
https://nas.lan/
https://router.home.arpa/
https://wiki.intranet/
""")

UNREADABLE = [
    "",
    " ",
    "shop.example.com/hook",
    "//shop.example.com/hook",
    "/hook",
    "https:",
    "https:/shop.example.com",
    "https:shop.example.com",
    "https://",
    "https:///hook",
    "https://?x",
    "https://.",
    "https://./",
    "https://..example.com/",
    "https://example..com/",
    "https://.example.com/",
    "https://example.com../",
    "https://-example.com/",
    "https://example-.com/",
    "https://" + "a" * 64 + ".com/",
    "https://" + "a." * 127 + "com/",
    "https://" + "ä" * 254 + "/",
    "https://shop.example.com/" + "a" * 2048,
    "ftp://shop.example.com/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_INFO",
    "javascript:alert(1)",
    "data:text/plain,x",
    "unix:///var/run/docker.sock",
    "httpſ://shop.example.com/",
    "http+unix://shop.example.com/",
    "https://user@shop.example.com/",
    "https://user:secret@shop.example.com/",
    "https://@shop.example.com/",
    "https://shop.example.com@127.0.0.1/",
    "https://shop.example.com:443@127.0.0.1/",
    "https://shop.example.com\\@127.0.0.1/",
    "https://shop.example.com\\.evil.com/",
    "https:\\\\shop.example.com/",
    "https://shop.example.com/a\\b",
    "https://shop.example.com#@127.0.0.1/",
    "https://shop.example.com/#fragment",
    "https://shop.example.com /",
    "https://shop.example.com/a b",
    " https://shop.example.com/",
    "https://shop.example.com/\n",
    "https://shop.example.com\n/",
    "https://shop.example.com/\r\nHost: inside",
    "https://shop.example.com\t/",
    "https://shop.exam\x00ple.com/",
    "https://shop.example.com/\x00",
    "https://shop.example.com/\x7f",
    "https://shop.example.com/оплата",
    "https://shop.example.com／@127.0.0.1/",
    "https://shop\u2028.example.com/",
    "https://shop\u3000.example.com/",
    "https://shop.example.com:/",
    "https://shop.example.com:0/",
    "https://shop.example.com:65536/",
    "https://shop.example.com:99999999999/",
    "https://shop.example.com:-1/",
    "https://shop.example.com:+443/",
    "https://shop.example.com:４４３/",
    "https://shop.example.com:443:443/",
    "https://shop.example.com:80a/",
    "https://[2606:4700::1111/",
    "https://2606:4700::1111/",
    "https://[2606:4700::1111]x/",
    "https://[shop.example.com]/",
    "https://[]/",
    "https://[v1.fe80::a]/",
    "https://[1:2:3:4:5:6:7:8:9]/",
    "https://shop!.example.com/",
    "https://shop,example.com/",
    "https://shop<.example.com/",
    "https://faß.example.com/",
    "https://\ud800.example.com/",
]

WRONG_PORT = [f"https://shop.example.com:{port}/" for port in (22, 25, 53, 111, 143, 587, 6000, 6667, 10080)]


@pytest.mark.parametrize("url", FINE)
def test_a_public_https_url_may_be_called(url: str) -> None:
    check_url(url, NOBODY)


@pytest.mark.parametrize("url", LOOPBACK + INSIDE + UNREADABLE + WRONG_PORT)
def test_a_hostile_url_is_refused(url: str) -> None:
    with pytest.raises(ForbiddenUrl) as refused:
        check_url(url, NOBODY)
    assert isinstance(refused.value, RequestError)
    assert (refused.value.status, refused.value.code) == (400, "invalid_request")
    assert refused.value.param == "callback_url"
    assert 10 < len(str(refused.value)) < 100


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://shop.example.com/", "the URL must start with https://"),
        ("ftp://shop.example.com/", "the URL must start with https://"),
        ("https://10.0.0.5/", "the host does not lead to a public address"),
        ("https://[::1]/", "the host does not lead to a public address"),
        ("https://postgres/", "the host must have a public name"),
        ("https://2130706433/", "an IPv4 address must be written as four decimal numbers"),
        ("https://[::1%25lo]/", "the host may hold no zone"),
        ("https://[shop]/", "the host is not an IPv6 address"),
        ("https://sh op.example.com/", "the host is not a name"),
        ("https://faß.de/", "the host must be given in its ASCII form (xn--…)"),
        ("https://me@shop.example.com/", "the URL may hold no user name or password"),
        ("https://shop.example.com:0/", "the port must be 1 to 65535"),
        ("https://shop.example.com:x/", "the URL's host and port cannot be read"),
        ("https://shop.example.com:25/", "port 25 belongs to another protocol"),
        (
            "https://shop.example.com/a#b",
            "the URL may hold no spaces, control characters, fragment or unescaped characters",
        ),
        ("https://shop.example.com/" + "a" * 2048, "the URL is longer than 2048 characters"),
        ("https://" + "a" * 254 + "/", "the host must have 1 to 253 characters"),
    ],
)
def test_a_refusal_says_what_to_change(url: str, says: str) -> None:
    with pytest.raises(ForbiddenUrl) as refused:
        check_url(url, NOBODY)
    assert str(refused.value) == says


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://shop.example.com", Target("https", "shop.example.com", 443, "/")),
        ("HTTP://Shop.Example.com.:8080?a=%2f", Target("http", "shop.example.com", 8080, "/?a=%2f")),
        ("https://пример.рф/x", Target("https", "xn--e1afmkfd.xn--p1ai", 443, "/x")),
        ("https://[2606:4700:0:0::0:1]/", Target("https", "2606:4700::1", 443, "/")),
        ("http://10.0.0.5/pay", Target("http", "10.0.0.5", 80, "/pay")),
        ("http://bank-gateway/pay", Target("http", "bank-gateway", 80, "/pay")),
    ],
)
def test_a_url_is_brought_to_one_spelling(url: str, target: Target) -> None:
    assert parse_url(url) == target
    assert parse_url(target.url) == target


# --- addresses ----------------------------------------------------------------------------------------------

# First and last address of every network not to be called, written down from the registries of special
# purpose addresses (RFC 6890 and its updates), with a public neighbour outside where there is one.
DENIED = words("""
0.0.0.0 0.255.255.255
10.0.0.0 10.255.255.255
100.64.0.0 100.127.255.255
127.0.0.0 127.255.255.255
168.63.129.16 168.63.129.16
169.254.0.0 169.254.255.255
172.16.0.0 172.31.255.255
192.0.0.0 192.0.0.255
192.0.2.0 192.0.2.255
192.88.99.0 192.88.99.255
192.168.0.0 192.168.255.255
198.18.0.0 198.19.255.255
198.51.100.0 198.51.100.255
203.0.113.0 203.0.113.255
224.0.0.0 239.255.255.255
240.0.0.0 255.255.255.255
:: ::1
::2 ::ffff:ffff
::ffff:0.0.0.0 ::ffff:255.255.255.255
::ffff:8.8.8.8 ::ffff:0808:0808
64:ff9b::0.0.0.0 64:ff9b::10.1.2.3
64:ff9b::127.0.0.1 64:ff9b::169.254.169.254
64:ff9b:1:: 64:ff9b:1:ffff:ffff:ffff:ffff:ffff
100:: 100::ffff:ffff:ffff:ffff
1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 1000::
2001:: 2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff
2001:db8:: 2001:db8:ffff:ffff:ffff:ffff:ffff:ffff
2002:: 2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff
2002:7f00:1:: 2002:808:808::
3fff:: 3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff
4000:: 5f00::
fc00:: fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff
fe80:: febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff
fec0:: feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff
ff00:: ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff
fe80::1%eth0 2606:4700::1111%eth0 64:ff9b::8.8.8.8%eth0
""")

PUBLIC = words("""
1.0.0.0 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 168.63.129.15
168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 191.255.255.255 192.0.1.0 192.0.3.0
192.88.98.255 192.88.100.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 198.51.99.255 198.51.101.0
203.0.112.255 203.0.114.0 223.255.255.255
2000:: 2001:200:: 2001:db7:: 2001:db9:: 2003:: 2606:4700::1111 3ffe:: 3fff:1000:: 64:ff9b::8.8.8.8
""")


@pytest.mark.parametrize("address", DENIED)
def test_an_address_that_is_not_public_is_refused_without_being_named(address: str) -> None:
    with pytest.raises(ForbiddenUrl) as refused:
        check_address(address)
    assert str(refused.value) == "the host does not lead to a public address"


@pytest.mark.parametrize("address", PUBLIC)
def test_the_addresses_next_to_them_are_public(address: str) -> None:
    check_address(address)


@pytest.mark.parametrize(
    "text", ["", "localhost", "127.1", "0x7f.1", "2130706433", "[::1]", "8.8.8.8 ", "1.1.1"]
)
def test_what_is_not_a_numeric_address_is_refused(text: str) -> None:
    with pytest.raises(ForbiddenUrl, match="the host does not lead to an address"):
        check_address(text)


# --- the allow list -----------------------------------------------------------------------------------------


def test_an_allowed_pair_passes_the_guard_and_nothing_else_does() -> None:
    allow = AllowList.parse("127.0.0.1:9000, LocalHost.:8080 ,[0::1]:25,,receiver.test:1")

    for url in (
        "http://127.0.0.1:9000/hook",
        "https://127.0.0.1:9000/hook",
        "http://localhost:8080/hook",
        "http://LOCALHOST:8080/",
        "http://[::1]:25/",
        "http://receiver.test:1/",
    ):
        check_url(url, allow)
    for url in (
        "http://127.0.0.1:9001/hook",
        "http://127.0.0.1/hook",
        "http://127.0.0.2:9000/hook",
        "http://localhost:9000/",
        "http://api.localhost:8080/",
        "http://[::1]:9000/",
        "http://[::ffff:127.0.0.1]:9000/",
        "http://2130706433:9000/",
        "http://me@127.0.0.1:9000/",
        "http://127.0.0.1:9000/#x",
        "http://shop.example.com/",
    ):
        with pytest.raises(ForbiddenUrl):
            check_url(url, allow)


@pytest.mark.parametrize("text", ["", "  ", ",", " , ,"])
def test_an_empty_allow_list_allows_nothing(text: str) -> None:
    assert AllowList.parse(text) == NOBODY
    assert ("", 0) not in AllowList.parse(text)


@pytest.mark.parametrize(
    "entry",
    [
        "localhost",
        "localhost:",
        "localhost:0",
        "localhost:65536",
        "localhost:http",
        "localhost:80:80",
        ":8080",
        "8080",
        "*:8080",
        "*",
        "127.0.0.1/8:80",
        "127.1:80",
        "::1:8080",
        "[::1]",
        "[localhost]:80",
        "http://localhost:8080",
        "local host:8080",
        "localhost:8080;127.0.0.1:80",
    ],
)
def test_a_malformed_allow_list_is_named_in_the_error(entry: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        AllowList.parse(f"127.0.0.1:9000,{entry}")
    assert str(refused.value) == (
        f"TILLGATE_CALLBACK_ALLOW: {entry!r} is not host:port, such as 127.0.0.1:9000"
    )


# --- anything at all ----------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        *words(
            r"http https :// / // \ @ : ? # [ ] % %25 . .. - _ 0x 0177 127 1 :: ffff 443 65536 xn-- xn--a"
        ),
        *words("localhost shop.example.com ⓛ 。 ß İ １"),
        *[" ", "\n", "\x00", "\u200d", "\ud800"],
    ]
)
LIKE_URLS = st.lists(PIECES, max_size=14).map("".join)


@given(st.text() | LIKE_URLS | LIKE_URLS.map("https://{}".format) | st.text().map("https://{}/".format))
@example("https://xn--/")
@example("https://xn--a/")
@example("https://" + "\u0130" * 60 + ".com/")
def test_a_url_is_fine_or_forbidden_and_never_anything_else(url: str) -> None:
    try:
        check_url(url, NOBODY)
    except ForbiddenUrl:
        return
    target = parse_url(url)
    assert target.url.isascii()
    assert target.url.isprintable()
    assert " " not in target.url
    check_url(target.url, NOBODY)
    assert parse_url(target.url) == target


@given(st.text() | st.ip_addresses().map(str))
def test_an_address_is_public_or_forbidden_and_never_anything_else(text: str) -> None:
    try:
        check_address(text)
    except ForbiddenUrl:
        return
    assert "." in text or ":" in text


@given(st.text() | LIKE_URLS)
def test_an_allow_list_is_read_or_refused_and_never_anything_else(text: str) -> None:
    try:
        allow = AllowList.parse(text)
    except Misconfigured:
        return
    assert all(0 < port < 65_536 and host for host, port in allow.pairs)
