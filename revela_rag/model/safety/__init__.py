"""What a model directory may hold and name, decided from its files before any library opens them.

:func:`check_model` is the one door, for models that serve and for models that are trained: it only reads JSON and the
headers of weights, and imports nothing heavy. :func:`checked` opens it for a library. :func:`model_errors` is the
other: what a library raises afterwards.
"""

from revela_rag.model.safety.door import check_model, listed_modules, model_errors
from revela_rag.model.safety.held import checked

__all__ = ["check_model", "checked", "listed_modules", "model_errors"]
