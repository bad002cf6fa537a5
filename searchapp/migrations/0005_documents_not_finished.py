"""The few documents that still wait for vectors are asked for after every batch of vectors."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("searchapp", "0004_index_without_foreign_keys")]
    operations = [
        migrations.AddIndex(
            model_name="document",
            index=models.Index(
                condition=models.Q(("status", "indexing")),
                fields=["upload", "id"],
                name="document_indexing",
            ),
        )
    ]
