"""The texts of documents' metadata as rows, for ranges; kept by a trigger (docs/decisions/0020).

Row by row, for documents that have metadata: a statement of a hundred thousand documents and one of
a single document would share a cached plan, and the worse one might be it.
"""

import django.db.models.deletion
from django.db import migrations, models

# A name that is too long or holds the separator has no rows; searchapp/search/conditions.py tests
# such names on the metadata itself. CASE: nothing but an object has attributes.
_CREATE = """
CREATE FUNCTION searchapp_attribute_entries(metadata jsonb) RETURNS SETOF text
LANGUAGE sql IMMUTABLE AS $$
    SELECT a.key || E'\\x01' || left(a.value #>> '{}', 100)
    FROM jsonb_each(CASE WHEN jsonb_typeof(metadata) = 'object' THEN metadata ELSE '{}' END) a
    WHERE jsonb_typeof(a.value) = 'string'
        AND char_length(a.key) <= 200 AND strpos(a.key, E'\\x01') = 0
$$;

CREATE FUNCTION searchapp_keep_attributes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        DELETE FROM searchapp_documentattribute
        WHERE collection_id = OLD.collection_id AND document_id = OLD.id
            AND entry = ANY (ARRAY(SELECT e FROM searchapp_attribute_entries(OLD.metadata) e));
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO searchapp_documentattribute (collection_id, entry, document_id)
        SELECT NEW.collection_id, e, NEW.id FROM searchapp_attribute_entries(NEW.metadata) e;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER document_attributes_added AFTER INSERT ON searchapp_document
    FOR EACH ROW WHEN (NEW.metadata <> '{}') EXECUTE FUNCTION searchapp_keep_attributes();
CREATE TRIGGER document_attributes_changed
    AFTER UPDATE OF id, collection_id, metadata ON searchapp_document
    FOR EACH ROW WHEN ((OLD.id, OLD.collection_id, OLD.metadata)
        IS DISTINCT FROM (NEW.id, NEW.collection_id, NEW.metadata))
    EXECUTE FUNCTION searchapp_keep_attributes();
CREATE TRIGGER document_attributes_removed AFTER DELETE ON searchapp_document
    FOR EACH ROW WHEN (OLD.metadata <> '{}') EXECUTE FUNCTION searchapp_keep_attributes();

-- The triggers' lock keeps writers out until all is here.
INSERT INTO searchapp_documentattribute (collection_id, entry, document_id)
SELECT d.collection_id, e, d.id FROM searchapp_document d, searchapp_attribute_entries(d.metadata) e;
"""

_DROP = """
DROP TRIGGER document_attributes_added ON searchapp_document;
DROP TRIGGER document_attributes_changed ON searchapp_document;
DROP TRIGGER document_attributes_removed ON searchapp_document;
DROP FUNCTION searchapp_keep_attributes();
DROP FUNCTION searchapp_attribute_entries(jsonb);
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
                        "collection_id", "entry", "document_id",
                        blank=True, editable=False, primary_key=True, serialize=False,
                    ),
                ),
                ("entry", models.TextField(db_collation="C")),
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
            ],
        ),
        migrations.RunSQL(sql=_CREATE, reverse_sql=_DROP),
    ]
