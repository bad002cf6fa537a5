"""The vectors: one narrow partitioned table, one partition per generation.

Narrow because a wide row sends its vector to TOAST and an exact scan then costs four times as much;
partitioned because an index shared between collections loses hits to the filter.
"""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("searchapp", "0002_initial")]
    operations = [
        migrations.RunSQL(
            sql="""
            CREATE TABLE searchapp_vector (
                generation_id bigint NOT NULL
                    REFERENCES searchapp_generation (id) ON DELETE CASCADE
                    DEFERRABLE INITIALLY DEFERRED,
                passage_id bigint NOT NULL
                    REFERENCES searchapp_passage (id) ON DELETE CASCADE,
                embedding halfvec NOT NULL,
                PRIMARY KEY (generation_id, passage_id)
            ) PARTITION BY LIST (generation_id);
            -- The cascade from a deleted passage looks vectors up by passage alone.
            CREATE INDEX searchapp_vector_passage ON searchapp_vector (passage_id);
            """,
            reverse_sql="DROP TABLE searchapp_vector;",
        )
    ]
