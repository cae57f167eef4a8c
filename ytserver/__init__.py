"""The Django project: wiring only. What the product does lives in ``apps``."""
