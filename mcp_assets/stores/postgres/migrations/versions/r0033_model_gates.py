"""The gate of a change of model: what was measured of both models, and what a person decided."""

from alembic import context, op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None

_TABLE = """
CREATE TABLE model_gates (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model       text NOT NULL,
    dimension   integer NOT NULL,
    outcome     text CHECK (outcome IN ('measured', 'not_measured', 'failed')),
    reason      text NOT NULL DEFAULT '',
    figures     jsonb NOT NULL DEFAULT '{}',
    samples     jsonb NOT NULL DEFAULT '[]',
    golden      text NOT NULL DEFAULT '',
    measured_at timestamptz,
    decision    text CHECK (decision IN ('approved', 'abandoned')),
    decided_by  text,
    decided_at  timestamptz,
    ended_as    text CHECK (ended_as IN ('moved', 'given up')),
    ended_at    timestamptz
);
-- All aliases change their model together, so that there is one change at a time.
CREATE UNIQUE INDEX model_gates_current ON model_gates ((ended_at IS NULL)) WHERE ended_at IS NULL;
COMMENT ON TABLE model_gates IS
    'The gate of a change of model: a row a change, the last 20. The row that has not ended is that of the present '
    'change.';
COMMENT ON COLUMN model_gates.id IS 'The number of the change.';
COMMENT ON COLUMN model_gates.model IS 'The model that collections are built for.';
COMMENT ON COLUMN model_gates.dimension IS 'The dimension of its vectors.';
COMMENT ON COLUMN model_gates.outcome IS
    'measured: both models answered the same questions. not_measured: there is nothing to compare, so that the '
    'change passes. failed: it could not be measured, and the next full sync tries again. NULL: not tried yet.';
COMMENT ON COLUMN model_gates.reason IS 'Why nothing was measured; empty: it was.';
COMMENT ON COLUMN model_gates.figures IS 'Questions and hits of both models, in all and by kind of question.';
COMMENT ON COLUMN model_gates.samples IS 'The questions whose answers differ most, with the first results of both.';
COMMENT ON COLUMN model_gates.golden IS 'md5 of the golden file; empty: the questions were made from the data.';
COMMENT ON COLUMN model_gates.measured_at IS 'When it was measured, or tried.';
COMMENT ON COLUMN model_gates.decision IS 'What a person decided; NULL: nothing, so that the figures decide.';
COMMENT ON COLUMN model_gates.decided_by IS 'Who decided.';
COMMENT ON COLUMN model_gates.decided_at IS 'When.';
COMMENT ON COLUMN model_gates.ended_as IS
    'moved: the aliases lead to the new collections. given up: the settings name another model, or the new '
    'collections vanished.';
COMMENT ON COLUMN model_gates.ended_at IS
    'When it ended; NULL: not yet. A change that was abandoned ends when the settings name another model.';
"""


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'SET LOCAL search_path TO "{schema}"')
    op.execute(_TABLE)


def downgrade() -> None:
    schema = context.config.attributes["schema"]
    op.execute(f'DROP TABLE "{schema}".model_gates')
