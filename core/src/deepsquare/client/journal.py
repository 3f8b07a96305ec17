"""What only this machine knows of its submissions: written before anything is bought, so that no purchase is without a trace."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deepsquare.chain.transactions import Sent
from deepsquare.errors import ConfigError
from deepsquare.files import make_private

_SCHEMA = """
CREATE TABLE IF NOT EXISTS submissions (
    location_hash TEXT PRIMARY KEY,   -- unique for each submission, so it proves which job on chain is this one
    context TEXT NOT NULL,
    customer TEXT NOT NULL,
    labels TEXT NOT NULL,             -- JSON; names of the engine's things never go on chain
    locked TEXT NOT NULL,             -- wei
    created_at REAL NOT NULL,
    transaction_hash TEXT,
    raw_transaction BLOB,
    job_id TEXT
) STRICT
"""

# What journals of before lack, by version.
_CHANGES = (
    (
        "ALTER TABLE submissions ADD COLUMN key TEXT",  # the caller's name for the purchase
        "ALTER TABLE submissions ADD COLUMN generation INTEGER",  # which purchase under the key
        "ALTER TABLE submissions ADD COLUMN digest TEXT",  # of the workflow
        "ALTER TABLE submissions ADD COLUMN delivered INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX submissions_of_key ON submissions (context, customer, key) WHERE key IS NOT NULL",
    ),
    (
        "ALTER TABLE submissions ADD COLUMN former_job_id TEXT",  # before the chain took its block back
        "CREATE INDEX submissions_of_job ON submissions (context, customer, job_id) WHERE job_id IS NOT NULL",
        "CREATE INDEX submissions_of_former_job ON submissions (context, customer, former_job_id) "
        "WHERE former_job_id IS NOT NULL",
    ),
    (
        """CREATE TABLE top_ups (
            number INTEGER PRIMARY KEY,
            context TEXT NOT NULL,
            customer TEXT NOT NULL,
            job_id TEXT NOT NULL,
            amount TEXT NOT NULL,             -- wei
            locked_before TEXT NOT NULL,      -- wei that the job had locked
            automatic INTEGER NOT NULL,       -- whether a watcher decided it: counts against the job's cap
            created_at REAL NOT NULL,
            transaction_hash TEXT,
            raw_transaction BLOB,
            carried_out INTEGER NOT NULL DEFAULT 0
        ) STRICT""",
        "CREATE INDEX top_ups_of_job ON top_ups (context, customer, job_id)",
    ),
    (
        """CREATE TABLE budgets (
            context TEXT NOT NULL,
            customer TEXT NOT NULL,
            scope TEXT NOT NULL,
            credits TEXT NOT NULL,            -- wei
            when_spent TEXT NOT NULL,
            PRIMARY KEY (context, customer, scope)
        ) STRICT""",
        """CREATE TABLE budget_charges (
            number INTEGER PRIMARY KEY,
            context TEXT NOT NULL,
            customer TEXT NOT NULL,
            scope TEXT NOT NULL,
            location_hash TEXT,               -- of a purchase
            job_id TEXT,                      -- once it is known
            top_up INTEGER,                   -- the number of a top-up
            amount TEXT NOT NULL,             -- wei
            created_at REAL NOT NULL,
            settled INTEGER NOT NULL DEFAULT 0 -- whether the job has ended, and the amount is its bill
        ) STRICT""",
        "CREATE INDEX budget_charges_of_scope ON budget_charges (context, customer, scope)",
        "CREATE INDEX budget_charges_of_job ON budget_charges (job_id)",
    ),
    (
        """CREATE TABLE results (
            location_hash TEXT PRIMARY KEY,
            tag TEXT NOT NULL                 -- by which the job's result is known among the lines of its log
        ) STRICT""",
    ),
    (
        """CREATE TABLE raises (                  -- of the allowance, as long as nobody knows whether they were carried out
            number INTEGER PRIMARY KEY,
            context TEXT NOT NULL,
            customer TEXT NOT NULL,
            transaction_hash TEXT NOT NULL,
            raw_transaction BLOB NOT NULL
        ) STRICT""",
        "ALTER TABLE submissions ADD COLUMN name TEXT",  # the public one, on chain
    ),
    (
        # Of many purchases that one transaction makes, each would have its bytes.
        "CREATE TABLE IF NOT EXISTS transactions (transaction_hash TEXT PRIMARY KEY, raw BLOB NOT NULL) STRICT, WITHOUT ROWID",
        "DROP TABLE IF EXISTS job_names",
        """CREATE TABLE job_names (               -- of the customer's jobs on chain, in their order; a job keeps its name
            context TEXT NOT NULL,
            customer TEXT NOT NULL,
            position INTEGER NOT NULL,
            job_id TEXT NOT NULL,
            name BLOB NOT NULL,
            seen_at INTEGER NOT NULL,         -- the block in which it was seen first
            PRIMARY KEY (context, customer, position)
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX jobs_of_name ON job_names (context, customer, name)",
        "ALTER TABLE raises ADD COLUMN block INTEGER",  # by which it was decided
        # For a while those were noted, too, that nobody gave.
        "UPDATE submissions SET name = NULL WHERE length(name) IN (6, 24) AND name NOT GLOB '*[^0-9a-f]*'",
    ),
)


_SUBMISSIONS = "submissions LEFT JOIN transactions USING (transaction_hash)"
_RAW = "coalesce(raw, raw_transaction)"


@dataclass(frozen=True, slots=True)
class Entry:
    """A submission, as far as it got: signed once there is a raw transaction, bought once there is a job."""

    location_hash: str
    generation: int
    digest: str
    transaction_hash: str | None
    raw_transaction: bytes | None
    job_id: str | None


@dataclass(frozen=True, slots=True)
class OpenRaise:
    """A raise of the allowance: nobody knows whether it was carried out, or since which block."""

    transaction_hash: str
    raw_transaction: bytes
    block: int | None


@dataclass(frozen=True, slots=True)
class OpenTopUp:
    """A top-up of which nobody knows yet whether it was carried out; without a transaction it was never sent."""

    number: int
    transaction_hash: str | None
    raw_transaction: bytes | None


class Journal:
    """The submissions of this user, in SQLite; safe for many processes at once."""

    def __init__(self, path: Path) -> None:
        """Open or make the journal at `path` (mode 0600).

        Raises:
            ConfigError: it can't be opened.
        """
        self._path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            make_private(path)
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._prepare()
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(f"the journal {path} can't be opened: {error}") from None

    def _prepare(self) -> None:
        if self._version() == len(_CHANGES):
            return
        if self._version() > len(_CHANGES):
            raise ConfigError(
                f"the journal {self._path} was written by a newer version of deepsquare, which may have bought what this one would "
                "buy again: upgrade this one"
            )
        # Of many processes that start at once, one changes it.
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.execute(_SCHEMA)
            for number, changes in enumerate(_CHANGES[self._version() :], start=self._version() + 1):
                for change in changes:
                    self._db.execute(change)
                self._db.execute(f"PRAGMA user_version = {number}")
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing of what is changed, and nobody changes anything meanwhile."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def intend(
        self,
        *,
        location_hash: str,
        context: str,
        customer: str,
        labels: Mapping[str, str],
        locked: int,
        name: str | None = None,
        key: str | None = None,
        generation: int | None = None,
        digest: str | None = None,
    ) -> None:
        """Note that a job is about to be bought for `locked` wei; with a key, as which of its purchases."""
        self._db.execute(
            "INSERT INTO submissions (location_hash, context, customer, labels, locked, created_at, name, key, generation, "
            "digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                location_hash,
                context,
                customer,
                json.dumps(dict(labels)),
                str(locked),
                time.time(),
                name,
                key,
                generation,
                digest,
            ),
        )

    def signed(self, location_hashes: Sequence[str], transaction_hash: bytes, raw: bytes) -> None:
        """Note the transaction that is about to be sent, of one or more purchases."""
        name, alone = "0x" + transaction_hash.hex(), len(location_hashes) == 1
        with self.transaction() as db:
            if not alone:
                db.execute("INSERT OR IGNORE INTO transactions VALUES (?, ?)", (name, raw))
            db.execute(
                "UPDATE submissions SET transaction_hash = ?, raw_transaction = ? "
                "WHERE location_hash IN (SELECT value FROM json_each(?))",
                (name, raw if alone else None, json.dumps(list(location_hashes))),
            )

    def bought(self, jobs: Mapping[str, str]) -> None:
        """Note the jobs that a transaction made: their ids by their location hashes."""
        with self.transaction() as db:
            db.executemany(
                "UPDATE submissions SET job_id = ? WHERE location_hash = ?",
                [(job_id, location_hash) for location_hash, job_id in jobs.items()],
            )

    def moved(self, location_hash: str, job_id: str) -> None:
        """Note the job that the transaction made anew, when the chain had taken it back."""
        self._db.execute(
            "UPDATE submissions SET former_job_id = coalesce(former_job_id, job_id), job_id = ? WHERE location_hash = ?",
            (job_id, location_hash),
        )

    def adopt(
        self, *, location_hash: str, context: str, customer: str, locked: int, key: str, generation: int, job_id: str
    ) -> None:
        """Note a job that was bought under a key, by this machine or by another."""
        self._db.execute(
            "INSERT INTO submissions (location_hash, context, customer, labels, locked, created_at, key, generation, digest, "
            "job_id) VALUES (?, ?, ?, '{}', ?, ?, ?, ?, '', ?) ON CONFLICT (location_hash) DO UPDATE SET job_id = excluded.job_id",
            (location_hash, context, customer, str(locked), time.time(), key, generation, job_id),
        )

    def of_key(self, context: str, customer: str, key: str) -> list[Entry]:
        """The submissions under a key, oldest first."""
        rows = self._db.execute(
            f"SELECT location_hash, generation, digest, transaction_hash, {_RAW}, job_id FROM {_SUBMISSIONS} "  # noqa: S608
            "WHERE context = ? AND customer = ? AND key = ? ORDER BY generation, created_at",
            (context, customer, key),
        )
        return [Entry(*row) for row in rows]

    def of_jobs(self, context: str, customer: str, job_ids: Sequence[str]) -> dict[str, Entry]:
        """The submissions that bought some jobs on this machine, by the ids that are asked for: the jobs' own or former ones."""
        found: dict[str, Entry] = {}
        for column in ("former_job_id", "job_id"):
            rows = self._db.execute(
                f"SELECT {column}, location_hash, coalesce(generation, 0), coalesce(digest, ''), transaction_hash, "  # noqa: S608 (of two)
                f"{_RAW}, job_id FROM {_SUBMISSIONS} "
                f"WHERE context = ? AND customer = ? AND {column} IN (SELECT value FROM json_each(?))",
                (context, customer, json.dumps(list(job_ids))),
            )
            found |= {row[0]: Entry(*row[1:]) for row in rows}
        return found

    def sent(self, location_hashes: Sequence[str]) -> dict[str, Sent]:
        """The transactions that were signed for some purchases, by their location hashes."""
        rows = self._db.execute(
            f"SELECT location_hash, transaction_hash, {_RAW} FROM {_SUBMISSIONS} "  # noqa: S608
            "WHERE location_hash IN (SELECT value FROM json_each(?)) AND transaction_hash IS NOT NULL",
            (json.dumps(list(location_hashes)),),
        )
        return {location: Sent(bytes.fromhex(name[2:]), raw) for location, name, raw in rows}

    def deliver(self, context: str, customer: str, job_id: str) -> None:
        """Note that the result of a job has reached who asked for it."""
        self._db.execute(
            "UPDATE submissions SET delivered = 1 WHERE context = ? AND customer = ? AND job_id = ?",
            (context, customer, job_id),
        )

    def is_delivered(self, context: str, customer: str, job_id: str) -> bool:
        """Whether `deliver` was said of a job on this machine."""
        row = self._db.execute(
            "SELECT max(delivered) FROM submissions WHERE context = ? AND customer = ? AND job_id = ?",
            (context, customer, job_id),
        ).fetchone()
        return bool(row[0])

    def keep_tag(self, location_hash: str, tag: str) -> None:
        """Note the tag of a job's result."""
        self._db.execute("INSERT OR IGNORE INTO results VALUES (?, ?)", (location_hash, tag))

    def tag_of(self, location_hash: str) -> str | None:
        """The tag of a job's result, if it was bought with one."""
        row = self._db.execute("SELECT tag FROM results WHERE location_hash = ?", (location_hash,)).fetchone()
        return None if row is None else row[0]

    def labels(self, context: str, customer: str) -> dict[str, dict[str, str]]:
        """The labels of all submissions of a customer, by location hash."""
        rows = self._db.execute(
            "SELECT location_hash, labels FROM submissions WHERE context = ? AND customer = ?", (context, customer)
        )
        return {location: json.loads(labels) for location, labels in rows}

    def given_names(self, context: str, customer: str) -> dict[str, str]:
        """The public names that submissions of a customer were given, by location hash."""
        rows = self._db.execute(
            "SELECT location_hash, name FROM submissions WHERE context = ? AND customer = ? AND name IS NOT NULL",
            (context, customer),
        )
        return dict(rows.fetchall())

    def job_ids(
        self, context: str, customer: str, *, name: str | None = None, labels: Mapping[str, str] | None = None
    ) -> list[str]:
        """The jobs that this machine bought under a public name and with labels, these among others; oldest first."""
        rows = self._db.execute(
            "SELECT job_id FROM submissions WHERE context = ? AND customer = ? AND job_id IS NOT NULL AND name IS ifnull(?, name) "
            "AND NOT EXISTS (SELECT 1 FROM json_each(?) AS wanted WHERE NOT EXISTS "
            "(SELECT 1 FROM json_each(labels) AS own WHERE own.key = wanted.key AND own.value = wanted.value)) ORDER BY created_at",
            (context, customer, name, json.dumps(dict(labels or {}))),
        )
        return [job_id for (job_id,) in rows]

    # ------------------------------------------------------------------ top-ups

    def intend_top_up(
        self, context: str, customer: str, job_id: str, *, amount: int, locked_before: int, automatic: bool
    ) -> int:
        """Note that `amount` wei are about to be locked for a job that has `locked_before`, and return the note's number."""
        number = self._db.execute(
            "INSERT INTO top_ups (context, customer, job_id, amount, locked_before, automatic, created_at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (context, customer, job_id, str(amount), str(locked_before), automatic, time.time()),
        ).lastrowid
        assert number is not None
        return number

    def signed_top_up(self, number: int, transaction_hash: bytes, raw: bytes) -> None:
        """Note the transaction that is about to be sent."""
        self._db.execute(
            "UPDATE top_ups SET transaction_hash = ?, raw_transaction = ? WHERE number = ?",
            ("0x" + transaction_hash.hex(), raw, number),
        )

    def carried_out_top_up(self, number: int) -> None:
        """Note that the credits are locked."""
        self._db.execute("UPDATE top_ups SET carried_out = 1 WHERE number = ?", (number,))

    def forget_top_up(self, number: int) -> None:
        """Note that nothing was locked, and never will be: it counts against no budget."""
        with self.transaction() as db:
            db.execute("DELETE FROM top_ups WHERE number = ?", (number,))
            db.execute("DELETE FROM budget_charges WHERE top_up = ?", (number,))

    def open_top_ups(self, context: str, customer: str, job_id: str) -> list[OpenTopUp]:
        """The top-ups of a job whose end is not known, oldest first."""
        rows = self._db.execute(
            "SELECT number, transaction_hash, raw_transaction FROM top_ups "
            "WHERE context = ? AND customer = ? AND job_id = ? AND NOT carried_out ORDER BY number",
            (context, customer, job_id),
        )
        return [OpenTopUp(*row) for row in rows]

    def topped_up(self, context: str, customer: str, job_id: str) -> int:
        """The wei that automatic top-ups of this machine have added to a job."""
        return sum(amount for amount, _, automatic in self._top_ups(context, customer, job_id) if automatic)

    def topped_up_to(self, context: str, customer: str, job_id: str) -> int:
        """The wei that a job has locked at least, by its top-ups; 0 without any."""
        return max((before + amount for amount, before, _ in self._top_ups(context, customer, job_id)), default=0)

    def _top_ups(self, context: str, customer: str, job_id: str) -> list[tuple[int, int, bool]]:
        rows = self._db.execute(
            "SELECT amount, locked_before, automatic FROM top_ups WHERE context = ? AND customer = ? AND job_id = ?",
            (context, customer, job_id),
        )
        # Wei don't fit SQLite's integers.
        return [(int(amount), int(before), bool(automatic)) for amount, before, automatic in rows]

    # ------------------------------------------------------------------ raises of the allowance

    def signed_raise(self, context: str, customer: str, transaction_hash: bytes, raw: bytes) -> None:
        """Note the transaction that is about to be sent."""
        self._db.execute(
            "INSERT INTO raises (context, customer, transaction_hash, raw_transaction) VALUES (?, ?, ?, ?)",
            (context, customer, "0x" + transaction_hash.hex(), raw),
        )

    def decided_raises(self, context: str, customer: str, block: int) -> None:
        """Note that of all raises it is decided by this block what became of them, and what the allowance is."""
        with self.transaction() as db:
            db.execute("DELETE FROM raises WHERE context = ? AND customer = ?", (context, customer))
            db.execute(
                "INSERT INTO raises (context, customer, transaction_hash, raw_transaction, block) VALUES (?, ?, '', x'', ?)",
                (context, customer, block),
            )

    def forget_raises(self, context: str, customer: str) -> None:
        """Note that it is known of all raises what became of them."""
        self._db.execute("DELETE FROM raises WHERE context = ? AND customer = ?", (context, customer))

    def open_raises(self, context: str, customer: str) -> list[OpenRaise]:
        """The raises whose end is not known, or may not have been seen by whoever reads next; newest first.

        Of several with one nonce, the newest is the one that nodes have.
        """
        rows = self._db.execute(
            "SELECT transaction_hash, raw_transaction, block FROM raises WHERE context = ? AND customer = ? ORDER BY number DESC",
            (context, customer),
        )
        return [OpenRaise(*row) for row in rows]

    # ------------------------------------------------------------------ names on chain

    def settled_names(self, context: str, customer: str, block: int) -> tuple[int, str | None]:
        """How many of the customer's jobs, from the first on, were seen at a block or before it; and the id of the last of them."""
        owner = (context, customer)
        first = self._db.execute(
            "SELECT min(position) FROM job_names WHERE context = ? AND customer = ? AND seen_at > ?", (*owner, block)
        ).fetchone()[0]
        count, last = self._db.execute(
            "SELECT count(*), max(position) FROM job_names WHERE context = ? AND customer = ? AND position < ?",
            (*owner, 2**62 if first is None else first),
        ).fetchone()
        if not count or count != last + 1:
            return 0, None
        row = self._db.execute(
            "SELECT job_id FROM job_names WHERE context = ? AND customer = ? AND position = ?", (*owner, last)
        ).fetchone()
        return count, row[0]

    def keep_names(
        self, context: str, customer: str, first: int, names: Sequence[tuple[str, bytes, int]], block: int
    ) -> None:
        """Note all the customer's jobs from a position on: the id, the name, and the block at which it was seen so.

        `block` is the latest one of this look: what others have seen later stays.
        """
        with self.transaction() as db:
            db.execute(
                "DELETE FROM job_names WHERE context = ? AND customer = ? AND position >= ? AND seen_at <= ?",
                (context, customer, first + len(names), block),
            )
            db.executemany(
                "INSERT INTO job_names VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                "seen_at = iif(job_id = excluded.job_id AND name = excluded.name, min(seen_at, excluded.seen_at), "
                "excluded.seen_at), job_id = excluded.job_id, name = excluded.name",
                [(context, customer, first + at, *seen) for at, seen in enumerate(names)],
            )

    def job_named(self, context: str, customer: str, name: bytes) -> str | None:
        """The id of the customer's newest job of a name, among those that were noted."""
        row = self._db.execute(
            "SELECT job_id FROM job_names WHERE context = ? AND customer = ? AND name = ? ORDER BY position DESC LIMIT 1",
            (context, customer, name),
        ).fetchone()
        return None if row is None else row[0]
