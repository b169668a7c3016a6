"""Proposed moderation actions in SQL."""

from dataclasses import replace
from pathlib import Path

from db import proposals
from db.proposals import Proposal
from tests.support.ledgers import open_ledger

PROPOSAL = Proposal(
    interaction_id=2**62,
    guild_id=1,
    actor_id=99,
    reason="too many",
    action_json='{"kind": "stop", "stopped": true}',
    created_at=5.5,
)


def test_a_proposal_is_read_as_it_was_stored_until_it_is_deleted(tmp_path: Path) -> None:
    """What a moderator confirms is what they proposed; confirmed or withdrawn, it is gone."""
    with open_ledger(tmp_path) as tx:
        assert proposals.get(tx, PROPOSAL.interaction_id) is None
        proposals.insert(tx, PROPOSAL)
        assert proposals.get(tx, PROPOSAL.interaction_id) == PROPOSAL
        proposals.delete(tx, PROPOSAL.interaction_id)
        proposals.delete(tx, PROPOSAL.interaction_id)
        assert proposals.get(tx, PROPOSAL.interaction_id) is None


def test_the_first_proposal_of_an_interaction_counts(tmp_path: Path) -> None:
    """A command that Discord delivers twice does not replace what the moderator sees."""
    with open_ledger(tmp_path) as tx:
        proposals.insert(tx, PROPOSAL)
        proposals.insert(tx, replace(PROPOSAL, reason="other", created_at=9.0))
        assert proposals.get(tx, PROPOSAL.interaction_id) == PROPOSAL
