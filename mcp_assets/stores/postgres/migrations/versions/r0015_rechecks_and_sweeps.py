"""Rechecks and sweeps: looks to be repeated, how far the sweep of each source table is, and what it has found."""

from alembic import context, op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute(
        """
        CREATE SEQUENCE look_numbers;
        COMMENT ON SEQUENCE look_numbers IS 'Numbers the rows of `inbox` that the platform itself adds: looks.';

        CREATE TABLE rechecks (
            entity_type   text COLLATE "C" NOT NULL,
            entity_id     text COLLATE "C" NOT NULL,
            noted_at      timestamptz NOT NULL,
            due_at        timestamptz NOT NULL,
            looks         integer NOT NULL DEFAULT 0,
            asked         jsonb NOT NULL,
            PRIMARY KEY (entity_type, entity_id)
        ) WITH (fillfactor = 70);
        COMMENT ON TABLE rechecks IS
            'Entities of which an event told and changed nothing: their rows may not have been committed yet.';
        COMMENT ON COLUMN rechecks.looks IS 'The looks taken since it was noted.';
        COMMENT ON COLUMN rechecks.asked IS
            '[kind, subject, message id] of each message about an entity of which nothing is known; else empty.';
        CREATE INDEX rechecks_due ON rechecks (due_at);

        -- What waits for a later look, with its count of tries: any but the first is the last here.
        UPDATE inbox SET attempts = 0 WHERE kind IN ('entity', 'relate');

        CREATE TABLE sweeps (
            entity_type   text COLLATE "C" PRIMARY KEY,
            next_slot     integer NOT NULL DEFAULT 0,
            pass          bigint NOT NULL DEFAULT 1,
            counts        jsonb NOT NULL DEFAULT '{}',
            pass_began_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            last_counts   jsonb,
            last_seconds  double precision,
            last_ended_at timestamptz
        ) WITH (fillfactor = 50);
        COMMENT ON TABLE sweeps IS 'How far the comparison of each source table with the ledger is.';
        COMMENT ON COLUMN sweeps.next_slot IS 'The slot at which the pass under way goes on.';
        COMMENT ON COLUMN sweeps.counts IS 'What the pass under way has compared, found and acted on.';
        COMMENT ON COLUMN sweeps.last_counts IS 'The same of the last pass that came to its end.';
        COMMENT ON COLUMN sweeps.last_seconds IS 'How long that pass took, its pauses included.';

        CREATE TABLE sweep_findings (
            entity_type   text COLLATE "C" NOT NULL,
            entity_id     text COLLATE "C" NOT NULL,
            slot          integer NOT NULL,
            source_hash   text,
            first_pass    bigint NOT NULL,
            seen_pass     bigint NOT NULL,
            asked_at      timestamptz,
            PRIMARY KEY (entity_type, entity_id)
        );
        COMMENT ON TABLE sweep_findings IS 'Rows that the last pass over their slot found to differ from the ledger.';
        COMMENT ON COLUMN sweep_findings.source_hash IS 'The hash of the row; NULL: it is gone.';
        COMMENT ON COLUMN sweep_findings.asked_at IS 'When a look at it was asked for; none is asked for twice.';
        """
    )


def downgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    # An event of which nothing is known waits in the inbox, as it did.
    op.execute(
        """
        INSERT INTO inbox (stream, epoch, seq, kind, subject, entity_type, entity_id, verb, message_id,
                           event_order, stored_at)
        SELECT '(looks)', 0, nextval('look_numbers'), message->>0, message->>1, entity_type, entity_id, 'look',
               message->>2, lpad((extract(epoch FROM noted_at) * 1000000)::bigint::text, 17, '0') || '|(looks)|',
               noted_at
        FROM rechecks, jsonb_array_elements(asked) AS message;
        DROP TABLE rechecks, sweeps, sweep_findings;
        DROP SEQUENCE look_numbers;
        """
    )
