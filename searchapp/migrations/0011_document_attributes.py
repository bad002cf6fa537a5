"""The texts of documents' metadata as rows, for ranges; kept by triggers (docs/decisions/0020).

Inserts and deletes are one statement each, however many documents they bring: a key of another
table costs a look-up per row. A change of metadata concerns one document at a time.
"""

import django.db.models.deletion
from django.db import migrations, models

# A name that is too long or holds the separator has no rows; searchapp/search/conditions.py tests
# such names on the metadata itself. CASE: nothing but an object has attributes, and what is asked
# for first is not what PostgreSQL looks at first.
_ROWS = """
    SELECT d.id, d.collection_id, a.key || E'\\x01' || left(a.value #>> '{{}}', 100)
    FROM {source} d, jsonb_each(
        CASE WHEN jsonb_typeof(d.metadata) = 'object' THEN d.metadata ELSE '{{}}'::jsonb END
    ) a
    WHERE jsonb_typeof(a.value) = 'string'
        AND char_length(a.key) <= 200 AND strpos(a.key, E'\\x01') = 0
"""
_INSERT = "INSERT INTO searchapp_documentattribute (document_id, collection_id, entry)"

_CREATE = f"""
CREATE FUNCTION searchapp_attributes_added() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    {_INSERT} {_ROWS.format(source="added")};
    RETURN NULL;
END $$;

CREATE FUNCTION searchapp_attributes_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM searchapp_documentattribute WHERE document_id = OLD.id;
    {_INSERT} {_ROWS.format(source="(SELECT NEW.id, NEW.collection_id, NEW.metadata)")};
    RETURN NULL;
END $$;

CREATE FUNCTION searchapp_attributes_removed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM searchapp_documentattribute a USING removed r WHERE a.document_id = r.id;
    RETURN NULL;
END $$;

CREATE TRIGGER document_attributes_added AFTER INSERT ON searchapp_document
    REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION searchapp_attributes_added();
CREATE TRIGGER document_attributes_changed
    AFTER UPDATE OF id, collection_id, metadata ON searchapp_document FOR EACH ROW
    WHEN ((OLD.id, OLD.collection_id, OLD.metadata)
        IS DISTINCT FROM (NEW.id, NEW.collection_id, NEW.metadata))
    EXECUTE FUNCTION searchapp_attributes_changed();
CREATE TRIGGER document_attributes_removed AFTER DELETE ON searchapp_document
    REFERENCING OLD TABLE AS removed
    FOR EACH STATEMENT EXECUTE FUNCTION searchapp_attributes_removed();

-- The triggers' lock keeps writers out until all is here.
{_INSERT} {_ROWS.format(source="searchapp_document")};
"""

_DROP = """
DROP TRIGGER document_attributes_added ON searchapp_document;
DROP TRIGGER document_attributes_changed ON searchapp_document;
DROP TRIGGER document_attributes_removed ON searchapp_document;
DROP FUNCTION searchapp_attributes_added();
DROP FUNCTION searchapp_attributes_changed();
DROP FUNCTION searchapp_attributes_removed();
"""


class Migration(migrations.Migration):
    dependencies = [("searchapp", "0010_api_documents")]
    operations = [
        migrations.CreateModel(
            name="DocumentAttribute",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "document_id", "entry", blank=True, editable=False,
                        primary_key=True, serialize=False,
                    ),
                ),
                (
                    "document",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="searchapp.document",
                    ),
                ),
                (
                    "collection",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="searchapp.collection",
                    ),
                ),
                ("entry", models.TextField(db_collation="C")),
            ],
            options={
                "indexes": [
                    models.Index(fields=["collection", "entry"], name="attribute_entry")
                ],
            },
        ),
        migrations.RunSQL(sql=_CREATE, reverse_sql=_DROP),
    ]
