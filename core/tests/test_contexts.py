from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from deepsquare import contexts
from deepsquare.chain.wallet import Wallet
from deepsquare.errors import ConfigError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("DEEPSQUARE_CONTEXT", "DEEPSQUARE_RPC_URL", "DEEPSQUARE_PRIVATE_KEY", "DEEPSQUARE_WALLET_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DEEPSQUARE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def make(name: str = "local") -> contexts.Context:
    context = contexts.Context(
        name=name,
        chain_id=1,
        rpc_url="http://127.0.0.1:1",
        metascheduler="0x" + "1" * 40,
        sbatch_url="http://127.0.0.1:2/graphql",
        sbatch_grpc="127.0.0.1:2",
        logger_grpc="127.0.0.1:3",
        account="0x" + "2" * 40,
        wallet=name,
    )
    contexts.save(context)
    return context


def test_what_was_saved_is_loaded() -> None:
    context = make()
    contexts.use("local")
    assert contexts.load() == context
    assert contexts.names() == ["local"]


def test_an_argument_counts_more_than_the_environment_and_that_more_than_the_choice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("a", "b", "c"):
        make(name)
    contexts.use("a")
    assert contexts.load().name == "a"
    monkeypatch.setenv("DEEPSQUARE_CONTEXT", "b")
    assert contexts.load().name == "b"
    assert contexts.load("c").name == "c"
    monkeypatch.setenv("DEEPSQUARE_RPC_URL", "http://elsewhere")
    assert contexts.load("c").rpc_url == "http://elsewhere"


def test_without_any_grid_the_error_says_how_to_get_one() -> None:
    with pytest.raises(ConfigError, match="deepsquare grid up"):
        contexts.load()


def test_an_unknown_context_is_answered_with_those_that_exist() -> None:
    make("local")
    with pytest.raises(ConfigError, match="There are: local"):
        contexts.load("lokal")


@pytest.mark.parametrize("name", ["", "../x", ".hidden", "a/b"])
def test_a_name_never_leaves_the_folder(name: str) -> None:
    with pytest.raises(ConfigError):
        contexts.load(name or "../")


def test_a_damaged_file_is_named(home: Path) -> None:
    make("local")
    (home / "contexts" / "local.json").write_text("{")
    with pytest.raises(ConfigError, match=r"local\.json is damaged"):
        contexts.load("local")


def test_files_are_private(home: Path) -> None:
    make("local")
    assert (home / "contexts" / "local.json").stat().st_mode & 0o777 == 0o600


def test_the_wallet_opens_with_the_password_file_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    wallet = Wallet.create(contexts.wallet_file("local"), "secret", scrypt_n=2)
    context = make("local").model_copy(update={"account": wallet.address})
    monkeypatch.setenv("DEEPSQUARE_WALLET_PASSWORD", "secret")
    assert contexts.open_wallet(context).address == wallet.address
    monkeypatch.setenv("DEEPSQUARE_WALLET_PASSWORD", "wrong")
    with pytest.raises(ConfigError, match="wrong password"):
        contexts.open_wallet(context)


def test_a_sealed_wallet_opens_when_something_is_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    wallet = Wallet.create(contexts.wallet_file("local"), "secret", scrypt_n=2)
    context = make("local").model_copy(update={"account": wallet.address.lower()})
    sealed = contexts.open_wallet(context, sealed=True)
    assert (sealed.address, repr(sealed)) == (wallet.address, repr(wallet))
    with pytest.raises(ConfigError, match="DEEPSQUARE_WALLET_PASSWORD"):
        sealed.sign_message(b"text")
    monkeypatch.setenv("DEEPSQUARE_WALLET_PASSWORD", "secret")
    # Whoever could not say it is not asked each time.
    with pytest.raises(ConfigError, match="DEEPSQUARE_WALLET_PASSWORD"):
        sealed.sign_message(b"text")
    again = contexts.open_wallet(context, sealed=True)
    again.unseal()
    monkeypatch.delenv("DEEPSQUARE_WALLET_PASSWORD")
    assert again.sign_message(b"text") == wallet.sign_message(b"text")


@pytest.mark.parametrize("sealed", [True, False])
def test_a_wallet_of_another_account_signs_nothing(monkeypatch: pytest.MonkeyPatch, sealed: bool) -> None:
    Wallet.create(contexts.wallet_file("local"), "secret", scrypt_n=2)
    monkeypatch.setenv("DEEPSQUARE_WALLET_PASSWORD", "secret")
    with pytest.raises(ConfigError, match=r"the wallet 'local' is 0x.*, but the context 'local' is for"):
        contexts.open_wallet(make("local"), sealed=sealed).sign_message(b"text")


def test_a_missing_password_is_explained() -> None:
    context = make("local")
    Wallet.create(contexts.wallet_file("local"), "secret", scrypt_n=2)
    with pytest.raises(ConfigError, match="DEEPSQUARE_WALLET_PASSWORD"):
        contexts.open_wallet(context)


def test_the_most_to_pay_for_gas(monkeypatch: pytest.MonkeyPatch) -> None:
    contexts.save(make().model_copy(update={"max_fee_gwei": Decimal("2.5")}))
    assert contexts.load("local").max_fee_wei == 2_500_000_000
    monkeypatch.setenv("DEEPSQUARE_MAX_FEE_GWEI", "30")
    assert contexts.load("local").max_fee_wei == 30 * 10**9
    monkeypatch.setenv("DEEPSQUARE_MAX_FEE_GWEI", "cheap")
    with pytest.raises(ConfigError, match="DEEPSQUARE_MAX_FEE_GWEI is 'cheap'"):
        contexts.load("local")
