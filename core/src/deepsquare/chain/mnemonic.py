"""BIP-39 mnemonics: what is wrong with one, said without its words, and the key at a derivation path."""

from __future__ import annotations

import re
import unicodedata

from deepsquare.errors import ConfigError

DEFAULT_PATH = "m/44'/60'/0'/0/0"
"""The first account of a mnemonic, as Ethereum's wallets have it."""

_PATH = re.compile(r"m(?:/(\d{1,10})['hH]?)*")
_HIGHEST_INDEX = 2**31 - 1


def derive_key(phrase: str, path: str = DEFAULT_PATH, *, source: str = "the mnemonic") -> bytes:
    """The 32-byte private key that a mnemonic has at a derivation path (BIP-32).

    Args:
        phrase: 12, 15, 18, 21 or 24 words of one of BIP-39's lists; case and spaces don't matter.
        path: for example m/44'/60'/0'/0/1; h stands for ' as well.
        source: what error texts call the phrase.

    Raises:
        ConfigError: the phrase or the path is not valid; no word of the phrase is in the text.
    """
    from eth_account.hdaccount import HDPath, Mnemonic

    nodes = check_path(path)
    words = unicodedata.normalize("NFKD", phrase).lower().split()
    _check(words, source)
    return HDPath(nodes).derive(Mnemonic.to_seed(" ".join(words)))


def check_path(path: str) -> str:
    """A derivation path, with ' at its hardened nodes.

    Raises:
        ConfigError: it is none.
    """
    if _PATH.fullmatch(path) is None or any(int(index) > _HIGHEST_INDEX for index in re.findall(r"\d+", path)):
        raise ConfigError(
            f"the derivation path is {path!r}; write for example {DEFAULT_PATH}, with numbers up to {_HIGHEST_INDEX}"
        )
    return re.sub("[hH]", "'", path)


def _check(words: list[str], source: str) -> None:
    """The library's own errors quote the phrase; these say only where it is wrong."""
    from eth_account.hdaccount import Mnemonic
    from eth_account.hdaccount.mnemonic import VALID_WORD_COUNTS

    if len(words) not in VALID_WORD_COUNTS:
        counts = ", ".join(map(str, VALID_WORD_COUNTS))
        raise ConfigError(f"{source} has {len(words)} words, but a mnemonic has one of {counts}: write all its words")
    lists = [Mnemonic(language) for language in Mnemonic.list_languages_enum()]
    unknown = {
        mnemonic.language: [number for number, word in enumerate(words, 1) if word not in mnemonic.wordlist]
        for mnemonic in lists
    }
    # Some words are in the lists of several languages: the whole phrase tells which is meant.
    language = min(unknown, key=lambda name: len(unknown[name]))
    if numbers := unknown[language]:
        if len(numbers) == len(words):
            raise ConfigError(f"none of the words of {source} is in a list of BIP-39: it is not a mnemonic")
        raise ConfigError(
            f"{source} has words that are not in the {language} list of BIP-39: number {', '.join(map(str, numbers))}; "
            "correct their spelling"
        )
    if not any(mnemonic.is_mnemonic_valid(" ".join(words)) for mnemonic in lists if not unknown[mnemonic.language]):
        raise ConfigError(
            f"the checksum of {source} is wrong: two words are swapped, or one is another word of the list; compare it with "
            "what you wrote down"
        )
