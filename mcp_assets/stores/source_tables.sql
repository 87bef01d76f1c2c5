-- The source tables of the shipped preset `mcp`, as MCP servers for kanban, wiki and memory would have them.
-- Made in the embedded PostgreSQL, and elsewhere only by `mcp-assets load --create-tables`.

CREATE TABLE IF NOT EXISTS tasks (
    id           text PRIMARY KEY,
    board_id     text,
    title        text NOT NULL,
    description  text,
    status       text,
    priority     text,
    assignee_id  text,
    tags         text[] NOT NULL DEFAULT '{}',
    parent_id    text,
    depends_on   text[] NOT NULL DEFAULT '{}',
    blocked_by   text[] NOT NULL DEFAULT '{}',
    due_date     date,
    metadata     jsonb NOT NULL DEFAULT '{}',
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    archived_at  timestamptz
);

CREATE TABLE IF NOT EXISTS wiki_pages (
    id              text PRIMARY KEY,
    slug            text,
    title           text NOT NULL,
    content         text,
    category        text,
    author_id       text,
    tags            text[] NOT NULL DEFAULT '{}',
    parent_page_id  text,
    replaces        text[] NOT NULL DEFAULT '{}',
    superseded_by   text[] NOT NULL DEFAULT '{}',
    metadata        jsonb NOT NULL DEFAULT '{}',
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    archived_at     timestamptz
);

CREATE TABLE IF NOT EXISTS memory_nodes (
    id           text PRIMARY KEY,
    title        text,
    content      text NOT NULL,
    context      text,
    concepts     text[] NOT NULL DEFAULT '{}',
    tags         text[] NOT NULL DEFAULT '{}',
    author_id    text,
    metadata     jsonb NOT NULL DEFAULT '{}',
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    archived_at  timestamptz
);
