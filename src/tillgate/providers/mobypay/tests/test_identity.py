"""Who is at the other end: ports, secrets, certificates, and connections that only claim to be somebody."""

import asyncio
import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tillgate.providers.mobypay.config import KioskConfig, TerminalConfig, TlsConfig, check_config
from tillgate.providers.mobypay.errors import BadRequest, JournalUnavailable, NoTerminal, WeakSecret
from tillgate.providers.mobypay.server import KioskServer
from tillgate.providers.mobypay.tests import oracle
from tillgate.providers.mobypay.tests.kit import OpenBench, RawTerminal

OTHER = "another-secret-of-thirty-two-characters!"
POS1 = TerminalConfig(pos_id="POS001", secret=oracle.SECRET)
POS2 = TerminalConfig(pos_id="POS002", secret=OTHER)


async def test_a_port_of_its_own_tells_who_connects_there(bench_at: OpenBench) -> None:
    own = (
        TerminalConfig(pos_id="POS001", secret=oracle.SECRET, port=0),
        TerminalConfig(pos_id="POS002", secret=OTHER, port=0),
    )
    async with bench_at(terminals=own) as bench:
        ports = {terminal.pos_id: terminal.port for terminal in bench.server.terminals}
        assert len({*ports.values(), bench.server.port}) == 3
        silent = await bench.terminal(None, OTHER, port=ports["POS002"])
        payment = await bench.pay()
        assert payment.terminal == "POS002"
        assert (await silent.request())["txn_id"] == payment.txn_id
        wrong = await bench.terminal("POS002", oracle.SECRET, port=ports["POS002"])  # another's secret
        await wrong.result(payment.txn_id, "success", amount=50.0)
        await bench.until(lambda: bench.server.refused_frames["bad_signature"] == 1)
        await silent.result(payment.txn_id, "success", amount=50.0)
        await bench.reaches(payment.txn_id, "succeeded")


async def test_of_two_strangers_on_one_port_neither_is_believed(bench_at: OpenBench) -> None:
    async with bench_at() as bench:
        first = await bench.terminal()
        stranger = await bench.terminal(None)
        with pytest.raises(NoTerminal, match="none has proven it"):
            await bench.pay()
        await first.say(oracle.fresh(type="ping", pos_id="POS001"))
        await bench.until(lambda: bench.server.terminals.get("POS001").heard_ms)
        payment = await bench.pay()
        assert (await first.request())["txn_id"] == payment.txn_id
        assert await stranger.hears_nothing()
        await first.result(payment.txn_id, "failed")
        await bench.reaches(payment.txn_id, "failed")
        first.pull_the_plug()
        await bench.until(lambda: bench.server.connection_count() == 1)
        payment = await bench.pay(sen=7)  # the one that is left may be the terminal again
        assert (await stranger.request())["txn_id"] == payment.txn_id


async def test_with_several_secrets_on_one_port_a_silent_connection_gets_nothing(bench_at: OpenBench) -> None:
    async with bench_at(terminals=(POS1, POS2)) as bench:
        with pytest.raises(NoTerminal, match="no terminal is connected"):
            await bench.pay()
        silent = await bench.terminal("POS002", OTHER)
        with pytest.raises(NoTerminal, match="has not said which one it is"):
            await bench.pay()
        await silent.say(oracle.fresh(type="ping"))
        await bench.until(lambda: bench.server.terminals.get("POS002").connected)
        payment = await bench.pay()
        assert (await silent.request())["txn_id"] == payment.txn_id


async def test_with_a_shared_secret_several_silent_terminals_must_be_named(bench_at: OpenBench) -> None:
    async with bench_at(terminals=(), shared_secret=oracle.SECRET) as bench:
        await bench.terminal(None)
        second = await bench.terminal("POS007")
        names = [terminal.pos_id for terminal in bench.server.terminals]
        assert names == ["unidentified-1", "unidentified-2"]
        with pytest.raises(NoTerminal, match="none has said who it is"):
            await bench.pay()
        payment = await bench.pay(terminal="unidentified-2")
        assert (await second.request())["txn_id"] == payment.txn_id
        await second.ack(payment.txn_id)
        named = await bench.reaches(payment.txn_id, "processing")
        assert named.terminal == "POS007"
        await second.result(payment.txn_id, "success")
        await bench.reaches(payment.txn_id, "succeeded")
        assert (await bench.pay(sen=7)).terminal == "POS007"  # known by now, so it can be meant


@pytest.mark.parametrize("name", [None, "POS001"])
async def test_a_terminal_cut_off_before_it_was_known_still_delivers_its_result(
    bench_at: OpenBench, name: str | None
) -> None:
    async with bench_at(terminals=(), shared_secret=oracle.SECRET) as bench:
        terminal = await bench.terminal(None)
        payment = await bench.pay()
        await terminal.request()
        terminal.pull_the_plug()
        await bench.reaches(payment.txn_id, "unknown")
        again = await bench.terminal(name)
        await again.result(payment.txn_id, "approved", authorization_code="A1")
        assert (await bench.reaches(payment.txn_id, "succeeded")).authorization_code == "A1"


@pytest.mark.parametrize("says", ["ping", "ack"])
async def test_a_terminal_that_says_its_name_during_a_payment_keeps_it_and_is_free_afterwards(
    bench_at: OpenBench, says: str
) -> None:
    async with bench_at(terminals=(), shared_secret=oracle.SECRET) as bench:
        terminal = await bench.terminal("POS001")
        payment = await bench.pay()
        await terminal.request()
        async with bench.kiosk.steps.lock(payment.txn_id):  # something else is being written down about it
            cancelling = asyncio.create_task(bench.kiosk.cancel(payment.txn_id))
            await asyncio.sleep(0.01)
            if says == "ack":
                await terminal.ack(payment.txn_id)
            else:
                await terminal.say(oracle.fresh(type="ping", pos_id="POS001"))
            await bench.until(lambda: bench.server.terminals.get("POS001"))
        await cancelling
        assert (await terminal.request("cancel_transaction"))["txn_id"] == payment.txn_id
        terminal.pull_the_plug()
        await bench.reaches(payment.txn_id, "unknown")
        await bench.until(lambda: bench.server.connection_count() == 0)
        again = await bench.terminal("POS001", named=True)
        second = await bench.pay(sen=700, terminal="POS001")
        assert (await again.request())["txn_id"] == second.txn_id


async def test_a_terminal_that_says_its_name_while_its_payment_cannot_be_written_down_is_free(
    bench_at: OpenBench,
) -> None:
    async with bench_at(terminals=(), shared_secret=oracle.SECRET) as bench:
        terminal, real = await bench.terminal("POS001"), bench.journal.write

        async def full(_: list) -> None:
            bench.journal.write = real
            await terminal.say(oracle.fresh(type="ping", pos_id="POS001"))
            await bench.until(lambda: bench.server.terminals.get("POS001"))
            raise JournalUnavailable("the disk is full")

        bench.journal.write = full
        with pytest.raises(JournalUnavailable):
            await bench.pay()
        payment = await bench.pay(terminal="POS001")
        assert (await terminal.request())["txn_id"] == payment.txn_id


async def test_a_named_terminal_delivers_its_late_result_after_the_old_link_died(bench_at: OpenBench) -> None:
    async with bench_at(terminals=(), shared_secret=oracle.SECRET) as bench:
        terminal = await bench.terminal("POS001", named=True)
        payment = await bench.pay()
        await terminal.ack(payment.txn_id)
        terminal.pull_the_plug()
        await bench.reaches(payment.txn_id, "unknown")
        other = await bench.terminal("POS002", named=True)
        await other.result(payment.txn_id, "success", amount=50.0)
        await bench.until(lambda: "not_the_owner" in bench.alerts())
        assert bench.kiosk.find(payment.txn_id).state == "unknown"
        again = await bench.terminal("POS001")
        await again.result(payment.txn_id, "success", amount=50.0, transaction_id="1")
        await bench.reaches(payment.txn_id, "succeeded")


async def test_a_terminal_with_its_own_secret_takes_over_from_its_half_dead_link(bench_at: OpenBench) -> None:
    async with bench_at() as bench:
        old = await bench.terminal()
        payment = await bench.pay()
        await old.ack(payment.txn_id)
        await bench.reaches(payment.txn_id, "processing")
        new = await bench.terminal()  # the old connection is still open as far as the kiosk can tell
        await new.result(payment.txn_id, "success", amount=50.0, transaction_id="1")
        await bench.reaches(payment.txn_id, "succeeded")
        assert await old.closed_by_kiosk()
        facts = [fact for _, fact, _ in bench.journal.history(payment.txn_id)]
        assert facts == ["requested", "ack", "link_cut", "success"]


async def test_the_shared_secret_cannot_speak_for_an_enrolled_terminal(bench_at: OpenBench) -> None:
    async with bench_at(terminals=(POS2,), shared_secret=oracle.SECRET) as bench:
        enrolled = await bench.terminal("POS002", OTHER, named=True)
        payment = await bench.pay(terminal="POS002")
        liar = await bench.terminal("POS002", oracle.SECRET)
        await liar.result(payment.txn_id, "success", amount=50.0)
        await bench.until(lambda: bench.alerts() == ["not_its_secret"])
        assert bench.kiosk.find(payment.txn_id).state == "pending"
        await enrolled.result(payment.txn_id, "failed")
        await bench.reaches(payment.txn_id, "failed")


async def test_a_connection_does_not_change_its_name(bench_at: OpenBench) -> None:
    async with bench_at(terminals=(), shared_secret=oracle.SECRET) as bench:
        terminal = await bench.terminal("POS001", named=True)
        await terminal.say(oracle.fresh(type="ping", pos_id="POS009"))
        await bench.until(lambda: bench.alerts() == ["other_pos_id"])
        assert bench.server.terminals.get("POS009") is None


async def test_how_a_terminal_signs_is_remembered_over_a_restart(bench_at: OpenBench) -> None:
    def in_form(payment_id: str, amount: str) -> bytes:
        payload = oracle.result(payment_id, "failed", amount=50)
        wire = oracle.norm({**payload, "amount": 50.0}).replace('"amount":50.0', f'"amount":{amount}')
        return oracle.line(payload, wire=wire, signed_text=oracle.norm(payload))

    async with bench_at() as bench:
        terminal = await bench.terminal()
        payment = await bench.pay()
        await terminal.send(in_form(payment.txn_id, "50.0"))  # reads 50.0 and signs 50, as JavaScript does
        await bench.reaches(payment.txn_id, "failed")
    async with bench_at() as bench:
        terminal = await bench.terminal()
        payment = await bench.pay()
        await terminal.result(payment.txn_id, "success", amount=50.0)  # signed 50.0: not this terminal
        await bench.until(lambda: bench.server.refused_frames["bad_signature"] == 1)
        await terminal.send(in_form(payment.txn_id, "50.0"))
        await bench.reaches(payment.txn_id, "failed")


async def test_enrolling_lets_strangers_be_tried_again(bench_at: OpenBench) -> None:
    async with bench_at(terminals=(POS1,)) as bench:
        waiting = await bench.terminal("POS002", OTHER)
        await bench.server.enrol(POS2)
        assert await waiting.closed_by_kiosk()
        again = await bench.terminal("POS002", OTHER, named=True)
        payment = await bench.pay(terminal="POS002")
        assert (await again.request())["txn_id"] == payment.txn_id
    async with bench_at(terminals=(POS1,)) as bench:
        assert bench.server.terminals.get("POS002") is not None
        rotated = TerminalConfig(pos_id="POS002", secret="rotated-" + OTHER)
        await bench.server.enrol(rotated, replace=True)
        terminal = await bench.terminal("POS002", rotated.secret, named=True)
        assert terminal.pos_id == "POS002"


async def test_a_kiosk_nobody_is_enrolled_at_lets_nobody_in(bench_at: OpenBench) -> None:
    async with bench_at(terminals=()) as bench:
        reader, writer = await asyncio.open_connection("127.0.0.1", bench.server.port)
        assert await RawTerminal(reader, writer, None, "").closed_by_kiosk()
        writer.close()


@pytest.mark.parametrize(
    ("members", "error"),
    [
        ({"terminals": (POS1, POS1)}, BadRequest),
        ({"terminals": (POS1, TerminalConfig(pos_id="POS009", secret=oracle.SECRET))}, WeakSecret),
        ({"terminals": (POS1,), "shared_secret": oracle.SECRET}, WeakSecret),
        ({"terminals": (TerminalConfig(pos_id="a b", secret=OTHER),)}, BadRequest),
        ({"terminals": (TerminalConfig(pos_id="A", secret=OTHER, port=8080),)}, BadRequest),
        ({"terminals": (TerminalConfig(pos_id="A", secret=OTHER, port=70000),)}, BadRequest),
        ({"kiosk_id": "Kiösk"}, BadRequest),
    ],
)
def test_configurations_that_cannot_be_safe_are_refused(tmp_path: Path, members: dict, error: type) -> None:
    with pytest.raises(error):
        check_config(KioskConfig(journal=tmp_path / "k.db", **members))


def test_secrets_do_not_open_without_their_key(tmp_path: Path) -> None:
    async def enrol() -> None:
        server = KioskServer(KioskConfig(journal=tmp_path / "k.db", host="127.0.0.1", port=0))
        await server.start()
        await server.enrol(POS2)
        await server.stop()

    asyncio.run(enrol())
    key = tmp_path / "k.db.key"
    assert key.stat().st_mode & 0o077 == 0
    key.write_text("00" * 32)
    with pytest.raises(JournalUnavailable, match="does not open"):
        KioskServer(KioskConfig(journal=tmp_path / "k.db", host="127.0.0.1", port=0))
    key.write_text("nonsense")
    with pytest.raises(JournalUnavailable, match="64 hex digits"):
        KioskServer(KioskConfig(journal=tmp_path / "k.db", host="127.0.0.1", port=0))


# --- TLS -------------------------------------------------------------------------------------------------


class Authority:
    """A certificate authority of the test."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.file = self._write("ca", self._certificate(self.name, self.key, is_authority=True), self.key)[0]

    def issue(self, common_name: str) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        return self._write(common_name, self._certificate(name, key), key)

    def _certificate(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, *, is_authority: bool = False):
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        builder = (
            x509.CertificateBuilder().subject_name(name).issuer_name(self.name).public_key(key.public_key())
        )
        builder = (
            builder.serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
        )
        builder = builder.add_extension(
            x509.BasicConstraints(ca=is_authority, path_length=None), critical=True
        )
        return builder.sign(self.key, hashes.SHA256())

    def _write(
        self, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
    ) -> tuple[Path, Path]:
        pem, private = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        private.write_bytes(key.private_bytes(*form))
        return pem, private


async def dial(port: int, authority: Authority, name: str | None, secret: str) -> RawTerminal:
    context = ssl.create_default_context(cafile=authority.file)
    context.check_hostname = False
    if name is not None:
        context.load_cert_chain(*authority.issue(name))
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    return RawTerminal(reader, writer, name, secret)


async def test_a_certificate_names_the_terminal(bench_at: OpenBench, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("kiosk")
    tls = TlsConfig(certificate=certificate, key=key, client_ca=authority.file)
    async with bench_at(terminals=(POS1, POS2), tls=tls) as bench:
        second = await dial(bench.server.port, authority, "POS002", OTHER)
        bench.terminals.append(second)
        await bench.until(lambda: bench.server.connection_count() == 1)
        payment = await bench.pay()  # it has said nothing yet, and need not
        assert payment.terminal == "POS002"
        assert (await second.request())["txn_id"] == payment.txn_id
        stranger = await dial(bench.server.port, authority, "POS009", OTHER)
        assert await stranger.closed_by_kiosk()
        stranger.pull_the_plug()
        thief = await dial(bench.server.port, authority, "POS001", OTHER)  # a certificate, but not its secret
        bench.terminals.append(thief)
        await thief.result(payment.txn_id, "success", amount=50.0)
        await bench.until(lambda: bench.server.refused_frames["bad_signature"] == 1)
        await second.result(payment.txn_id, "success", amount=50.0)
        await bench.reaches(payment.txn_id, "succeeded")


async def test_a_certified_terminal_takes_over_from_its_half_dead_link(
    bench_at: OpenBench, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("kiosk")
    tls = TlsConfig(certificate=certificate, key=key, client_ca=authority.file)
    async with bench_at(terminals=(POS1,), tls=tls) as bench:
        old = await dial(bench.server.port, authority, "POS001", oracle.SECRET)
        bench.terminals.append(old)
        await bench.until(lambda: bench.server.connection_count() == 1)
        payment = await bench.pay()
        await old.request()
        await old.ack(payment.txn_id)
        await bench.reaches(payment.txn_id, "processing")
        # The old link is dead without a word; the kiosk document has the terminal say an error on a new one.
        new = await dial(bench.server.port, authority, "POS001", oracle.SECRET)
        bench.terminals.append(new)
        await new.say(oracle.fresh(type="error", txn_id=payment.txn_id, message="lost", pos_id="POS001"))
        await bench.until(lambda: bench.kiosk.find(payment.txn_id).error_message == "lost")
        assert bench.kiosk.find(payment.txn_id).state == "unknown"
        assert await old.closed_by_kiosk()
        facts = [fact for _, fact, _ in bench.journal.history(payment.txn_id)]
        assert facts == ["requested", "ack", "link_cut", "error"]
        await new.result(payment.txn_id, "success", amount=50.0, transaction_id="1")
        await bench.reaches(payment.txn_id, "succeeded")
        again = await bench.pay(sen=7)
        assert (await new.request())["txn_id"] == again.txn_id


async def test_without_a_certificate_or_without_tls_there_is_no_entry(
    bench_at: OpenBench, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("kiosk")
    tls = TlsConfig(certificate=certificate, key=key, client_ca=authority.file)
    async with bench_at(terminals=(POS1, POS2), tls=tls) as bench:
        plain, writer = await asyncio.open_connection("127.0.0.1", bench.server.port)
        writer.write(oracle.line(oracle.ack("TXN1")))
        assert await RawTerminal(plain, writer, None, "").closed_by_kiosk()
        writer.close()
        try:
            bare = await dial(bench.server.port, authority, None, oracle.SECRET)
        except (ssl.SSLError, ConnectionError):
            pass
        else:
            bench.terminals.append(bare)
            with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
                async with asyncio.timeout(30):
                    assert await bare.reader.read(1)
        assert bench.server.connection_count() == 0


async def test_tls_without_client_certificates(bench_at: OpenBench, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("kiosk")
    async with bench_at(tls=TlsConfig(certificate=certificate, key=key)) as bench:
        terminal = await dial(bench.server.port, authority, None, oracle.SECRET)
        bench.terminals.append(terminal)
        await bench.until(lambda: bench.server.connection_count() == 1)
        payment = await bench.pay()
        await terminal.request()
        await terminal.result(payment.txn_id, "success")
        await bench.reaches(payment.txn_id, "succeeded")


async def test_a_shared_and_own_secrets_side_by_side(bench_at: OpenBench) -> None:
    async with bench_at(terminals=(POS2,), shared_secret=oracle.SECRET) as bench:
        silent = await bench.terminal("POS001")
        with pytest.raises(NoTerminal):  # it could hold either secret, so nothing could be signed for it
            await bench.pay()
        await silent.say(oracle.fresh(type="ping", pos_id="POS001"))
        await bench.until(lambda: bench.server.terminals.get("POS001"))
        payment = await bench.pay()
        assert (await silent.request())["txn_id"] == payment.txn_id
        await silent.result(payment.txn_id, "success")
        await bench.reaches(payment.txn_id, "succeeded")
        nameless = await bench.terminal(None)
        await nameless.say(oracle.fresh(type="ping"))
        await bench.until(lambda: bench.server.terminals.get("unidentified-1"))
        assert (await bench.pay(sen=7, terminal="unidentified-1")).state == "pending"
        await nameless.request()


async def test_last_words_of_a_superseded_connection_do_not_bring_it_back(bench_at: OpenBench) -> None:
    async with bench_at() as bench:
        old = await bench.terminal(named=True)
        payment = await bench.pay()
        await old.request()
        # Both at once: the new connection introduces itself while the old one's words are on their way.
        await old.send(b"".join(oracle.line(oracle.ack(payment.txn_id)) for _ in range(20)))
        new = await bench.terminal(named=True)
        assert await old.closed_by_kiosk()
        await bench.reaches(payment.txn_id, "unknown")
        again = await bench.pay(sen=7)
        assert (await new.request())["txn_id"] == again.txn_id
