# Read by the entry point of PostgreSQL's image at the first start, after the roles were made.
psql --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" --set ON_ERROR_STOP=1 --quiet \
    --set password="$(cat /run/secrets/postgres_mcp_assets_password)" <<'SQL'
ALTER ROLE mcp_assets PASSWORD :'password';
SQL
