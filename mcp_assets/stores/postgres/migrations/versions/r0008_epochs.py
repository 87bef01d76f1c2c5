"""Epochs: a message is named by epoch and sequence of its stream; the cursor knows the last message that was read."""

from alembic import context, op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_KEYED = ("inbox", "full_sync_requests")


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    # Until now a life of a stream was told by the stream's creation time. The one that the cursor is in is the last.
    op.execute(
        """
        CREATE TEMPORARY TABLE epochs AS
        SELECT lives.stream, lives.stream_created_at,
               row_number() OVER (
                   PARTITION BY lives.stream ORDER BY cursors.stream IS NOT NULL, lives.stream_created_at
               )::integer AS epoch
        FROM (
            SELECT stream, stream_created_at FROM intake_cursors
            UNION SELECT stream, stream_created_at FROM inbox
            UNION SELECT stream, stream_created_at FROM full_sync_requests
            UNION SELECT stream, stream_created_at FROM dead_letters WHERE stream IS NOT NULL
        ) AS lives
        LEFT JOIN intake_cursors AS cursors USING (stream, stream_created_at);

        ALTER TABLE intake_cursors RENAME COLUMN last_stored_at TO newest_stored_at;
        ALTER TABLE intake_cursors
            ADD COLUMN epoch integer,
            ADD COLUMN last_stored_at timestamptz,
            ADD COLUMN last_digest bytea,
            ADD COLUMN read_before timestamptz;
        UPDATE intake_cursors SET epoch = epochs.epoch FROM epochs
        WHERE epochs.stream = intake_cursors.stream AND epochs.stream_created_at = intake_cursors.stream_created_at;
        ALTER TABLE intake_cursors ALTER COLUMN epoch SET NOT NULL;
        COMMENT ON COLUMN intake_cursors.epoch IS
            'A life of the stream between two rewinds or remakes; part of the identity of a message.';
        COMMENT ON COLUMN intake_cursors.last_stored_at IS
            'When the stream stored the last message that was read; NULL: none was read in this epoch.';
        COMMENT ON COLUMN intake_cursors.last_digest IS
            'Of subject and bytes of the message last_seq; NULL: that message was not read.';
        COMMENT ON COLUMN intake_cursors.newest_stored_at IS
            'The newest storing time in this epoch: no later message takes an earlier place in the order of events.';
        COMMENT ON COLUMN intake_cursors.read_before IS
            'A message stored at or before this time may have been read in an earlier epoch.';

        ALTER TABLE dead_letters ADD COLUMN epoch integer;
        UPDATE dead_letters SET epoch = epochs.epoch FROM epochs
        WHERE epochs.stream = dead_letters.stream AND epochs.stream_created_at = dead_letters.stream_created_at;
        DROP INDEX dead_letters_by_message;
        CREATE UNIQUE INDEX dead_letters_by_message ON dead_letters (stream, epoch, seq)
            WHERE stage IN ('intake', 'request');
        ALTER TABLE dead_letters DROP COLUMN stream_created_at;
        """
    )
    for table in _KEYED:
        op.execute(
            f"""
            ALTER TABLE {table} ADD COLUMN epoch integer;
            UPDATE {table} SET epoch = epochs.epoch FROM epochs
            WHERE epochs.stream = {table}.stream AND epochs.stream_created_at = {table}.stream_created_at;
            ALTER TABLE {table} DROP CONSTRAINT {table}_pkey, ADD PRIMARY KEY (stream, epoch, seq);
            ALTER TABLE {table} DROP COLUMN stream_created_at;
            """  # noqa: S608  (names of this module)
        )
    op.execute("DROP TABLE epochs")


def downgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    # Creation times of earlier epochs are not known any more: they only have to differ.
    op.execute(
        """
        CREATE FUNCTION pg_temp.created_at(text, integer) RETURNS timestamptz LANGUAGE sql AS $$
            SELECT coalesce(max(stream_created_at - (epoch - $2) * interval '1 microsecond'),
                            timestamptz 'epoch' + $2 * interval '1 microsecond')
            FROM intake_cursors WHERE stream = $1
        $$;
        ALTER TABLE dead_letters ADD COLUMN stream_created_at timestamptz;
        UPDATE dead_letters SET stream_created_at = pg_temp.created_at(stream, epoch) WHERE stream IS NOT NULL;
        DROP INDEX dead_letters_by_message;
        CREATE UNIQUE INDEX dead_letters_by_message ON dead_letters (stream, stream_created_at, seq)
            WHERE stage IN ('intake', 'request');
        ALTER TABLE dead_letters DROP COLUMN epoch;
        """
    )
    for table in _KEYED:
        op.execute(
            f"""
            ALTER TABLE {table} ADD COLUMN stream_created_at timestamptz;
            UPDATE {table} SET stream_created_at = pg_temp.created_at(stream, epoch);
            ALTER TABLE {table} DROP CONSTRAINT {table}_pkey, ADD PRIMARY KEY (stream, stream_created_at, seq);
            ALTER TABLE {table} DROP COLUMN epoch;
            """  # noqa: S608  (names of this module)
        )
    op.execute(
        """
        ALTER TABLE intake_cursors
            DROP COLUMN epoch, DROP COLUMN last_stored_at, DROP COLUMN last_digest, DROP COLUMN read_before;
        ALTER TABLE intake_cursors RENAME COLUMN newest_stored_at TO last_stored_at;
        """
    )
