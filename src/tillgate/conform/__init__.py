"""Runs the official scenarios of a provider against any endpoint, ours or yours, and reports rule by rule.

A provider says what to check (`Check`) and how a target is described (`Suite`); this module sends, records,
scrubs and reports. It knows no dialect and shares no code with any connector: an oracle must be something
other than the thing it judges.
"""

from __future__ import annotations

import asyncio
import io
import json
import textwrap
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias
from xml.sax.saxutils import escape, quoteattr

import aiohttp

MAX_ANSWER_BYTES: Final = 1 << 20
MAX_SHOWN_CHARS: Final = 4000
MAX_ROW_CHARS: Final = 1000  # of one line of text for people
LARGE_BYTES: Final = 1 << 16
SECRET_HEADERS: Final = frozenset({"authorization", "x-auth", "auth", "cookie", "set-cookie"})

Verdict: TypeAlias = Literal["pass", "fail", "skip", "error"]
"""fail: the endpoint broke the rule · skip: the target lacks what the check needs · error: no answer came."""


class Failed(AssertionError):
    """The endpoint broke the rule; the message says what was expected and what came."""


class Skipped(Exception):
    """The check cannot be made against this target; the message says what it would need."""


class OutOfOrders(Skipped):
    """The tester named too few orders: the check could be made, and nobody knows how it would end."""


class NoAnswer(Exception):
    """The endpoint could not be reached, or answered nothing in time."""


@dataclass(frozen=True, slots=True)
class Payable:
    """An order known to the endpoint under test that nobody has tried to pay."""

    reference: str  # as the provider will name it
    amount_minor: int
    account: Mapping[str, str] = field(default_factory=dict)  # where the dialect has several fields


Orders: TypeAlias = Callable[[], Awaitable[Payable]]
"""Gives another fresh order each time; raises `OutOfOrders` when there is none left."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is judged. `settings` is the provider's own description of it (keys, accounts, kind of order)."""

    url: str
    settings: Any = None
    secrets: frozenset[str] = frozenset()  # every text that must not reach a report, in every encoding
    slow_s: float = 0.0  # what one check is granted at least, where a person has a part in it


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    elapsed_ms: float


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answer as text, secrets replaced by `***`."""

    request: str
    answer: str
    elapsed_ms: float


@dataclass(frozen=True, slots=True)
class Check:
    """One rule. `run` raises `Failed` or `Skipped`; to return is to pass."""

    id: str  # stable: "create.repeat-equal"
    title: str  # the rule in words
    source: str  # where the rule is written
    run: Callable[[Wire], Awaitable[None]]
    group: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    check: Check
    verdict: Verdict
    why: str = ""
    exchanges: tuple[Exchange, ...] = ()
    elapsed_ms: float = 0.0
    unjudged: bool = False  # skipped for want of orders


@dataclass(frozen=True, slots=True)
class Option:
    """A setting that a suite understands, for a command line: `-o <name>=…`."""

    name: str
    help: str
    required: bool = False
    secret: bool = False
    many: bool = False
    default: str | None = None


@dataclass(frozen=True, slots=True)
class Suite:
    """A provider's `CONFORMANCE = Suite(…)`; a command line is built from it without knowing the provider."""

    name: str
    title: str
    options: tuple[Option, ...]
    checks: tuple[Check, ...]
    target: Callable[[str, Mapping[str, Any]], Target]  # url, options → target; raises `ValueError`


@dataclass(frozen=True, slots=True)
class Report:
    title: str
    url: str
    outcomes: tuple[Outcome, ...]

    @property
    def passed(self) -> bool:
        """Nothing failed, something was judged, and nothing was left unjudged that could be judged."""
        verdicts = [outcome.verdict for outcome in self.outcomes]
        sound = "fail" not in verdicts and "error" not in verdicts and not self.unjudged
        return "pass" in verdicts and sound

    @property
    def unjudged(self) -> int:
        return sum(outcome.unjudged for outcome in self.outcomes)

    def count(self, verdict: Verdict) -> int:
        return sum(outcome.verdict == verdict for outcome in self.outcomes)


class Wire:
    """What a check talks through: it sends, records every exchange and keeps secrets out of the record."""

    def __init__(self, target: Target, session: aiohttp.ClientSession) -> None:
        self.target = target
        self.exchanges: list[Exchange] = []
        self._session = session

    async def send(
        self,
        body: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        method: str = "POST",
        url: str | None = None,
        timeout_s: float = 15.0,
    ) -> Answer:
        """Raises `NoAnswer`. Redirects are not followed: providers do not follow them either."""
        headers = dict(headers or {})
        url = url or self.target.url
        begun = time.perf_counter()
        try:
            async with self._session.request(
                method,
                url,
                data=io.BytesIO(body) if len(body) > LARGE_BYTES else body,  # large ones are sent in parts
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as reply:
                content = await reply.content.read(MAX_ANSWER_BYTES + 1)
                while len(content) <= MAX_ANSWER_BYTES and not reply.content.at_eof():
                    content += await reply.content.read(MAX_ANSWER_BYTES + 1 - len(content))
                got = {name.lower(): value for name, value in reply.headers.items()}
                answer = Answer(reply.status, got, content, (time.perf_counter() - begun) * 1000)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            why = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
            self._record(method, url, headers, body, f"({why})", begun)
            raise NoAnswer(f"{why} from {self._scrub(url)}") from None
        shown = f"HTTP {answer.status} {got.get('content-type', '')}\n{_text(answer.body)}"
        self._record(method, url, headers, body, shown, begun)
        return answer

    def _record(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, answer: str, begun: float
    ) -> None:
        lines = [f"{method} {url}"]
        lines += [f"{k}: {'***' if k.lower() in SECRET_HEADERS else v}" for k, v in headers.items()]
        request = "\n".join([*lines, "", _text(body)])
        elapsed_ms = (time.perf_counter() - begun) * 1000
        self.exchanges.append(Exchange(self._scrub(request), self._scrub(answer), elapsed_ms))

    def _scrub(self, text: str) -> str:
        for secret in sorted(self.target.secrets, key=len, reverse=True):
            if secret:
                text = text.replace(secret, "***")
        return text


def expect(condition: object, why: str) -> None:
    """Raises `Failed(why)`."""
    if not condition:
        raise Failed(why)


def listed(orders: Iterable[Payable]) -> Orders:
    """Fresh orders from a list that the tester prepared."""
    rest = iter(tuple(orders))

    async def fresh() -> Payable:
        order = next(rest, None)
        if order is None:
            raise OutOfOrders("no fresh order is left: name more of them")
        return order

    return fresh


async def run(
    checks: Sequence[Check],
    target: Target,
    *,
    title: str = "",
    progress: Callable[[Outcome], None] | None = None,
    timeout_s: float = 60.0,
    give_up_after: int = 3,
) -> Report:
    """Run the checks one after another; `progress` hears each outcome at once.

    After `give_up_after` checks in a row that reached nobody, the rest is not tried.
    """
    outcomes: list[Outcome] = []
    unanswered = 0
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, trust_env=False, auto_decompress=True) as session:
        for check in checks:
            if unanswered >= give_up_after:
                outcome = Outcome(check, "error", "not tried: the endpoint does not answer")
            else:
                outcome = await _judge(check, Wire(target, session), max(timeout_s, target.slow_s))
            unanswered = unanswered + 1 if outcome.verdict == "error" else 0
            outcomes.append(outcome)
            if progress is not None:
                progress(outcome)
    return Report(title, target.url, tuple(outcomes))


async def _judge(check: Check, wire: Wire, timeout_s: float) -> Outcome:
    verdict: Verdict = "pass"
    why, unjudged = "", False
    begun = time.perf_counter()
    try:
        async with asyncio.timeout(timeout_s):
            await check.run(wire)
    except Failed as failed:
        verdict, why = "fail", str(failed)
    except Skipped as skipped:
        verdict, why, unjudged = "skip", str(skipped), isinstance(skipped, OutOfOrders)
    except NoAnswer as silent:
        verdict, why = "error", str(silent)
    except TimeoutError:
        verdict, why = "error", f"not finished in {timeout_s:g} s"
    elapsed_ms = (time.perf_counter() - begun) * 1000
    return Outcome(check, verdict, wire._scrub(why), tuple(wire.exchanges), elapsed_ms, unjudged)


# --- reports ------------------------------------------------------------------------------------------------

MARKS: Final[Mapping[Verdict, str]] = {"pass": "ok", "fail": "FAIL", "skip": "skip", "error": "ERROR"}
WIDTH: Final = 110


class Listing:
    """A line for each check as it ends, with why under it; a heading before each group."""

    def __init__(self, checks: Iterable[Check]) -> None:
        self._width = max((len(check.id) for check in checks), default=0)
        self._group: str | None = None

    def add(self, outcome: Outcome) -> str:
        check, head = outcome.check, ""
        if check.group != self._group:
            head = f"{'' if self._group is None else chr(10)}{check.group or 'checks'}\n"
            self._group = check.group
        mark = "-" if outcome.unjudged else MARKS[outcome.verdict]
        told = f"{head}  {mark:<5} {check.id:<{self._width}}  {check.title}"
        if not outcome.why or outcome.unjudged:
            return told
        return f"{told}\n  {'':<5} {'':<{self._width}}    {outcome.why}"


def summary(report: Report) -> str:
    """How many of each; then, where it did not pass, what is to be done."""
    counts = {word: report.count(verdict) for verdict, word in _WORDS.items()}
    counts["skipped"] -= report.unjudged
    counts["not judged"] = report.unjudged
    told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    lines = [f"{report.title or 'Conformance'} at {report.url}: {told or 'nothing judged'}"]
    failed = [outcome.check.id for outcome in report.outcomes if outcome.verdict == "fail"]
    if failed:
        lines.append(textwrap.fill(f"Failed: {', '.join(failed)}", WIDTH, break_on_hyphens=False))
    if report.unjudged:
        lines.append(f"Not judged (-): {report.unjudged} checks need more fresh orders than were named.")
    return "\n".join(lines)


def findings(report: Report) -> str:
    """For each check that did not pass: the rule, its source and the exchanges. Then the summary."""
    lines: list[str] = []
    for outcome in report.outcomes:
        if outcome.verdict == "fail" or (outcome.verdict == "error" and outcome.exchanges):
            check = outcome.check
            lines += [f"{MARKS[outcome.verdict]} {check.id}: {check.title}", f"  rule: {check.source}"]
            lines.append(f"  found: {outcome.why}")
            for exchange in outcome.exchanges[-3:]:
                lines += ["", _indented(exchange.request), "  ->", _indented(exchange.answer)]
            lines.append("")
    return "\n".join([*lines, summary(report), ""])


def as_text(report: Report) -> str:
    """Every check by group, and what was found."""
    listing = Listing(outcome.check for outcome in report.outcomes)
    lines = [listing.add(outcome) for outcome in report.outcomes]
    return "\n".join([*lines, "", findings(report)])


def as_json(report: Report) -> str:
    return json.dumps(
        {
            "title": report.title,
            "url": report.url,
            "passed": report.passed,
            "counts": {verdict: report.count(verdict) for verdict in _WORDS},
            "unjudged": report.unjudged,
            "checks": [
                {
                    "id": outcome.check.id,
                    "group": outcome.check.group,
                    "title": outcome.check.title,
                    "source": outcome.check.source,
                    "verdict": outcome.verdict,
                    "why": outcome.why,
                    "unjudged": outcome.unjudged,
                    "elapsed_ms": round(outcome.elapsed_ms, 1),
                    "exchanges": [
                        {"request": e.request, "answer": e.answer, "elapsed_ms": round(e.elapsed_ms, 1)}
                        for e in outcome.exchanges
                    ],
                }
                for outcome in report.outcomes
            ],
        },
        ensure_ascii=False,
        indent=2,
    )


def as_junit(report: Report) -> str:
    """JUnit XML, as CI systems read it."""
    failed, broken, skipped = (report.count(verdict) for verdict in ("fail", "error", "skip"))
    head = (
        f'<testsuite name={_attribute(report.title or "conformance")} tests="{len(report.outcomes)}"'
        f' failures="{failed}" errors="{broken + report.unjudged}" skipped="{skipped - report.unjudged}">'
    )
    cases = []
    for outcome in report.outcomes:
        check = outcome.check
        name = f"classname={_attribute(check.group)} name={_attribute(f'{check.id}: {check.title}')}"
        inner = ""
        if outcome.verdict in ("fail", "error") or outcome.unjudged:
            tag = "failure" if outcome.verdict == "fail" else "error"
            told = "\n\n".join(f"{e.request}\n->\n{e.answer}" for e in outcome.exchanges[-3:])
            text = escape(_plain(f"{check.source}\n{told}"))
            inner = f"<{tag} message={_attribute(outcome.why)}>{text}</{tag}>"
        elif outcome.verdict == "skip":
            inner = f"<skipped message={_attribute(outcome.why)}/>"
        cases.append(f'  <testcase {name} time="{outcome.elapsed_ms / 1000:.3f}">{inner}</testcase>')
    return "\n".join(['<?xml version="1.0" encoding="UTF-8"?>', head, *cases, "</testsuite>", ""])


_WORDS: Final[Mapping[Verdict, str]] = {
    "pass": "passed",
    "fail": "failed",
    "skip": "skipped",
    "error": "without an answer",
}


def _attribute(text: str) -> str:
    return quoteattr(_plain(text))


def _plain(text: str) -> str:
    """Without what XML cannot hold."""
    return "".join(c if c in "\t\n" or (c >= " " and not "\ud800" <= c <= "\udfff") else "?" for c in text)


def _indented(text: str) -> str:
    rows = text.splitlines()[:40]
    cut = (f"{row[:MAX_ROW_CHARS]}{'…' * (len(row) > MAX_ROW_CHARS)}" for row in rows)
    return "\n".join(f"    {row}".rstrip() for row in cut)


def _text(body: bytes) -> str:
    shown = body[:MAX_SHOWN_CHARS].decode("utf-8", "backslashreplace")
    return shown + (f"… ({len(body)} bytes)" if len(body) > MAX_SHOWN_CHARS else "")
