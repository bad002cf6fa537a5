"""The Celery app and its queues.

default  parse, index, merge, sweep: no torch
embed    query vectors first, passage vectors between them
gpu      reranking
"""

import os

from celery import Celery
from kombu import Queue

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "searchapp.settings")

app = Celery("podium")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.task_queues = [Queue("default"), Queue("embed"), Queue("gpu")]
app.autodiscover_tasks(["searchapp"])
