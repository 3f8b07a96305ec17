from __future__ import annotations

from pathlib import Path

from deepsquare.grid.supervisor.journal import Entry, Stage, SupervisorJournal


def test_what_was_saved_is_there_after_a_restart(tmp_path: Path) -> None:
    journal = SupervisorJournal(tmp_path / "journal.db")
    entry = Entry(b"\1" * 32, Stage.CLAIMED, "0xabc", 5)
    journal.save(entry)
    entry.stage, entry.scheduler_id, entry.log_offset = Stage.SUBMITTED, "17", 99
    journal.save(entry)
    journal.close()
    again = SupervisorJournal(tmp_path / "journal.db")
    assert again.open_entries() == {entry.job_id: entry}
    entry.stage = Stage.DONE
    again.save(entry)
    assert again.open_entries() == {}
    assert again.get(entry.job_id) == again.last_of("17") == entry
    assert again.get(b"\2" * 32) is None
    assert again.last_of("18") is None
    again.forget(entry.job_id)
    assert again.get(entry.job_id) is None
    assert (tmp_path / "journal.db").stat().st_mode & 0o777 == 0o600
