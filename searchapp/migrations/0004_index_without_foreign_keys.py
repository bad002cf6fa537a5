"""Postings and vectors without foreign keys, stored as they are.

A key checked per row halves the speed of indexing, a cascade from one deleted passage visits every
partition, and making or dropping a partition with a key locks the table of passages. Rows leave
together instead: searchapp/search/erasing.py. Packed integers hardly compress, so TOAST does not try.
"""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("searchapp", "0003_vector_table")]
    operations = [
        migrations.AlterField(
            model_name="posting",
            name="collection",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="+",
                to="searchapp.collection",
            ),
        ),
        migrations.AlterField(
            model_name="posting",
            name="segment",
            field=models.ForeignKey(
                db_constraint=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="postings",
                to="searchapp.segment",
            ),
        ),
        migrations.RunSQL(
            sql="""
            ALTER TABLE searchapp_vector DROP CONSTRAINT searchapp_vector_generation_id_fkey;
            ALTER TABLE searchapp_vector DROP CONSTRAINT searchapp_vector_passage_id_fkey;
            DROP INDEX searchapp_vector_passage;
            ALTER TABLE searchapp_posting ALTER COLUMN data SET STORAGE EXTERNAL;
            ALTER TABLE searchapp_segment ALTER COLUMN passage_ids SET STORAGE EXTERNAL;
            ALTER TABLE searchapp_segment ALTER COLUMN lengths SET STORAGE EXTERNAL;
            """,
            reverse_sql="""
            ALTER TABLE searchapp_segment ALTER COLUMN lengths SET STORAGE EXTENDED;
            ALTER TABLE searchapp_segment ALTER COLUMN passage_ids SET STORAGE EXTENDED;
            ALTER TABLE searchapp_posting ALTER COLUMN data SET STORAGE EXTENDED;
            CREATE INDEX searchapp_vector_passage ON searchapp_vector (passage_id);
            ALTER TABLE searchapp_vector ADD CONSTRAINT searchapp_vector_passage_id_fkey
                FOREIGN KEY (passage_id) REFERENCES searchapp_passage (id) ON DELETE CASCADE;
            ALTER TABLE searchapp_vector ADD CONSTRAINT searchapp_vector_generation_id_fkey
                FOREIGN KEY (generation_id) REFERENCES searchapp_generation (id) ON DELETE CASCADE
                DEFERRABLE INITIALLY DEFERRED;
            """,
        ),
    ]
