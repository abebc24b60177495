from django.apps import AppConfig


class WgpeersConfig(AppConfig):
    name = "wgpeers"
    verbose_name = "Connections"
