-- The PostgreSQL image runs this once, on an empty volume.
-- memoryd connects as a role that is not a superuser, so that row-level security applies to it.
\getenv password POSTGRES_PASSWORD
CREATE ROLE memoryd LOGIN PASSWORD :'password';
CREATE DATABASE memoryd OWNER memoryd;
\connect memoryd
CREATE EXTENSION vector;
-- The superuser needs no password inside its container, and has none elsewhere.
ALTER ROLE CURRENT_USER PASSWORD NULL;
