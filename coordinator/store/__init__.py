"""SQLite through SQLAlchemy Core, one writer; the schema moves by alembic."""
