"""The Django project: wiring only. What the product does lives in ``apps``."""

import gc

gc.set_threshold(20_000, 20, 20)  # imports and requests make objects by the thousand, few of them in cycles
