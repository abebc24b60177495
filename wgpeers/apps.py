from django.apps import AppConfig


class WgpeersConfig(AppConfig):
    name = "wgpeers"
    verbose_name = "Connections"

    def ready(self) -> None:
        from . import jobs, rules, signals  # noqa: F401 - models must be there first
